"""Builds the firmware for a chip, makes its flash image, writes it to a board and tests the board."""

"""Devices: the client, and what it talks to."""

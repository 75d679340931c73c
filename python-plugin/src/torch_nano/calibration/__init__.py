"""Calibration: observers, and the ranges of values that follow from them."""

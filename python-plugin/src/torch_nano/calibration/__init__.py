"""Calibration: observers, and the ranges they give to values."""

"""Equalization: channels of a value are scaled so that each uses the range of its integers."""

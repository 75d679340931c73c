"""Comparison of a network in float with the same network in int8, layer by layer."""

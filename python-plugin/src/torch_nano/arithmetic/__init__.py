"""Quantizations, layouts, tensors and weights as integers, fixed-point arithmetic; knows no operator."""

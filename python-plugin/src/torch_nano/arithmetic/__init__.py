"""Integer arithmetic below the operators: quantizations, layouts, tensors and weights, fixed point."""

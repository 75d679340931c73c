"""Integer arithmetic below the operators: quantizations, layouts, quantized tensors and weights, fixed point."""

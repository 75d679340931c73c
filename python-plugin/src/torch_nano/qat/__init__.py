"""Quantization-aware training: a module that trains through the device's arithmetic."""

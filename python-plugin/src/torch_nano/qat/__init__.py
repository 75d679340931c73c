"""Quantization-aware training (QAT): a module that trains through the device's arithmetic."""

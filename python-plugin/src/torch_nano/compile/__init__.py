"""Compiles a graph to a NanoModule: quantization, image, saved model, generated Rust, verification."""

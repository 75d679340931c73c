"""From a graph to a NanoModule: quantization, the image, the saved model, generated Rust, verification."""

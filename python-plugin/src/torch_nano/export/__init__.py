"""Images, files and generated Rust."""

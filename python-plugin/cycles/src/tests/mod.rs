//! Of all but the calls of QEMU, which `tests/device/test_cycles.py` has run real programs.

mod arguments;
mod cache;
mod decode;
mod model;

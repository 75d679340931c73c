//! The fuzz targets, independent of the fuzzing engine.
//!
//! Each target is a module with `run`, which panics at a finding, `seeds`, its first inputs, and `mutate`, which knows the input's
//! structure. README.md says how to run them.
#![deny(missing_docs)]

mod boards;
#[path = "../../nano-core/tests/images/builder/mod.rs"]
mod builder;
mod conversation;
mod head;
pub mod image;
mod life;
mod mutation;
#[path = "../../esp32-app/device/tests/storage/nor.rs"]
mod nor;
mod refusals;
pub mod session;
pub mod storage;

pub use mutation::Mutate;
use std::path::Path;

/// Writes a target's first inputs into the folder that the environment variable `TORCH_NANO_FUZZ_SEEDS` names, one file each, and ends
/// the program; without the variable, does nothing.
///
/// # Panics
/// If a file cannot be written.
pub fn write_seeds(seeds: fn() -> Vec<Vec<u8>>) {
    let Some(folder) = std::env::var_os("TORCH_NANO_FUZZ_SEEDS") else { return };
    for (number, seed) in seeds().iter().enumerate() {
        std::fs::write(Path::new(&folder).join(format!("seed-{number:03}")), seed).expect("the folder takes files");
    }
    std::process::exit(0);
}

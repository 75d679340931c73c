//! Links for the chip, and finds the exported model that the firmware carries.

use std::env;
use std::path::{Path, PathBuf};

fn main() {
    println!("cargo::rustc-link-arg-bins=-Tlinkall.x");
    println!("cargo::rerun-if-env-changed=TORCH_NANO_MODEL");

    let Some(folder) = env::var_os("TORCH_NANO_MODEL").filter(|folder| !folder.is_empty()) else {
        return refuse("TORCH_NANO_MODEL is not set");
    };
    // Relative to the top of the repository, where `just firmware` is called.
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let module: PathBuf = top.join(&folder).join("model.rs");
    println!("cargo::rerun-if-changed={}", module.display());
    println!("cargo::rerun-if-changed={}", module.with_file_name("model.nano").display());
    match module.canonicalize() {
        Ok(module) => println!("cargo::rustc-env=TORCH_NANO_MODEL_RS={}", module.display()),
        Err(error) => refuse(&format!("{}: {error}", module.display())),
    }
}

fn refuse(reason: &str) {
    println!(
        "cargo::error=no model for the firmware: {reason}. Export one (`nano.export(folder)` in Python, or `just demo`), \
         then `just firmware folder`"
    );
}

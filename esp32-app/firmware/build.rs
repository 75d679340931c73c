//! Links for the chip, and finds the exported model that the firmware carries.

use std::env;
use std::path::Path;

fn main() {
    println!("cargo::rustc-link-arg-bins=-Tlinkall.x");
    println!("cargo::rerun-if-env-changed=TORCH_NANO_MODEL");

    let Some(folder) = env::var_os("TORCH_NANO_MODEL").filter(|folder| !folder.is_empty()) else {
        return refuse("TORCH_NANO_MODEL is not set");
    };
    // Relative to the top of the repository, where `just firmware` is called.
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(folder);
    for name in ["model.rs", "model.nano"] {
        println!("cargo::rerun-if-changed={}", folder.join(name).display());
    }
    match folder.join("model.rs").canonicalize() {
        Ok(module) => println!("cargo::rustc-env=TORCH_NANO_MODEL_RS={}", module.display()),
        Err(error) => refuse(&format!("{}: {error}", folder.join("model.rs").display())),
    }
}

fn refuse(reason: &str) {
    println!(
        "cargo::error=no model for the firmware: {reason}. Export one (`nano.export(folder)` in Python, or `just demo`), \
         then `just firmware folder`"
    );
}

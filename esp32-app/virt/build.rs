//! Links the binary by the board's memory map.

fn main() {
    println!("cargo::rustc-link-arg-bins=-T{}/virt.ld", std::env::var("CARGO_MANIFEST_DIR").expect("set by cargo"));
    println!("cargo::rerun-if-changed=virt.ld");
}

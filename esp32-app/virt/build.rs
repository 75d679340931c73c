//! Links the programs by the board's memory map.

fn main() {
    let map = format!("-T{}/virt.ld", std::env::var("CARGO_MANIFEST_DIR").expect("set by cargo"));
    println!("cargo::rustc-link-arg-bins={map}");
    println!("cargo::rustc-link-arg-examples={map}");
    println!("cargo::rerun-if-changed=virt.ld");
}

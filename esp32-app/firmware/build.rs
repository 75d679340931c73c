//! Links for the chip, passes on its facts, and finds the exported model that the firmware carries.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

/// The table of the chips, in the repository.
const CHIPS: &str = "python-plugin/src/torch_nano/chips/chips.toml";

/// Chips for which esp-hal lets code begin in the last page of the constants. A page is mapped by one segment of a flash image, and
/// esptool, unlike espflash, does not merge the two.
const SHARE_A_PAGE: [&str; 4] = ["esp32c5", "esp32c61", "esp32p4", "esp32s31"];

/// Starts code in a page of its own, after the 32 bytes of headers that a segment has in the image.
const OWN_PAGE: &str =
    "SECTIONS { .text_page (NOLOAD) : { . = ALIGN(0x10000) + 0x20; } > ROTEXT } INSERT BEFORE .text;\n";

fn main() {
    println!("cargo::rustc-link-arg-bins=-Tlinkall.x");
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for found in [pass_on_chip(&repository.join(CHIPS)), pass_on_model(&repository)] {
        if let Err(reason) = found {
            println!("cargo::error={reason}");
        }
    }
}

/// Sets `cfg(transport)` and `cfg(mmu)`, and the constants of the chip that is enabled as a feature.
fn pass_on_chip(file: &Path) -> Result<(), String> {
    println!("cargo::rerun-if-changed={}", file.display());
    println!(r#"cargo::rustc-check-cfg=cfg(transport, values("uart", "usb-serial-jtag"))"#);
    let text = fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let table = DeTable::parse(&text).map_err(|error| format!("{}: {error}", file.display()))?;
    let enabled = |name: &str| env::var_os(format!("CARGO_FEATURE_{}", name.to_uppercase())).is_some();
    let names: Vec<&str> = table.get_ref().keys().map(|key| key.get_ref().as_ref()).collect();
    let chips: Vec<&str> = names.iter().copied().filter(|name| enabled(name)).collect();
    let [chip] = chips[..] else {
        let given = if chips.is_empty() { "none".into() } else { chips.join(", ") };
        return Err(format!(
            "the firmware is for one chip, and the features name {given}: --no-default-features --features CHIP"
        ));
    };
    let fact = |table_name: &str, key: &str| {
        let entry = table.get_ref().get(table_name).and_then(|facts| facts.get_ref().get(key));
        entry.map(|entry| entry.get_ref().clone()).ok_or(format!("{}: [{table_name}] has no `{key}`", file.display()))
    };
    let bytes = |table_name: &str, key: &str| match fact(table_name, key)? {
        DeValue::Integer(number) => {
            number.as_str().replace('_', "").parse::<usize>().map_err(|error| format!("{key}: {error}"))
        }
        other => Err(format!("{}: [{table_name}] {key} is {}; expected an integer", file.display(), other.type_str())),
    };
    let DeValue::String(transport) = fact(chip, "transport")? else {
        return Err(format!("{}: [{chip}] transport is no string", file.display()));
    };
    println!("cargo::rustc-cfg=transport={transport:?}");
    println!(r#"cargo::rustc-check-cfg=cfg(mmu, values("memory", "indexed", "unknown"))"#);
    let mmu = match fact(chip, "mmu") {
        Ok(DeValue::String(mmu)) => mmu,
        Ok(_) => return Err(format!("{}: [{chip}] mmu is no string", file.display())),
        Err(_) => "unknown".into(),
    };
    println!("cargo::rustc-cfg=mmu={mmu:?}");
    let model_ram = bytes(chip, "ram")?.checked_sub(bytes("firmware", "reserved_ram")?);
    let model_ram =
        model_ram.ok_or(format!("{}: [{chip}] ram is less than what the firmware takes", file.display()))?;
    let constants = format!(
        "/// RAM for the model, in bytes.\npub const MODEL_RAM: usize = {model_ram};\n\
         /// Bytes of it that are reserved for updates of the model, its own need included.\n\
         pub const RESERVED_RAM: usize = {};\n",
        reserved_ram()?
    );
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    let write = |name: &str, text: &str| {
        let file = out.join(name);
        fs::write(&file, text).map(|()| file).map_err(|error| format!("{name}: {error}"))
    };
    write("chip.rs", &constants)?;
    if SHARE_A_PAGE.contains(&chip) {
        println!("cargo::rustc-link-arg-bins=-T{}", write("own_page.x", OWN_PAGE)?.display());
    }
    Ok(())
}

/// The RAM that `TORCH_NANO_RESERVED_RAM` names, in bytes; 0 without it.
fn reserved_ram() -> Result<usize, String> {
    const NAME: &str = "TORCH_NANO_RESERVED_RAM";
    println!("cargo::rerun-if-env-changed={NAME}");
    let given = env::var(NAME).unwrap_or_default();
    if given.is_empty() {
        return Ok(0);
    }
    given.parse().map_err(|_| format!("{NAME} is {given:?}; expected a number of bytes"))
}

/// Sets `TORCH_NANO_MODEL_RS` to the file of the exported model.
fn pass_on_model(repository: &Path) -> Result<(), String> {
    println!("cargo::rerun-if-env-changed=TORCH_NANO_MODEL");
    let refused = |reason: &str| {
        format!(
            "no model for the firmware: {reason}. Export one (`nano.export(folder)` in Python, or `just demo`), then \
             `just firmware esp32c3 folder`"
        )
    };
    let folder = env::var_os("TORCH_NANO_MODEL").filter(|folder| !folder.is_empty());
    // Relative to the top of the repository, where `just firmware` is called.
    let folder = repository.join(folder.ok_or_else(|| refused("TORCH_NANO_MODEL is not set"))?);
    for name in ["model.rs", "model.nano"] {
        println!("cargo::rerun-if-changed={}", folder.join(name).display());
    }
    let module = folder.join("model.rs");
    let found = module.canonicalize().map_err(|error| refused(&format!("{}: {error}", module.display())))?;
    println!("cargo::rustc-env=TORCH_NANO_MODEL_RS={}", found.display());
    Ok(())
}

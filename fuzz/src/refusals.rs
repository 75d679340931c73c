//! Records the refusals that the inputs have met.

use std::collections::HashSet;
use std::fmt::Debug;
use std::fs::OpenOptions;
use std::io::Write;
use std::sync::{LazyLock, Mutex};

use nano_core::Error;
use torch_nano_device::Failure;

/// The refusals met so far. The file in the environment variable `TORCH_NANO_FUZZ_REFUSALS` gets a line for each.
static MET: LazyLock<Mutex<HashSet<String>>> = LazyLock::new(Mutex::default);

/// Notes a refusal of nano-core by its variant and the rule, field or buffer that it names.
pub(crate) fn error(error: &Error) {
    let rule = match *error {
        Error::Field { name, .. } | Error::Length { name, .. } | Error::Full { name, .. } => name,
        Error::Layer { rule, .. } => rule,
        Error::Unsupported { request, .. } => request,
        _ => "",
    };
    note("Error", error, rule);
}

/// Notes a refusal of a device by its variants.
pub(crate) fn failure(failure: &Failure) {
    note("Failure", failure, "");
    if let Failure::Storage(storage) = failure {
        note("StorageError", storage, "");
    }
    if let Failure::Update(update) = failure {
        note("UpdateError", update, "");
    }
}

/// Notes a refusal of a flash by its variant.
pub(crate) fn storage(error: &torch_nano_device::StorageError) {
    note("StorageError", error, "");
}

fn note(kind: &str, refusal: &impl Debug, rule: &str) {
    let debug = format!("{refusal:?}");
    let variant = debug.split(|character: char| !character.is_alphanumeric()).next().unwrap_or_default();
    let line = format!("{kind}::{variant} {rule}").trim_end().to_owned();
    let mut met = MET.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if !met.contains(&line) {
        if let Some(path) = std::env::var_os("TORCH_NANO_FUZZ_REFUSALS") {
            let file = OpenOptions::new().create(true).append(true).open(path);
            file.and_then(|mut file| writeln!(file, "{line}")).expect("the file of refusals takes a line");
        }
        met.insert(line);
    }
}

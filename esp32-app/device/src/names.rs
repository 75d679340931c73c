//! Names of classes: those of the image, and those given on the device.

use nano_core::image::{Image, is_label};

use crate::failure::Failure;

/// The most bytes of a name given on the device, which keeps a place in RAM for it.
const LONGEST: usize = 16;

/// One place for each class, zeros behind its name: all zeros for a name of the image.
pub(crate) type Name = [u8; LONGEST];

/// The name of `class`; empty if it has none.
pub(crate) fn name<'n>(image: &Image<'n>, given: &'n [Name], class: usize) -> &'n str {
    let given = given.get(class).map_or(&[][..], |name| name.split(|&byte| byte == 0).next().unwrap_or_default());
    if given.is_empty() {
        image.metadata("label").nth(class).unwrap_or_default()
    } else {
        // Saved names have a CRC; should one be no text all the same, the class has no name.
        core::str::from_utf8(given).unwrap_or_default()
    }
}

/// The class called `wanted`, among the first `classes`.
pub(crate) fn find(image: &Image<'_>, given: &[Name], classes: usize, wanted: &str) -> Option<usize> {
    (0..classes).find(|&class| !wanted.is_empty() && name(image, given, class) == wanted)
}

/// The place's bytes for a name.
pub(crate) fn stored(name: &str) -> Result<Name, Failure> {
    let mut stored = [0; LONGEST];
    let place =
        stored.get_mut(..name.len()).filter(|_| is_label(name)).ok_or(Failure::Name { limit: LONGEST as u32 })?;
    place.copy_from_slice(name.as_bytes());
    Ok(stored)
}

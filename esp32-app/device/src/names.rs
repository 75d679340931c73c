//! Names of classes: those of the image, and those given on the device.

use nano_core::image::{Image, is_label};

use crate::failure::Failure;

/// The largest length of a name given on the device, in bytes; the device reserves RAM for it.
pub(crate) const LONGEST: usize = 16;

/// A name given on the device, padded with zeros; all zeros if the class has the image's name.
pub(crate) type Name = [u8; LONGEST];

/// The name given to `class`; empty if it has none.
fn given_name(given: &[Name], class: usize) -> &str {
    let bytes = given.get(class).map_or(&[][..], |name| name.split(|&byte| byte == 0).next().unwrap_or_default());
    core::str::from_utf8(bytes).unwrap_or_default()
}

/// The name of `class`; empty if it has none.
pub(crate) fn name<'n>(image: &Image<'n>, given: &'n [Name], class: usize) -> &'n str {
    match given_name(given, class) {
        "" => image.metadata("label").nth(class).unwrap_or_default(),
        given => given,
    }
}

/// The class called `wanted`, among the first `classes`.
pub(crate) fn find(image: &Image<'_>, given: &[Name], classes: usize, wanted: &str) -> Option<usize> {
    let mut labels = image.metadata("label");
    let mut called = |class: usize| match (labels.next().unwrap_or_default(), given_name(given, class)) {
        (label, "") => label == wanted,
        (_, given) => given == wanted,
    };
    (0..classes).find(|&class| called(class)).filter(|_| !wanted.is_empty())
}

/// A name in its stored form.
pub(crate) fn stored(name: &str) -> Result<Name, Failure> {
    let mut stored = [0; LONGEST];
    let place =
        stored.get_mut(..name.len()).filter(|_| is_label(name)).ok_or(Failure::Name { limit: LONGEST as u32 })?;
    place.copy_from_slice(name.as_bytes());
    Ok(stored)
}

/// Whether this is a form that [`stored`] returns, or all zeros.
pub(crate) fn is_stored(place: &Name) -> bool {
    let name = place.split(|&byte| byte == 0).next().unwrap_or_default();
    let is_name = name.is_empty() || core::str::from_utf8(name).is_ok_and(is_label);
    is_name && place.iter().skip(name.len()).all(|&byte| byte == 0)
}

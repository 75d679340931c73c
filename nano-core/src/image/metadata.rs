//! The names in an image: of the model, and of its classes.

#[cfg(feature = "alloc")]
use alloc::string::{String, ToString};
#[cfg(feature = "alloc")]
use alloc::vec::Vec;

use crate::Error;
#[cfg(feature = "alloc")]
use crate::image::WriteError;

/// The most bytes of the name of a model or of a class: devices send it in one small message.
pub const LONGEST_NAME: usize = 64;

const NAME: &str = "name=";
const LABEL: &str = "label=";
const END: char = '\n';

/// Whether a model can have this name: at most [`LONGEST_NAME`] bytes on one line, without a zero, which ends names in a device's memory.
///
/// ```
/// use nano_core::image::is_name;
/// assert!(is_name("été") && is_name("") && !is_name("zero\0") && !is_name("two\nlines"));
/// ```
pub fn is_name(name: &str) -> bool {
    name.len() <= LONGEST_NAME && !name.contains(['\0', END, '\r'])
}

/// Whether a class can have this name: [`is_name`], and not empty.
///
/// ```
/// use nano_core::image::is_label;
/// assert!(is_label("été") && !is_label("") && !is_label("zero\0") && !is_label("two\nlines"));
/// ```
pub fn is_label(name: &str) -> bool {
    !name.is_empty() && is_name(name)
}

/// Checks the metadata's lines: one name, then at most `classes` labels, all different, which `order` sorts.
///
/// # Errors
/// [`Error::Field`]; [`Error::Full`] if there are more labels than classes.
pub(super) fn check(text: &str, order: &[u32], classes: usize) -> Result<(), Error> {
    let field = |name, value: usize| Err(Error::Field { name, value: value as i64 });
    let mut lines = text.split_inclusive(END);
    if !lines.next().and_then(|line| value(line, NAME)).is_some_and(is_name) {
        return field("metadata line (not the model's name)", 0);
    }
    let mut labels = 0;
    for line in lines {
        labels += 1;
        if !value(line, LABEL).is_some_and(is_label) {
            return field("metadata line (not the name of a class)", labels);
        }
    }
    if labels > classes {
        return Err(Error::Full { name: "names of classes", capacity: classes });
    }
    if order.len() != labels {
        return field("label order length", order.len());
    }
    // As many as there are lines, and each greater than the one before: so each line is among them, and no two are alike.
    let mut last = "";
    for &offset in order {
        match label_at(text, offset as usize) {
            Some(label) if label > last => last = label,
            _ => return field("label order (two alike, or not sorted, at)", offset as usize),
        }
    }
    Ok(())
}

/// What a whole line holds under `key`.
fn value<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    line.strip_prefix(key)?.strip_suffix(END)
}

/// The label that begins at `offset`.
fn label_at(text: &str, offset: usize) -> Option<&str> {
    let (before, label) = text.split_at_checked(offset)?;
    before.strip_suffix(LABEL)?.strip_suffix(END)?;
    label.split(END).next()
}

/// The metadata of a model, and the order of its labels.
///
/// # Errors
/// [`WriteError::Name`] and [`WriteError::Label`] for names that cannot be, [`WriteError::SameLabel`] for one that two classes have.
#[cfg(feature = "alloc")]
pub(super) fn write(name: &str, labels: &[String]) -> Result<(String, Vec<u32>), WriteError> {
    if !is_name(name) {
        return Err(WriteError::Name(name.to_string()));
    }
    let mut text = [NAME, name, "\n"].concat();
    let mut sorted = Vec::with_capacity(labels.len());
    for label in labels {
        if !is_label(label) {
            return Err(WriteError::Label(label.clone()));
        }
        text.push_str(LABEL);
        sorted.push((label.as_str(), text.len() as u32));
        text.extend([label.as_str(), "\n"]);
    }
    sorted.sort_unstable();
    if let Some(pair) = sorted.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(WriteError::SameLabel(pair[0].0.to_string()));
    }
    Ok((text, sorted.into_iter().map(|(_, offset)| offset).collect()))
}

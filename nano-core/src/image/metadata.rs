//! The names in an image: of the model, its inputs and outputs, and its classes.

#[cfg(feature = "alloc")]
use alloc::string::String;
#[cfg(feature = "alloc")]
use alloc::vec::Vec;

use crate::Error;
#[cfg(feature = "alloc")]
use crate::image::{ModelDescription, WriteError};

/// The largest length of a name, in bytes: devices send it in one small message.
pub const LONGEST_NAME: usize = 64;

const NAME: &str = "name=";
const INPUT: &str = "input=";
const OUTPUT: &str = "output=";
const LABEL: &str = "label=";
const END: u8 = b'\n';

/// Whether this is a valid name of a model: at most [`LONGEST_NAME`] bytes on one line, without a zero, which ends names in a device's memory.
///
/// ```
/// use nano_core::image::is_name;
/// assert!(is_name("été") && is_name("") && !is_name("zero\0") && !is_name("two\nlines"));
/// ```
pub fn is_name(name: &str) -> bool {
    is_line(name.as_bytes())
}

/// [`is_name`] of UTF-8 bytes. Lines are searched and compared as bytes: searches for characters take more code.
fn is_line(name: &[u8]) -> bool {
    name.len() <= LONGEST_NAME && !name.iter().any(|byte| matches!(byte, b'\0' | &END | b'\r'))
}

/// Whether this is a valid name of a class, an input or an output: [`is_name`], and not empty.
///
/// ```
/// use nano_core::image::is_label;
/// assert!(is_label("été") && !is_label("") && !is_label("zero\0") && !is_label("two\nlines"));
/// ```
pub fn is_label(name: &str) -> bool {
    !name.is_empty() && is_name(name)
}

/// Checks the metadata's lines: one name, then those of the graph's `inputs` and `outputs`, then at most `classes` labels, all different, which `order`
/// sorts.
///
/// # Errors
/// [`Error::Field`]; [`Error::Full`] if there are more labels than classes.
pub(super) fn check(text: &str, [inputs, outputs]: [usize; 2], order: &[u32], classes: usize) -> Result<(), Error> {
    let field = |name, value: usize| Err(Error::Field { name, value: value as i64 });
    let text = text.as_bytes();
    let mut lines = text.split_inclusive(|&byte| byte == END);
    if !holds(lines.next(), NAME, 0) {
        return field("metadata line (not the model's name)", 0);
    }
    for index in 0..inputs + outputs {
        let key = if index < inputs { INPUT } else { OUTPUT };
        if !holds(lines.next(), key, 1) {
            return field("metadata line (not the name of an input or output)", index);
        }
    }
    let mut labels = 0;
    for line in lines {
        labels += 1;
        if !holds(Some(line), LABEL, 1) {
            return field("metadata line (not the name of a class)", labels);
        }
    }
    if labels > classes {
        return Err(Error::Full { name: "names of classes", capacity: classes });
    }
    if order.len() != labels {
        return field("label order length", order.len());
    }
    // There are as many as lines, and each is greater than the one before: so each line is among them, and all are different.
    let mut last: &[u8] = b"";
    for &offset in order {
        match label_at(text, offset as usize) {
            Some(label) if label > last => last = label,
            _ => return field("label order (two alike, or not sorted, at)", offset as usize),
        }
    }
    Ok(())
}

/// Whether the line exists and holds a name of at least `least` bytes under `key`.
#[inline(never)]
fn holds(line: Option<&[u8]>, key: &str, least: usize) -> bool {
    let name = line.and_then(|line| line.strip_prefix(key.as_bytes())?.strip_suffix(&[END]));
    name.is_some_and(|name| is_line(name) && name.len() >= least)
}

/// The label that begins at `offset`.
fn label_at(text: &[u8], offset: usize) -> Option<&[u8]> {
    let (before, label) = text.split_at_checked(offset)?;
    before.strip_suffix(LABEL.as_bytes())?.strip_suffix(&[END])?;
    label.split(|&byte| byte == END).next()
}

/// The metadata of a model, and the order of its labels.
///
/// # Errors
/// [`WriteError::Name`], [`WriteError::ValueName`] and [`WriteError::Label`] for invalid names, [`WriteError::SameName`] and
/// [`WriteError::SameLabel`] for a name that two inputs, outputs or classes have.
#[cfg(feature = "alloc")]
pub(super) fn write(model: &ModelDescription) -> Result<(String, Vec<u32>), WriteError> {
    if !is_name(&model.name) {
        return Err(WriteError::Name(model.name.clone()));
    }
    let mut text = [NAME, &model.name, "\n"].concat();
    let inputs: Vec<&str> = model.inputs.iter().map(|input| input.name.as_str()).collect();
    let outputs: Vec<&str> = model.outputs.iter().map(|output| output.name.as_str()).collect();
    for (key, names) in [(INPUT, inputs), (OUTPUT, outputs)] {
        if let Some(&name) = names.iter().find(|name| !is_label(name)) {
            return Err(WriteError::ValueName(name.into()));
        }
        if let Some(name) = twice(&names) {
            return Err(WriteError::SameName(name.into()));
        }
        text.extend(names.into_iter().flat_map(|name| [key, name, "\n"]));
    }
    let labels: Vec<&str> = model.labels.iter().map(String::as_str).collect();
    if let Some(&label) = labels.iter().find(|label| !is_label(label)) {
        return Err(WriteError::Label(label.into()));
    }
    if let Some(label) = twice(&labels) {
        return Err(WriteError::SameLabel(label.into()));
    }
    let mut sorted = Vec::with_capacity(labels.len());
    for label in labels {
        text.push_str(LABEL);
        sorted.push((label, text.len() as u32));
        text.extend([label, "\n"]);
    }
    sorted.sort_unstable();
    Ok((text, sorted.into_iter().map(|(_, offset)| offset).collect()))
}

/// A name that occurs twice.
#[cfg(feature = "alloc")]
fn twice<'a>(names: &[&'a str]) -> Option<&'a str> {
    let mut sorted = names.to_vec();
    sorted.sort_unstable();
    sorted.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0])
}

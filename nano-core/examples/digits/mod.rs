//! The exported model of handwritten digits, and 200 digits.

#[allow(dead_code, reason = "each example uses its part of an export")]
pub mod model;

use nano_core::Memory;
use nano_core::train::HeadSizes;

const HEAD: HeadSizes = model::HEAD.unwrap();

/// RAM of the model; its head keeps the latest 128 samples.
pub type Ram = Memory<{ model::ARENA_LENGTH.div_ceil(4) }, { HEAD.words() }, { HEAD.features }, 128>;

/// The digits, and what each is.
pub fn samples() -> Vec<([f32; model::INPUT_LENGTH], u16)> {
    let (pixels, _) = include_bytes!("pixels.bin").as_chunks();
    let labels = include_bytes!("labels.bin").iter();
    pixels.iter().zip(labels).map(|(pixels, &label)| (pixels.map(f32::from), label.into())).collect()
}

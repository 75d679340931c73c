//! Images with a few changed words; their checksum stays as it was.

use crate::builder::{Aligned, place};

/// Changes one to three words, most of them in what comes before the weights.
pub fn mutate(image: &mut Aligned, random: &mut fastrand::Rng) {
    const INTERESTING: [u32; 14] =
        [0, 1, 2, 3, 4, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0x0001_0000, 0x7fff_ffff, 0x8000_0000, u32::MAX];
    // Most of an image is weights, where almost every byte is valid.
    let words = image.bytes().len() & !3;
    let structure = (image.word(place::CONSTANTS) as usize).clamp(place::HEADER_LENGTH, words);
    for _ in 0..random.usize(1..=3) {
        let end = if random.u8(..4) == 0 { words } else { structure };
        let offset = random.usize(..end);
        let word = offset & !3;
        let old = image.word(word);
        let new = match random.u8(..6) {
            0 => old ^ 1 << random.u32(..32),
            1 => INTERESTING[random.usize(..INTERESTING.len())],
            2 => old.wrapping_add(1),
            3 => old.wrapping_sub(1),
            4 => image.word(random.usize(..end) & !3),
            _ => {
                image.bytes_mut()[offset] = random.u8(..);
                continue;
            }
        };
        image.bytes_mut()[word..word + 4].copy_from_slice(&new.to_le_bytes());
    }
}

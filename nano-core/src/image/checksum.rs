//! The checksum of an image: [XXH32](https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md) with seed 0.
//!
//! The checksum is a large part of the cost of loading an image. A word takes 7.5 instructions and no table; a CRC-32 takes 28, and 1 KiB. Any
//! change of bytes within one word changes the checksum, as each step can be undone; other damage is missed once in 2^32.

/// The primes of the definition.
const PRIME: [u32; 5] = [0x9e37_79b1, 0x85eb_ca77, 0xc2b2_ae3d, 0x27d4_eb2f, 0x1656_67b1];

/// The checksum of words in little-endian order and of the bytes after them, fewer than a word.
// Not inlined, for code size.
#[inline(never)]
pub(super) fn checksum(words: &[u32], rest: &[u8]) -> u32 {
    let [p1, p2, p3, p4, p5] = PRIME;
    let (stripes, words) = words.as_chunks::<4>();
    let mut hash = p5;
    if !stripes.is_empty() {
        let mut lanes = [p1.wrapping_add(p2), p2, 0, p1.wrapping_neg()];
        for stripe in stripes {
            for (lane, &word) in lanes.iter_mut().zip(stripe) {
                let sum = lane.wrapping_add(u32::from_le(word).wrapping_mul(p2));
                *lane = sum.rotate_left(13).wrapping_mul(p1);
            }
        }
        let rotated = lanes.into_iter().zip([1, 7, 12, 18]).map(|(lane, by)| lane.rotate_left(by));
        hash = rotated.fold(0, u32::wrapping_add);
    }
    let length = 16 * stripes.len() + 4 * words.len() + rest.len();
    hash = hash.wrapping_add(length as u32);
    for &word in words {
        hash = hash.wrapping_add(u32::from_le(word).wrapping_mul(p3)).rotate_left(17).wrapping_mul(p4);
    }
    for &byte in rest {
        hash = hash.wrapping_add(u32::from(byte).wrapping_mul(p5)).rotate_left(11).wrapping_mul(p1);
    }
    hash = (hash ^ hash >> 15).wrapping_mul(p2);
    hash = (hash ^ hash >> 13).wrapping_mul(p3);
    hash ^ hash >> 16
}

/// The checksum of bytes at any address.
#[cfg(feature = "alloc")]
pub(super) fn checksum_of(bytes: &[u8]) -> u32 {
    let (words, rest) = bytes.as_chunks();
    let words: alloc::vec::Vec<u32> = words.iter().map(|&word| u32::from_ne_bytes(word)).collect();
    checksum(&words, rest)
}

#[cfg(all(test, feature = "alloc"))]
mod tests {
    use super::*;

    /// Of the reference implementation.
    #[test]
    fn equals_the_published_values() {
        let published: [(&[u8], u32); 4] = [
            (b"", 0x02cc_5d05),
            (b"a", 0x550d_7456),
            (b"abc", 0x32d1_53ff),
            (b"Nobody inspects the spammish repetition", 0xe229_3b2f),
        ];
        for (bytes, expected) in published {
            assert_eq!(checksum_of(bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn any_change_within_a_word_changes_it() {
        for seed in 0..500 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut bytes: Vec<u8> = (0..random.usize(1..100)).map(|_| random.u8(..)).collect();
            let before = checksum_of(&bytes);
            let word = bytes.chunks_mut(4).nth(random.usize(..100)).unwrap_or_default();
            let old = word.to_vec();
            word.iter_mut().for_each(|byte| *byte = random.u8(..));
            let changed = old != word;
            assert_eq!(checksum_of(&bytes) != before, changed, "seed {seed}");
        }
    }
}

//! The checksum of an image: CRC-32 as in zlib, a word at a time.
//!
//! The checksum is most of the cost of loading an image. A word takes 4 look-ups in the table of the `crc` crate and one load; the crate's own
//! loop loads each byte.

use zerocopy::FromBytes;

static CRC32: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);

/// The CRC-32 of `bytes`. It reads whole words if they start at a multiple of 4, as in an image, and single bytes otherwise.
pub(super) fn checksum(bytes: &[u8]) -> u32 {
    let [table] = CRC32.table();
    let next = |crc: u32| crc >> 8 ^ table[(crc & 0xff) as usize];
    let (words, rest) = <[u32]>::ref_from_prefix(bytes).unwrap_or((&[], bytes));
    let of_words = words.iter().fold(u32::MAX, |crc, word| next(next(next(next(crc ^ u32::from_le(*word))))));
    !rest.iter().fold(of_words, |crc, &byte| next(crc ^ u32::from(byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_the_crate_s_at_every_length_and_alignment() {
        for seed in 0..500 {
            let mut random = fastrand::Rng::with_seed(seed);
            let bytes: Vec<u8> = (0..random.usize(..100)).map(|_| random.u8(..)).collect();
            for start in 0..bytes.len().min(8) {
                let bytes = &bytes[start..];
                assert_eq!(checksum(bytes), CRC32.checksum(bytes), "seed {seed}, from {start}");
            }
        }
    }
}

//! The checksum of an image: CRC-32 as in zlib, a word at a time.
//!
//! The checksum is most of the cost of loading an image. A word takes 4 look-ups in a table and one load; the `crc` crate's own loop loads
//! each byte.

use zerocopy::FromBytes;

/// The polynomial, with the bit of x^31 lowest.
const POLYNOMIAL: u32 = crc::CRC_32_ISO_HDLC.poly.reverse_bits();

/// The CRC-32 of `bytes`. It reads whole words if they start at a multiple of 4, as in an image, and single bytes otherwise.
// Not inlined: its table is on the stack no longer than it is needed.
#[inline(never)]
pub(super) fn checksum(bytes: &[u8]) -> u32 {
    let table = table();
    let next = |crc: u32| crc >> 8 ^ table[(crc & 0xff) as usize];
    let (words, rest) = <[u32]>::ref_from_prefix(bytes).unwrap_or((&[], bytes));
    let of_words = words.iter().fold(u32::MAX, |crc, word| next(next(next(next(crc ^ u32::from_le(*word))))));
    !rest.iter().fold(of_words, |crc, &byte| next(crc ^ u32::from(byte)))
}

/// The CRC of each byte. In flash it would be 1 KiB of every program; made here it takes as long as 300 bytes of an image.
fn table() -> [u32; 256] {
    let mut table = [0; 256];
    // A CRC is linear: that of a byte is the sum of those of its bits. The next lower bit's is one more step of the division.
    // A constant would have the compiler unroll the loops, to 800 bytes.
    let (mut bit, mut of_bit) = (core::hint::black_box(0x80), POLYNOMIAL);
    while bit > 0 {
        let mut rest = 0;
        while rest < 0x100 {
            table[(rest | bit) & 0xff] = table[rest & 0xff] ^ of_bit;
            rest += 2 * bit;
        }
        bit >>= 1;
        of_bit = of_bit >> 1 ^ if of_bit & 1 == 1 { POLYNOMIAL } else { 0 };
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    const CRC32: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);

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

//! Fully connected micro-kernel with two output channels per multiplication (SWAR), from a byte per weight.
//!
//! A word holds the weights of a pair of inputs (i, j) and a pair of channels (a, b), each plus 128: the bytes `a_i, a_j, b_i, b_j`. With
//! `W_i = a_i + (b_i << 16)`, the same for j, and `K = 128 + (128 << 16)`, the word is `V = W_i + K + ((W_j + K) << 8)`, and `(V >> 8) & MASK` is
//! `W_j + K`. So modulo 2^32
//!
//! `x_i V + (x_j - 256 x_i) ((V >> 8) & MASK) = x_i W_i + x_j W_j + K (x_i + x_j)`,
//!
//! and without the last term, which is the same for all channels, this is `t_a + (t_b << 16)` with the sums t of two products each. They are at
//! most `2 * 128 * 127 < 2^15` in magnitude, so both halves are exact, and `(t + 2^15) >> 16` is the upper one. The words accumulate in `low`,
//! together with their 2^15, and the upper halves in `high`, which is the sum of channel b; `low - (high << 16)`, without all the 2^15, is that
//! of channel a.
//!
//! A multiplication serves two products; a word, three loads less; a row of eight pairs of channels fills a cache line. Before the first row lies
//! one word, so that no row begins with a line: the core then waits for a line's words while it does the work between two rows.

/// The words before the first row and after the last. The assembly loads one word ahead.
pub(crate) const LEAD: usize = 1;
/// As [`LEAD`].
pub(crate) const TRAIL: usize = 1;
/// Numbers of pairs of channels that one pass over the inputs computes, in descending order.
pub(crate) const WIDTHS: [usize; 4] = [8, 5, 2, 1];

/// Number of pairs of channels of each packed block of a layer with `outputs` channels.
pub(crate) fn blocks(outputs: usize) -> impl Iterator<Item = usize> {
    let mut rest = outputs.div_ceil(2);
    core::iter::from_fn(move || {
        let width = WIDTHS.into_iter().find(|&width| width <= rest)?;
        rest -= width;
        Some(width)
    })
}

/// Number of rows of `inputs`: pairs of inputs. Of an odd number, the first row has only the second one.
pub(crate) fn rows(inputs: usize) -> usize {
    inputs.div_ceil(2)
}

/// The two weights that a word has for channel `lane` of its pair.
pub(crate) fn weights(word: u32, lane: usize) -> [i32; 2] {
    let [a_i, a_j, b_i, b_j] = word.to_le_bytes().map(|byte| i32::from(byte) - 128);
    if lane == 0 { [a_i, a_j] } else { [b_i, b_j] }
}

/// Whether all weights are -127 to 127: no byte is 0.
#[inline(never)]
pub(crate) fn are_symmetric(words: &[u32]) -> bool {
    let zeros = |word: u32| word.wrapping_sub(0x0101_0101) & !word;
    words.iter().fold(0, |seen, &word| seen | zeros(word)) & 0x8080_8080 == 0
}

/// Packs `[channel][input]` weights: the blocks of pairs of channels, each `[row][pair]`.
#[cfg(feature = "alloc")]
pub(crate) fn pack(weights: &[i8], inputs: usize) -> alloc::vec::Vec<u8> {
    let outputs = weights.len() / inputs.max(1);
    let byte = |channel: usize, input: Option<usize>| match input {
        Some(input) if channel < outputs => (weights[channel * inputs + input] as u8) ^ 0x80,
        _ => 0x80,
    };
    let odd = inputs % 2;
    let mut packed = alloc::vec![0x80; 4 * LEAD];
    let mut first = 0;
    for width in blocks(outputs) {
        for row in 0..rows(inputs) {
            for pair in first..first + width {
                let of_row = [(2 * row).checked_sub(odd), Some(2 * row + 1 - odd)];
                packed.extend(
                    [2 * pair, 2 * pair + 1].into_iter().flat_map(|channel| of_row.map(|input| byte(channel, input))),
                );
            }
        }
        first += width;
    }
    packed.extend([0x80; 4 * TRAIL]);
    packed
}

/// The most pairs of channels in a block.
pub(crate) const WIDEST: usize = WIDTHS[0];

/// Accumulators of a pair of channels; on rv32im, the words that give both of them.
#[derive(Clone, Copy, Default)]
#[repr(transparent)]
pub(crate) struct PairOfSums([i32; 2]);

#[cfg(not(target_arch = "riscv32"))]
impl PairOfSums {
    /// Those of no product yet, of so many rows.
    pub(crate) fn new(bias: [i32; 2], _rows: usize) -> Self {
        PairOfSums(bias)
    }

    /// The two accumulators, of all rows.
    pub(crate) fn channels(self) -> [i32; 2] {
        self.0
    }
}

/// Adds the products of `inputs` with the weights in `words`, `[row][pair]`; returns the words that follow.
#[cfg(not(target_arch = "riscv32"))]
pub(crate) fn add_channel_pairs<'w>(sums: &mut [PairOfSums], inputs: &[i8], words: &'w [u32]) -> &'w [u32] {
    let (words, rest) = words.split_at(rows(inputs.len()) * sums.len());
    let (first, inputs) = inputs.split_at(inputs.len() % 2);
    let first = first.first().map(|&x| [0, x]);
    for (inputs, words) in first.iter().chain(inputs.as_chunks().0).zip(words.chunks_exact(sums.len())) {
        let [x_i, x_j] = inputs.map(i32::from);
        for (PairOfSums(sums), &word) in sums.iter_mut().zip(words) {
            let [a_i, a_j, b_i, b_j] = word.to_le_bytes().map(|byte| i32::from((byte ^ 0x80) as i8));
            sums[0] += x_i * a_i + x_j * a_j;
            sums[1] += x_i * b_i + x_j * b_j;
        }
    }
    rest
}

#[cfg(target_arch = "riscv32")]
pub(crate) use riscv32::add_channel_pairs;

#[cfg(target_arch = "riscv32")]
mod riscv32 {
    use super::PairOfSums;
    use crate::operator::{Checked, CheckedPart, unchecked};

    const HALF: i32 = 1 << 15;
    const K: i32 = 0x0080_0080;
    const MASK: i32 = 0x00ff_00ff;

    /// The words `low` and `high`.
    impl PairOfSums {
        /// As of the portable form.
        #[inline(always)]
        pub(crate) fn new([a, b]: [i32; 2], rows: usize) -> Self {
            PairOfSums([a.wrapping_add(b << 16).wrapping_sub((rows as i32).wrapping_mul(HALF)), b])
        }

        /// As of the portable form.
        #[inline(always)]
        pub(crate) fn channels(self) -> [i32; 2] {
            let PairOfSums([low, high]) = self;
            [low.wrapping_sub(high << 16), high]
        }
    }

    /// The same in rv32im assembly.
    ///
    /// # Panics
    /// If the number of pairs is not one of `WIDTHS`, or there are too few words.
    #[inline(always)]
    pub(crate) fn add_channel_pairs<'w>(sums: &mut [PairOfSums], inputs: &[i8], words: &'w [u32]) -> &'w [u32] {
        let (width, rows) = (sums.len(), super::rows(inputs.len()));
        let (first, inputs) = inputs.split_at_checked(inputs.len() % 2).checked();
        let rest = words.split_at_checked(rows * width).map(|(_, rest)| rest);
        let rest = rest.filter(|rest| rest.len() >= super::TRAIL).checked();
        let mut words = words;
        if let Some(&x) = first.first() {
            add_second(sums, x.into(), words);
            words = words.get(width..).checked_part();
        }
        if !inputs.is_empty() {
            match width {
                8 => rows_of_8(sums.first_chunk_mut().checked(), inputs, words),
                5 => rows_of_5(sums.first_chunk_mut().checked(), inputs, words),
                2 => rows_of_2(sums.first_chunk_mut().checked(), inputs, words),
                1 => rows_of_1(sums.first_chunk_mut().checked(), inputs, words),
                _ => unchecked(),
            }
        }
        rest
    }

    /// Adds a row that has only its second input.
    #[cold]
    #[inline(never)]
    fn add_second(sums: &mut [PairOfSums], x: i32, words: &[u32]) {
        for (PairOfSums([low, high]), &word) in sums.iter_mut().zip(words) {
            let weights = (word >> 8) as i32 & MASK;
            let products = weights.wrapping_sub(K).wrapping_mul(x).wrapping_add(HALF);
            *low = low.wrapping_add(products);
            *high = high.wrapping_add(products >> 16);
        }
    }

    /// Instructions: the word in `$word` times both inputs, added to the sums of pair `$pair`, with one more register, which `$load` may overwrite.
    macro_rules! pair {
        ($pair:literal, $word:literal, $other:literal, $load:expr) => {
            concat!(
                concat!("srli ", $other, ", ", $word, ", 8\n mul ", $word, ", ", $word, ", {x}\n"),
                concat!("and ", $other, ", ", $other, ", a2\n mul ", $other, ", ", $other, ", {y}\n"),
                concat!("add ", $word, ", ", $word, ", ", $other, "\n", $load, "\n"),
                concat!("add ", $word, ", ", $word, ", {g}\n add {l", $pair, "}, {l", $pair, "}, ", $word, "\n"),
                concat!("srai ", $word, ", ", $word, ", 16\n add {h", $pair, "}, {h", $pair, "}, ", $word, "\n"),
            )
        };
    }

    /// Instruction: loads the word of pair `$pair`.
    macro_rules! load {
        ($register:literal, $pair:literal) => {
            concat!("lw ", $register, ", 4*", $pair, "(a3)")
        };
    }

    /// The function of all rows, for a number of pairs with the instructions of each.
    // The registers named here have the short forms of instructions: the loop of eight pairs takes 8 lines of the flash cache. Weights that stream
    // through the cache evict them, and each line costs as much as 32 weights; two rows per iteration would be 1.5 % less instructions.
    macro_rules! rows {
        ($name:ident, $width:literal, [$($pair:literal $low:ident $high:ident),+], [$($step:expr),+]) => {
            #[inline(always)]
            fn $name(sums: &mut [PairOfSums; $width], inputs: &[i8], words: &[u32]) {
                let inputs = inputs.as_ptr_range();
                // SAFETY: reads the inputs, an even number, and the words, the number of which the caller has checked, and reads and writes the sums.
                // 2.8 instructions per multiply-accumulate for eight pairs, and 3.2 with one product each, for which LLVM has just enough registers.
                // The sums as operands cost 60 instructions more: LLVM copies each of them to another place of the stack, before and after.
                unsafe {
                    core::arch::asm!(
                        "addi sp, sp, -16",
                        "sw {x}, 0(sp)",
                        $(concat!("lw {", stringify!($low), "}, 8*", $pair, "({x})"),
                        concat!("lw {", stringify!($high), "}, 8*", $pair, "+4({x})"),)+
                        "lw a0, 0(a3)",
                        ".balign 4",
                        "2:",
                        "lb {x}, 0({inputs})",
                        "lb {y}, 1({inputs})",
                        "slli a1, {x}, 8",
                        "add {g}, {x}, {y}",
                        "mul {g}, {g}, {k}",
                        "sub {y}, {y}, a1",
                        "sub {g}, {half}, {g}",
                        $($step,)+
                        "addi {inputs}, {inputs}, 2",
                        concat!("addi a3, a3, 4*", $width),
                        "bne {inputs}, {end}, 2b",
                        "lw {x}, 0(sp)",
                        "addi sp, sp, 16",
                        $(concat!("sw {", stringify!($low), "}, 8*", $pair, "({x})"),
                        concat!("sw {", stringify!($high), "}, 8*", $pair, "+4({x})"),)+
                        $($low = out(reg) _, $high = out(reg) _,)+
                        inputs = inout(reg) inputs.start => _,
                        end = in(reg) inputs.end,
                        k = in(reg) K,
                        half = in(reg) HALF,
                        x = inout(reg) sums.as_mut_ptr() => _,
                        y = out(reg) _, g = out(reg) _,
                        out("a0") _, out("a1") _,
                        in("a2") MASK,
                        inout("a3") words.as_ptr() => _,
                        out("a4") _,
                    );
                }
            }
        };
    }

    // The word of the last pair is the first one of a cache line. It is loaded next to the one before: the core would else begin to wait for the
    // line 10 cycles later.
    rows!(rows_of_8, 8, [0 l0 h0, 1 l1 h1, 2 l2 h2, 3 l3 h3, 4 l4 h4, 5 l5 h5, 6 l6 h6, 7 l7 h7], [
        pair!(0, "a0", "a1", load!("a1", 1)), pair!(1, "a1", "a0", load!("a0", 2)),
        pair!(2, "a0", "a1", load!("a1", 3)), pair!(3, "a1", "a0", load!("a0", 4)),
        pair!(4, "a0", "a1", load!("a1", 5)), pair!(5, "a1", "a0", concat!(load!("a0", 6), "\n", load!("a4", 7))),
        pair!(6, "a0", "a1", ""), pair!(7, "a4", "a1", load!("a0", 8))
    ]);
    rows!(rows_of_5, 5, [0 l0 h0, 1 l1 h1, 2 l2 h2, 3 l3 h3, 4 l4 h4], [
        pair!(0, "a0", "a1", load!("a1", 1)), pair!(1, "a1", "a0", load!("a0", 2)),
        pair!(2, "a0", "a1", load!("a1", 3)), pair!(3, "a1", "a0", load!("a4", 4)),
        pair!(4, "a4", "a1", load!("a0", 5))
    ]);
    rows!(rows_of_2, 2, [0 l0 h0, 1 l1 h1], [
        pair!(0, "a0", "a1", load!("a1", 1)), pair!(1, "a1", "a0", load!("a0", 2))
    ]);
    rows!(rows_of_1, 1, [0 l0 h0], [pair!(0, "a0", "a1", load!("a4", 1)), "mv a0, a4"]);
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use super::*;

    #[test]
    fn only_minus_128_is_not_symmetric() {
        let mut random = fastrand::Rng::with_seed(16);
        for _ in 0..20_000 {
            let any = random.u8(..);
            let bytes = core::array::from_fn(|_| random.choice([0, 1, 127, 128, 255, any]).unwrap());
            let word = u32::from_le_bytes(bytes);
            assert_eq!(are_symmetric(&[u32::MAX, word]), !bytes.contains(&0), "{word:x}");
        }
    }

    /// The identity on which the assembly rests, and the bounds of both halves.
    #[test]
    fn a_word_gives_both_sums_of_two_products() {
        let mut random = fastrand::Rng::with_seed(17);
        for round in 0..200_000 {
            let mut pick = |ends: [i32; 2], any: i32| if round % 3 == 0 { random.choice(ends).unwrap() } else { any };
            let mut x = [0; 2];
            let mut w = [0; 4];
            x.fill_with(|| pick([-128, 127], 0));
            w.fill_with(|| pick([-127, 127], 0));
            if round % 3 != 0 {
                x.fill_with(|| random.i32(-128..128));
                w.fill_with(|| random.i32(-127..128));
            }
            let word = u32::from_le_bytes(w.map(|weight| (weight + 128) as u8));
            let ([x_i, x_j], second) = (x, (word >> 8) & 0x00ff_00ff);
            let product = |x: i32, word: u32| (x as u32).wrapping_mul(word);
            let both = product(x_i, word).wrapping_add(product(x_j - 256 * x_i, second));
            let sums = both.wrapping_sub(product(x_i + x_j, 0x0080_0080)).wrapping_add(1 << 15) as i32;
            let [a, b] = [0, 1].map(|lane| weights(word, lane)).map(|[w_i, w_j]| x_i * w_i + x_j * w_j);
            assert_eq!([(sums - (1 << 15)) as i16 as i32, sums >> 16], [a, b], "{x:?} {w:?}");
        }
    }

    #[test]
    fn packed_weights_give_the_products_of_each_channel() {
        let mut random = fastrand::Rng::with_seed(18);
        for _ in 0..500 {
            let (inputs, outputs) = (random.usize(1..20), random.usize(1..40));
            let weights: Vec<i8> = (0..inputs * outputs).map(|_| random.i8(-127..)).collect();
            let x: Vec<i8> = (0..inputs).map(|_| random.i8(..)).collect();
            let packed = pack(&weights, inputs);
            let words: Vec<u32> = packed.as_chunks().0.iter().map(|&bytes| u32::from_le_bytes(bytes)).collect();
            let mut rest = &words[LEAD..];
            let mut sums: Vec<i32> = Vec::new();
            for width in blocks(outputs) {
                let mut of_block = std::vec![PairOfSums::new([0; 2], rows(inputs)); width];
                rest = add_channel_pairs(&mut of_block, &x, rest);
                sums.extend(of_block.into_iter().flat_map(PairOfSums::channels));
            }
            assert_eq!(rest.len(), TRAIL);
            for (channel, weights) in weights.chunks_exact(inputs).enumerate() {
                let expected: i32 = weights.iter().zip(&x).map(|(&w, &x)| i32::from(w) * i32::from(x)).sum();
                assert_eq!(sums[channel], expected, "{inputs} -> {outputs}, channel {channel}");
            }
        }
    }
}

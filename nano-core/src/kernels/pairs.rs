//! Fully connected micro-kernel with packed weights: two int8 weights per word, so that one multiplication serves two of 16 output
//! channels (SWAR).
//!
//! `x * (a + (b << 16))` is `x * a + (x * b << 16)`, and over two inputs both sums fit in 16 bits: |x| <= 128, |a|, |b| <= 127. The
//! words are accumulated modulo 2^32, and after every two inputs their upper halves in a sum of their own: subtracted at the end, it
//! leaves the sum of the lower halves.

#[cfg(not(target_arch = "riscv32"))]
use zerocopy::FromBytes;

#[cfg(any(feature = "alloc", not(target_arch = "riscv32")))]
use super::requantize::Channel;
#[cfg(not(target_arch = "riscv32"))]
use super::requantize::{ONE_PASS, OnePass, Requantization};

use crate::operator::unchecked;

/// Output channels of a block.
pub(crate) const WIDTH: usize = 16;
/// Inputs per iteration of the inner loop.
pub(crate) const ROUND: usize = 8;

/// Eight words, one per pair of channels. A block is a row of biases in pairs, a row of the odd channels' biases, a row of weights in
/// pairs for each input, 8 rows of [`Channel`]s, and a row that begins with the clamp. All in one, so that the loop needs
/// one pointer.
pub(crate) type Row = [[u8; 4]; WIDTH / 2];
/// Rows of a block before and after its weights.
pub(crate) const BEFORE: usize = 2;
pub(crate) const AFTER: usize = 9;

/// Packs the weights, or biases, of two neighbouring channels into one word: `even + (odd << 16)` modulo 2^32.
pub(crate) fn pair([even, odd]: [i32; 2]) -> [u8; 4] {
    even.wrapping_add(odd << 16).to_le_bytes()
}

/// A row of words.
pub(crate) type Words = [u32; WIDTH / 2];

/// The two weights of a pair.
pub(crate) fn weights(pair: u32) -> [i32; 2] {
    let even = i32::from(pair as i16);
    [even, (pair as i32).wrapping_sub(even) >> 16]
}

/// The weights of a channel.
pub(crate) fn channel(rows: &[Words], channel: usize) -> impl Iterator<Item = i32> {
    let of_row = move |row: &Words| weights(*row.get(channel / 2)?).get(channel % 2).copied();
    rows.iter().filter_map(of_row)
}

/// Whether all weights are -127 to 127.
pub(crate) fn are_symmetric(rows: &[Words]) -> bool {
    // Half-words 127 + w and 128 + w, which both fit a byte.
    let halves = |word: u32| word.wrapping_add(0x007f_007f) | word.wrapping_add(0x0080_0080);
    rows.as_flattened().iter().fold(0, |seen, &word| seen | halves(word)) & 0xff00_ff00 == 0
}

/// The rows of a block: its channels, `[channel][input]` weights, and the clamp.
#[cfg(feature = "alloc")]
pub(crate) fn block(channels: &[Channel; WIDTH], weights: &[i8], clamp: [i32; 2]) -> alloc::vec::Vec<Row> {
    let inputs = weights.len() / WIDTH;
    let pairs = |value: &dyn Fn(usize) -> i32| -> Row {
        core::array::from_fn(|index| pair([value(2 * index), value(2 * index + 1)]))
    };
    let biases = pairs(&|channel| channels[channel].bias);
    let odd = core::array::from_fn(|index| channels[2 * index + 1].bias.to_le_bytes());
    let weights = (0..inputs).map(|input| pairs(&|channel| weights[channel * inputs + input].into()));
    let channels: [Row; AFTER - 1] = zerocopy::transmute!(*channels);
    let [min, max] = clamp.map(i32::to_le_bytes);
    let last = [min, max, [0; 4], [0; 4], [0; 4], [0; 4], [0; 4], [0; 4]];
    [biases, odd].into_iter().chain(weights).chain(channels).chain([last]).collect()
}

/// Computes `outputs`, whose number is a multiple of [`WIDTH`], from `inputs`, a multiple of [`ROUND`]. `rows` holds one block after
/// the other, word-aligned.
///
/// # Panics
/// If a length is not such a multiple, or there are too few rows.
#[cfg(not(target_arch = "riscv32"))]
pub(crate) fn run(rows: &[Row], inputs: &[i8], outputs: &mut [i8]) {
    check_lengths(rows, inputs, outputs);
    for (block, outputs) in rows.chunks_exact(BEFORE + inputs.len() + AFTER).zip(outputs.chunks_exact_mut(WIDTH)) {
        let (rows, after) = block[BEFORE..].split_at(inputs.len());
        let [min, max] = [0, 1].map(|index| i32::from_le_bytes(after[AFTER - 1][index]));
        let requantization = Requantization::new(ONE_PASS, min, max);
        for (index, output) in outputs.iter_mut().enumerate() {
            let products = inputs
                .iter()
                .zip(rows)
                .map(|(&x, row)| i32::from(x) * weights(u32::from_le_bytes(row[index / 2]))[index % 2]);
            let channel = Channel::read_from_bytes(after.as_flattened()[4 * index..][..4].as_flattened());
            let channel = channel.expect("16 bytes");
            *output = requantization.apply_as::<OnePass>(&channel, channel.bias + products.sum::<i32>());
        }
    }
}

#[inline(always)]
fn check_lengths(rows: &[Row], inputs: &[i8], outputs: &[i8]) {
    let whole = !inputs.is_empty() && inputs.len().is_multiple_of(ROUND);
    let blocks = !outputs.is_empty() && outputs.len().is_multiple_of(WIDTH);
    let enough = rows.len() >= outputs.len() / WIDTH * (BEFORE + inputs.len() + AFTER);
    if !(whole && blocks && enough) {
        unchecked();
    }
}

/// Instructions: initializes the sums of each pair of channels.
#[cfg(target_arch = "riscv32")]
macro_rules! begin {
    ($($pair:literal)+) => {
        concat!($("lw {a", $pair, "}, 4*", $pair, "({rows})\n lw {h", $pair, "}, 32+4*", $pair, "({rows})\n"),+)
    };
}

/// Instructions: input `first` of an iteration and its neighbour, times the weights of each pair of channels.
#[cfg(target_arch = "riscv32")]
macro_rules! accumulate {
    ($first:literal: $($pair:literal)+) => {
        concat!(
            "lb {x}, ", $first, "({inputs})\n lb {y}, ", $first, "+1({inputs})\n",
            $(concat!(
                "lw {t}, 64+32*", $first, "+4*", $pair, "({rows})\n lw {u}, 96+32*", $first, "+4*", $pair, "({rows})\n",
                "mul {t}, {t}, {x}\n mul {u}, {u}, {y}\n add {t}, {t}, {u}\n",
                "add {a", $pair, "}, {a", $pair, "}, {t}\n",
                "add {t}, {t}, {half}\n srai {t}, {t}, 16\n add {h", $pair, "}, {h", $pair, "}, {t}\n",
            )),+
        )
    };
}

/// Instructions: an output, from twice its sum.
#[cfg(target_arch = "riscv32")]
macro_rules! requantize {
    ($sum:literal, $pair:literal, $odd:literal) => {
        concat!(
            concat!("lw {t}, 64+32*", $pair, "+16*", $odd, "+4({rows})\n mulhsu {t}, {", $sum, $pair, "}, {t}\n"),
            concat!("lw {u}, 64+32*", $pair, "+16*", $odd, "+8({rows})\n"),
            concat!("lw {half}, 64+32*", $pair, "+16*", $odd, "+12({rows})\n"),
            "bgez {t}, 4f\n addi {t}, {t}, -2\n 4:\n add {t}, {t}, {u}\n sra {t}, {t}, {half}\n",
            "bge {t}, {x}, 5f\n mv {t}, {x}\n 5:\n bge {y}, {t}, 6f\n mv {t}, {y}\n 6:\n",
            concat!("sb {t}, 2*", $pair, "+", $odd, "({output})\n"),
        )
    };
}

/// Instructions: the outputs of each pair of channels.
#[cfg(target_arch = "riscv32")]
macro_rules! finish {
    ($($pair:literal)+) => {
        concat!($(concat!(
            "slli {h", $pair, "}, {h", $pair, "}, 1\n slli {a", $pair, "}, {a", $pair, "}, 1\n",
            "slli {t}, {h", $pair, "}, 16\n sub {a", $pair, "}, {a", $pair, "}, {t}\n",
            requantize!("a", $pair, "0"),
            requantize!("h", $pair, "1"),
        )),+)
    };
}

/// The same in rv32im assembly.
#[cfg(target_arch = "riscv32")]
#[inline(always)]
pub(crate) fn run(rows: &[Row], inputs: &[i8], outputs: &mut [i8]) {
    check_lengths(rows, inputs, outputs);
    let count = inputs.len();
    let (inputs, outputs) = (inputs.as_ptr_range(), outputs.as_mut_ptr_range());
    // SAFETY: reads `inputs` and `rows`, and writes `outputs`. 2.3 instructions per multiply-accumulate; with a byte
    // per weight there are 3.1 at least.
    unsafe {
        core::arch::asm!(
            "2:",
            begin!(0 1 2 3 4 5 6 7),
            "lui {half}, 8",
            "3:",
            accumulate!(0: 0 1 2 3 4 5 6 7),
            accumulate!(2: 0 1 2 3 4 5 6 7),
            accumulate!(4: 0 1 2 3 4 5 6 7),
            accumulate!(6: 0 1 2 3 4 5 6 7),
            "addi {inputs}, {inputs}, 8",
            "addi {rows}, {rows}, 256",
            "bne {inputs}, {inputs_end}, 3b",
            "lw {x}, 320({rows})",
            "lw {y}, 324({rows})",
            finish!(0 1 2 3 4 5 6 7),
            "addi {output}, {output}, 16",
            "beq {output}, {output_end}, 7f",
            "addi {rows}, {rows}, 352",
            "sub {inputs}, {inputs}, {count}",
            "j 2b",
            "7:",
            a0 = out(reg) _, a1 = out(reg) _, a2 = out(reg) _, a3 = out(reg) _,
            a4 = out(reg) _, a5 = out(reg) _, a6 = out(reg) _, a7 = out(reg) _,
            h0 = out(reg) _, h1 = out(reg) _, h2 = out(reg) _, h3 = out(reg) _,
            h4 = out(reg) _, h5 = out(reg) _, h6 = out(reg) _, h7 = out(reg) _,
            count = in(reg) count,
            rows = inout(reg) rows.as_ptr() => _,
            inputs = inout(reg) inputs.start => _,
            inputs_end = in(reg) inputs.end,
            output = inout(reg) outputs.start => _,
            output_end = in(reg) outputs.end,
            x = out(reg) _, y = out(reg) _, t = out(reg) _, u = out(reg) _, half = out(reg) _,
            options(nostack),
        );
    }
}

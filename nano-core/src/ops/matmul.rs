//! Matrix product of two activations, one per batch of matrices: `y = clamp(requantize(sum_k (a - z_a)(b - z_b)) + z_y)` with the multiplier
//! `s_a s_b / s_y`. Bit-exact with TensorFlow Lite Micro's int8 `BATCH_MATMUL`.
//!
//! Shapes (height, width, channels): a [batch, m, k], y [batch, m, n]; b [batch, k, n], or with `transpose_b` [batch, n, k].
//!
//! The kernel is GEMM. Of each [`COLUMNS`] columns of b, blocks of four are packed side by side in scratch memory, `[k][4]`; then tiles of four
//! rows of a, which every block multiplies. The products are those of the int8 numbers as they are: sums of the rows and columns correct the
//! accumulators for the zero points.
//!
//! Constant: one [`Channel`], whose bias is 0. Scratch: the tile and the blocks, `[k][4]` each.

use crate::BrokenRule;
use crate::arena::Io;
use crate::fixed_point::clamp_to_i8;
use crate::image::{Dtype, Value};
use crate::kernels::{self, Channel, Columns, Form, LANES, LITERAL, Literal, ONE_PASS, OnePass};
use crate::node::Node;
use crate::operator::{Alias, CheckedPart, Kernel, Operator, Output, Run, attributes, nonzero, refused, require};
use crate::ops::channels;

/// Kernel of the matrix product.
pub const MATMUL: Kernel = Kernel {
    id: 19,
    name: NAME,
    operator: &OPERATOR,
    inputs: &[Dtype::Int8],
    outputs: &[Dtype::Int8],
    pitched: true,
    forms: &[LITERAL, ONE_PASS],
    check,
    run: Run::Apart(run),
    #[cfg(feature = "alloc")]
    cost: |layer| Some(crate::image::Cost::instructions(3 * layer.macs + 20 * layer.outputs[0].len() as u64)),
    #[cfg(feature = "alloc")]
    pack,
};

static OPERATOR: Operator = Operator {
    name: NAME,
    attributes: Attributes::NAMES,
    inputs: 2..=2,
    outputs: &[Output::OWN],
    alias: Alias::Never,
    shape: |node, _| shape(node),
    macs: |node| node.output(0).len() as u64 * u64::from(node.input(0).shape[2]),
};

const NAME: &str = "matmul";
/// Columns of b that are packed at a time. More would save passes over a: with 16, packing a takes a tenth of the instructions.
const COLUMNS: usize = 4 * LANES;

attributes! {
    /// Whether b is transposed, 0 or 1.
    struct Attributes { transpose_b }
}

fn shape(node: &Node<'_>) -> Result<[u32; 3], BrokenRule> {
    let Attributes { transpose_b } = Attributes::read(node.attributes())?;
    require!((0..=1).contains(&transpose_b), "transpose_b is not 0 or 1", transpose_b);
    let ([batch, rows, inner], [other_batch, width, channels]) = (node.input(0).shape, node.input(1).shape);
    let (other_inner, columns) = if transpose_b == 1 { (channels, width) } else { (width, channels) };
    require!(batch == other_batch, "the inputs have different numbers of matrices: the second", other_batch);
    require!(inner == other_inner, "the inputs differ in the length that is summed over: the second", other_inner);
    Ok([batch, rows, columns])
}

fn channel<'a>(node: &Node<'a>) -> Result<&'a Channel, BrokenRule> {
    match node.constant(0)? {
        [channel] => Ok(channel),
        channels => Err(refused("wrong number of channels", channels.len() as i64)),
    }
}

/// The largest magnitude of an accumulator over all int8 inputs; also that of its partial sums, whose terms have the same bound.
fn accumulator_bound(a: &Value, b: &Value) -> i64 {
    let largest = |value: &Value| i64::from(value.zero_point.max(-1 - value.zero_point)) + 128;
    i64::from(a.shape[2]) * largest(a) * largest(b)
}

/// Bytes of the tile and the blocks of a product with this inner length and number of columns.
fn scratch_length(inner: u32, columns: u32) -> usize {
    let blocks = (columns as usize).min(COLUMNS).div_ceil(LANES);
    (1 + blocks) * LANES * inner as usize
}

fn check(node: &Node<'_>) -> Result<(), BrokenRule> {
    let bound = accumulator_bound(node.input(0), node.input(1));
    channels::check_requantization(channel(node)?, bound, node.form() == ONE_PASS)?;
    let scratch = scratch_length(node.input(0).shape[2], node.output(0).shape[2]);
    require!(node.scratch_length() == scratch, "wrong scratch length", node.scratch_length() as i64);
    Ok(())
}

fn run(node: &Node<'_>, io: Io<'_>) {
    if node.form() == ONE_PASS { run_as::<OnePass>(node, io) } else { run_as::<Literal>(node, io) }
}

fn run_as<F: Form>(node: &Node<'_>, mut io: Io<'_>) {
    let product = Product::of(node);
    let scratch = io.scratch.as_chunks_mut().0;
    let [of_a, of_b] = [0, 1].map(|index| io.inputs.get::<i8>(index).chunks(matrix_length(node.input(index))));
    let of_output = io.outputs.take::<i8>().chunks_mut(matrix_length(product.output));
    for ((a, b), output) in of_a.zip(of_b).zip(of_output) {
        product.matrix::<F>(a, b, scratch, output);
    }
}

/// Bytes from one matrix of a value to the next.
fn matrix_length(value: &Value) -> usize {
    nonzero((value.shape[1] * value.pitch) as usize)
}

/// One node.
struct Product<'a> {
    a: &'a Value,
    b: &'a Value,
    output: &'a Value,
    channel: Channel,
    transpose_b: bool,
    /// Length of the sum.
    inner: usize,
}

impl<'a> Product<'a> {
    fn of(node: &Node<'a>) -> Self {
        let (a, b, output) = (node.input(0), node.input(1), node.output(0));
        let channel = channel(node).ok().copied().checked_part();
        let transpose_b = Attributes::read(node.attributes()).is_ok_and(|attributes| attributes.transpose_b == 1);
        Product { a, b, output, channel, transpose_b, inner: nonzero(a.shape[2] as usize) }
    }

    /// Multiplies two matrices.
    fn matrix<F: Form>(&self, a: &[i8], b: &[i8], scratch: &mut Columns, output: &mut [i8]) {
        let (tile, blocks) = scratch.split_at_mut_checked(self.inner).checked_part();
        let pitch = nonzero(self.output.pitch as usize);
        let columns = self.output.shape[2] as usize;
        for first in (0..columns).step_by(COLUMNS) {
            let blocks = blocks.get_mut(..(columns - first).min(COLUMNS).div_ceil(LANES) * self.inner).checked_part();
            let biases = self.pack_blocks(b, first, blocks);
            for (index, strip) in output.chunks_mut(nonzero(LANES * pitch)).enumerate() {
                pack_rows(tile, a, LANES * index, self.a.pitch as usize);
                let corrections = match self.b.zero_point {
                    0 => [0; LANES],
                    zero_point => lane_sums(tile).map(|sum| zero_point * sum),
                };
                for (index, (block, &biases)) in blocks.chunks_exact(nonzero(self.inner)).zip(&biases).enumerate() {
                    let sums = kernels::dot_4x4(biases, tile, block);
                    let column = first + LANES * index;
                    let strip = strip.get_mut(column..).checked_part();
                    write_tile::<F>(self.channel, &sums, &corrections, strip, (columns - column).min(LANES), pitch);
                }
            }
        }
    }

    /// Packs [`COLUMNS`] columns of b, or those that are left, from `first` on; returns what the accumulators of each begin with.
    fn pack_blocks(&self, b: &[i8], first: usize, blocks: &mut Columns) -> [[i32; LANES]; COLUMNS / LANES] {
        let mut biases = [[0; LANES]; COLUMNS / LANES];
        for (index, (block, biases)) in blocks.chunks_exact_mut(nonzero(self.inner)).zip(&mut biases).enumerate() {
            let first = first + LANES * index;
            if self.transpose_b {
                pack_rows(block, b, first, self.b.pitch as usize);
            } else {
                pack_columns(block, b, first, self.b.pitch as usize);
            }
            let of_zero_points = self.inner as i32 * self.b.zero_point;
            *biases = lane_sums(block).map(|sum| self.a.zero_point * (of_zero_points - sum));
        }
        biases
    }
}

/// Requantizes the accumulators `[column][row]` of a tile, less the correction of each row, to `width` columns of `output`.
// Not inlined, to keep registers free: inlined, the tile's instructions double.
#[inline(never)]
fn write_tile<F: Form>(
    channel: Channel,
    [a, b, c, d]: &[[i32; LANES]; LANES],
    corrections: &[i32; LANES],
    output: &mut [i8],
    width: usize,
    pitch: usize,
) {
    let rows = a.iter().zip(b).zip(c.iter().zip(d)).zip(corrections);
    for (line, (((a, b), (c, d)), correction)) in output.chunks_mut(pitch).zip(rows) {
        let requantized = |sum: &i32| clamp_to_i8(F::requantize(&channel, sum - correction), -128, 127);
        let line = line.get_mut(..width).unwrap_or_default();
        match line.first_chunk_mut() {
            Some(line) => *line = [requantized(a), requantized(b), requantized(c), requantized(d)],
            None => line.iter_mut().zip([a, b, c, d]).for_each(|(output, sum)| *output = requantized(sum)),
        }
    }
}

/// Packs four rows of a matrix side by side, those from `first` on. Lanes without a row stay as they are; so do those of [`pack_columns`].
fn pack_rows(packed: &mut Columns, matrix: &[i8], first: usize, pitch: usize) {
    let rows = matrix.get(first * pitch..).unwrap_or_default();
    if rows.len() >= 3 * pitch + packed.len() {
        kernels::fill_columns(packed, rows, pitch);
    } else {
        for (lane, row) in rows.chunks(nonzero(pitch)).enumerate() {
            kernels::fill_column(packed, lane, row);
        }
    }
}

/// Packs four columns of a matrix, those from `first` on.
fn pack_columns(packed: &mut Columns, matrix: &[i8], first: usize, pitch: usize) {
    for (packed, row) in packed.iter_mut().zip(matrix.chunks(nonzero(pitch))) {
        let row = row.get(first..).unwrap_or_default();
        match row.first_chunk() {
            Some(&four) => *packed = four,
            None => packed.iter_mut().zip(row).for_each(|(packed, &x)| *packed = x),
        }
    }
}

/// The sum of each lane.
fn lane_sums(packed: &Columns) -> [i32; LANES] {
    packed.iter().fold([0; LANES], |[a, b, c, d], row| {
        let [e, f, g, h] = row.map(i32::from);
        [a + e, b + f, c + g, d + h]
    })
}

#[cfg(feature = "alloc")]
fn pack(layer: &crate::image::Layer<'_>) -> Result<crate::image::Packed, crate::image::WriteError> {
    use zerocopy::IntoBytes;
    let (a, b, output) = (layer.inputs[0], layer.inputs[1], layer.outputs[0]);
    let real = f64::from(a.scale) * f64::from(b.scale) / f64::from(output.scale);
    let multiplier = crate::fixed_point::Multiplier::from_real(real)
        .ok_or_else(|| layer.refused("s_a * s_b / s_y is not in [0, 2^30)", real))?;
    let bound = accumulator_bound(&a, &b);
    if bound >= 1 << 31 {
        return Err(layer.refused(
            "the largest accumulator, k max|a - z_a| max|b - z_b|, must stay below 2^31: sum over fewer elements",
            bound as f64,
        ));
    }
    let accumulator = channels::pack::Accumulator { bias: 0, multiplier, bound };
    let (form, channels) = channels::pack::requantizations(&[accumulator], output.zero_point);
    let scratch_length = scratch_length(a.shape[2], output.shape[2]);
    Ok(crate::image::Packed { form, constants: alloc::vec![channels.as_bytes().to_vec()], scratch_length, read: None })
}

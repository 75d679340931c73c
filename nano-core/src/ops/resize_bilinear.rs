//! Bilinear interpolation to another height and width. Input and output share scale and zero point.
//!
//! Along each axis output `i` samples the input at `start + i * step` pixels, clamped to the input. The attributes store both with 20
//! fractional bits, and the position is rounded to 10. An output is the weighted mean of the four pixels around its position, the weights
//! in units of 2^-20, halves rounded away from zero: the integer arithmetic of TensorFlow Lite Micro's int8 `RESIZE_BILINEAR`, which
//! stores the steps with 10 fractional bits and is computed bit-exactly with such steps.
//!
//! With steps and starts rounded to the nearest, the positions of up to 1024 outputs are off by at most 2^-10 pixels. Neighbouring pixels
//! differ by at most 255, so that outputs are off by less than one step of the scale from interpolation in real numbers.

use crate::BrokenRule;
use crate::arena::Io;
use crate::image::{Dtype, Value};
use crate::node::Node;
use crate::operator::{
    Alias, Checked, CheckedPart, Kernel, Operator, Output, Quantization, Run, attributes, nonzero, require,
};

/// Kernel of bilinear interpolation.
pub const RESIZE_BILINEAR: Kernel = Kernel {
    id: 29,
    name: NAME,
    operator: &OPERATOR,
    inputs: &[Dtype::Int8],
    outputs: &[Dtype::Int8],
    pitched: true,
    forms: &[0],
    check,
    run: Run::Apart(run),
    #[cfg(feature = "alloc")]
    cost: |layer| Some(crate::image::Cost::instructions(22 * layer.outputs[0].len() as u64)),
    #[cfg(feature = "alloc")]
    pack: |_| Ok(Default::default()),
};

static OPERATOR: Operator = Operator {
    name: NAME,
    attributes: Attributes::NAMES,
    inputs: 1..=1,
    outputs: &[Output { quantization: Quantization::SameAs(0), reset: None }],
    alias: Alias::Never,
    shape,
    macs: |_| 0,
};

const NAME: &str = "resize_bilinear";
/// Fractional bits of steps and starts.
const STEP_BITS: u32 = 20;
/// Fractional bits of positions, and of the weights along one axis.
const POSITION_BITS: u32 = 10;

attributes! {
    /// The output's size, and along each axis the first position and the distance of the positions.
    struct Attributes {
        output_height,
        output_width,
        step_height,
        step_width,
        start_height,
        start_width,
    }
}

/// The positions along one axis.
struct Positions {
    start: i64,
    step: i64,
    /// The input's last pixel.
    last: usize,
}

impl Positions {
    fn new(start: i32, step: i32, input: u32) -> Positions {
        Positions { start: start.into(), step: step.into(), last: (input as usize).saturating_sub(1) }
    }

    /// The two pixels around position `index`, and the weight of the second one in units of 2^-10.
    fn around(&self, index: usize) -> ([usize; 2], i32) {
        // No overflow: an index is below 2^28.
        let exact = self.start + index as i64 * self.step;
        let shift = STEP_BITS - POSITION_BITS;
        let largest = (self.last as i64) << POSITION_BITS;
        let position = ((exact + (1 << (shift - 1))) >> shift).min(largest).max(0);
        let first = (position >> POSITION_BITS) as usize;
        ([first, self.last.min(first + 1)], position as i32 & ((1 << POSITION_BITS) - 1))
    }
}

fn shape(node: &Node<'_>, _: usize) -> Result<[u32; 3], BrokenRule> {
    let attributes = Attributes::read(node.attributes())?;
    let positive = 1..=Value::LARGEST as i64;
    for side in [attributes.output_height, attributes.output_width] {
        require!(positive.contains(&side.into()), "output_height or output_width is not 1 to 2^28", side);
    }
    let channels = node.input(0).shape[2];
    Ok([attributes.output_height as u32, attributes.output_width as u32, channels])
}

fn check(node: &Node<'_>) -> Result<(), BrokenRule> {
    node.require_no_scratch()?;
    let attributes = Attributes::read(node.attributes())?;
    for step in [attributes.step_height, attributes.step_width] {
        require!(step >= 0, "step_height or step_width is negative", step);
    }
    for start in [attributes.start_height, attributes.start_width] {
        require!(
            start >= -(1 << STEP_BITS),
            "start_height or start_width is more than a pixel before the input",
            start
        );
    }
    Ok(())
}

fn run(node: &Node<'_>, io: Io<'_>) {
    let attributes = Attributes::read(node.attributes()).checked();
    let Io { inputs, mut outputs, .. } = io;
    let (input, output): (&[i8], &mut [i8]) = (inputs.get(0), outputs.take());
    let (value, result) = (node.input(0), node.output(0));
    let [height, width, channels] = value.shape;
    let vertical = Positions::new(attributes.start_height, attributes.step_height, height);
    let horizontal = Positions::new(attributes.start_width, attributes.step_width, width);
    let pitch = value.pitch as usize;
    let row_pitch = width as usize * pitch;
    let (output_width, output_pitch) = (result.shape[1] as usize, nonzero(result.pitch as usize));
    for (y, output) in output.chunks_mut(nonzero(output_width * output_pitch)).enumerate() {
        let (rows, lower) = vertical.around(y);
        let rows = rows.map(|row| input.get(row * row_pitch..).checked_part());
        for (x, output) in output.chunks_mut(output_pitch).enumerate() {
            let (columns, right) = horizontal.around(x);
            let output = output.get_mut(..channels as usize).checked_part();
            let pixel = |row: usize, column: usize| {
                let start = columns[column] * pitch;
                rows[row].get(start..start + channels as usize).checked_part()
            };
            let pixels = [pixel(0, 0), pixel(0, 1), pixel(1, 0), pixel(1, 1)];
            interpolate(output, pixels, weights(lower, right));
        }
    }
}

/// The weights of the upper left, upper right, lower left and lower right pixel in units of 2^-20.
fn weights(lower: i32, right: i32) -> [i32; 4] {
    const ONE: i32 = 1 << POSITION_BITS;
    let (upper, left) = (ONE - lower, ONE - right);
    [upper * left, upper * right, lower * left, lower * right]
}

/// The weighted mean of four pixels, channel by channel.
#[inline(always)]
fn interpolate(output: &mut [i8], pixels: [&[i8]; 4], weights: [i32; 4]) {
    // Four channels at a time: fewer steps of the five addresses.
    let (fours, rest) = output.as_chunks_mut::<4>();
    let [(a, a_rest), (b, b_rest), (c, c_rest), (d, d_rest)] = pixels.map(|pixel| pixel.as_chunks::<4>());
    for ((((output, a), b), c), d) in fours.iter_mut().zip(a).zip(b).zip(c).zip(d) {
        *output = core::array::from_fn(|channel| mean([a, b, c, d].map(|pixel| pixel[channel]), weights));
    }
    for ((((output, &a), &b), &c), &d) in rest.iter_mut().zip(a_rest).zip(b_rest).zip(c_rest).zip(d_rest) {
        *output = mean([a, b, c, d], weights);
    }
}

#[inline(always)]
fn mean(elements: [i8; 4], weights: [i32; 4]) -> i8 {
    let sum: i32 = elements.into_iter().zip(weights).map(|(element, weight)| i32::from(element) * weight).sum();
    // A shift rounds halves up: those of negative sums are moved below the half first.
    ((sum + (sum >> 31) + (1 << (2 * POSITION_BITS - 1))) >> (2 * POSITION_BITS)) as i8
}

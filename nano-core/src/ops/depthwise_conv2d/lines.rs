//! Depthwise convolution with a small window, line by line: see [`Lines`]. A line is a column or a row of outputs, whichever is longer. With a channel
//! multiplier, the operator is a convolution.
//!
//! Windows of one row with 4 to 7 or 9 taps are folded: the same row of inputs, shifted, is each of two or three lines of a window with 3 taps.
//! Such rows are padded in scratch memory, as their padding differs from line to line.
//!
//! Packed: `[channel][line][tap]`; of taps in two lines of a folded window, the first has the weight and the others 0.

use core::num::NonZero;

use super::OPERATOR;
use crate::BrokenRule;
use crate::arena::{Io, scratch_elements};
use crate::image::{Element, Value};
use crate::kernels::{Channel, Lines, ONE_PASS, Requantization, Side, WideChannel};
use crate::node::Node;
use crate::operator::{Checked, CheckedPart, Kernel, Operator, Run, nonzero, refused, require};
use crate::ops::channels::{self, ChannelRules};
use crate::ops::window::{Axis, Rows, Window};

/// Kernel of the depthwise convolution with a small window.
pub const DEPTHWISE_CONV2D_LINES: Kernel = kernel::<Channel>(48, "depthwise_conv2d_lines", &OPERATOR);
/// Kernel of the depthwise convolution of int16 with a small window.
pub const DEPTHWISE_CONV2D_LINES_INT16: Kernel = kernel::<WideChannel>(49, "depthwise_conv2d_lines_int16", &OPERATOR);

/// A kernel of a depthwise convolution, or of a convolution with one input channel per group.
pub(in crate::ops) const fn kernel<C: ChannelRules>(
    id: u16,
    name: &'static str,
    operator: &'static Operator,
) -> Kernel {
    Kernel {
        id,
        name,
        operator,
        inputs: <C::Element as Element>::DTYPES,
        outputs: <C::Element as Element>::DTYPES,
        pitched: true,
        forms: &[ONE_PASS],
        check: check::<C>,
        run: Run::Apart(run::<C>),
        #[cfg(feature = "alloc")]
        cost: cost::<C>,
        #[cfg(feature = "alloc")]
        pack: pack::<C>,
    }
}

/// The attributes of both operators: they begin with the window's and end with the clamp, and those of a convolution have `groups` between them.
struct Attributes {
    window: Window,
    groups: Option<i32>,
    clamp_min: i32,
    clamp_max: i32,
}

impl Attributes {
    // Inlined: copies of the attributes would cost 230 instructions.
    #[inline(always)]
    fn read(words: &[i32]) -> Result<Self, BrokenRule> {
        let window = Window::read(words)?;
        let (groups, clamp_min, clamp_max) = match *words.split_at_checked(10).checked_part().1 {
            [min, max] => (None, min, max),
            [groups, min, max] => (Some(groups), min, max),
            _ => return Err(refused("wrong number of attributes", words.len() as i64)),
        };
        Ok(Attributes { window, groups, clamp_min, clamp_max })
    }

    /// Whether each group has one input channel.
    fn is_depthwise(&self, input: &Value) -> bool {
        self.groups.is_none_or(|groups| groups as u32 == input.shape[2])
    }

    /// Whether the clamp contains the zero point, so that sums that are not negative need one side of it only, and negative ones the other.
    fn clamps_around(&self, output: &Value) -> bool {
        (self.clamp_min..=self.clamp_max).contains(&output.zero_point)
    }
}

/// Output channels of an input channel.
fn multiplier(input: &Value, output: &Value) -> NonZero<usize> {
    NonZero::new(output.shape[2].checked_div(input.shape[2]).unwrap_or(1) as usize).unwrap_or(NonZero::<usize>::MIN)
}

/// How a layer is computed line by line.
pub(super) enum Layout {
    /// The lines are rows, or columns if `down`.
    Lines {
        lines: Lines,
        #[cfg(feature = "alloc")]
        down: bool,
    },
    Folded(Fold),
}

/// A window of one row as `lines` lines of 3 taps, the first of each `shift` taps after that of the line before.
pub(super) struct Fold {
    axis: Axis,
    lines: usize,
    shift: usize,
}

impl Layout {
    /// The layout for a layer; `None` if it has none.
    pub(super) fn new(window: Window, input: &Value, output: &Value) -> Option<Layout> {
        let step = |value: &Value, index: usize| [value.shape[1] * value.pitch, value.pitch][index] as usize;
        let side = |axis: Axis, index: usize| Side {
            taps: axis.kernel as usize,
            inputs: input.shape[index] as usize,
            input_step: step(input, index),
            outputs: output.shape[index] as usize,
            output_step: step(output, index),
            stride: axis.stride as usize,
            before: axis.before as usize,
            dilation: axis.dilation as usize,
        };
        let (vertical, horizontal) = (side(window.vertical, 0), side(window.horizontal, 1));
        let columns = vertical.is_line() && horizontal.is_across_lines(&vertical);
        let rows = horizontal.is_line() && vertical.is_across_lines(&horizontal);
        let length = |side: &Side| side.outputs.checked_div(side.dilation).unwrap_or(0);
        let down = columns && !(rows && length(&vertical) < length(&horizontal));
        if columns || rows {
            let (along, across) = if down { (vertical, horizontal) } else { (horizontal, vertical) };
            return Some(Layout::Lines {
                lines: Lines { along, across, zero: input.zero_point },
                #[cfg(feature = "alloc")]
                down,
            });
        }
        let fold = Fold::new(window.horizontal)?;
        (window.vertical.kernel == 1 && window.vertical.before | window.vertical.after == 0)
            .then_some(Layout::Folded(fold))
    }

    /// Lines and taps of the window as it is computed.
    pub(super) fn taps(&self) -> (usize, usize) {
        match self {
            Layout::Lines { lines, .. } => (lines.across.taps, lines.along.taps),
            Layout::Folded(fold) => (fold.lines, Fold::TAPS),
        }
    }

    /// Elements of scratch memory.
    fn scratch_length(&self, window: &Window, input: &Value) -> usize {
        match self {
            Layout::Lines { .. } => 0,
            Layout::Folded(_) => window.scratch_length(input),
        }
    }

    /// Which of the layer's weights, `[row][column]`, is at a place; `None` for a 0.
    #[cfg(feature = "alloc")]
    pub(super) fn weight(&self, line: usize, tap: usize) -> Option<usize> {
        match self {
            Layout::Lines { lines, down: false } => Some(line * lines.along.taps + tap),
            Layout::Lines { lines, down: true } => Some(tap * lines.across.taps + line),
            Layout::Folded(fold) if line > 0 && tap + fold.shift < Fold::TAPS => None,
            Layout::Folded(fold) => Some(line * fold.shift + tap),
        }
    }
}

impl Fold {
    /// Taps of a line.
    const TAPS: usize = 3;

    fn new(axis: Axis) -> Option<Fold> {
        let lines = match axis.kernel {
            4..=6 => 2,
            7 | 9 => 3,
            _ => return None,
        };
        let strided = axis.stride == 1 || (axis.stride == 2 && axis.dilation == 1);
        strided.then_some(Fold { axis, lines, shift: (axis.kernel as usize - Fold::TAPS) / (lines - 1) })
    }

    /// The layer over one row of inputs with the padding.
    fn lines(&self, rows: &Rows<'_, impl Element>, width: usize, outputs: usize, output_step: usize) -> Lines {
        let dilation = self.axis.dilation as usize;
        // The last line begins so much after the first.
        let shifted = (self.lines - 1) * self.shift * dilation;
        let along = Side {
            taps: Fold::TAPS,
            inputs: width - shifted,
            input_step: rows.pixel_pitch,
            outputs,
            output_step,
            stride: self.axis.stride as usize,
            before: 0,
            dilation,
        };
        let across = Side {
            taps: self.lines,
            inputs: self.lines,
            input_step: self.shift * dilation * rows.pixel_pitch,
            outputs: 1,
            output_step: 0,
            stride: 1,
            before: 0,
            dilation: 1,
        };
        Lines { along, across, zero: 0 }
    }
}

fn check<C: ChannelRules>(node: &Node<'_>) -> Result<(), BrokenRule> {
    let attributes = Attributes::read(node.attributes())?;
    let (window, input, output) = (attributes.window, node.input(0), node.output(0));
    require!(
        attributes.is_depthwise(input),
        "a group has several input channels, groups",
        attributes.groups.unwrap_or(0)
    );
    let layout = Layout::new(window, input, output).ok_or(refused("no line kernel has this window", 0))?;
    let (lines, taps) = layout.taps();
    let (weights, channels): (&[i8], &[C]) = (node.constant(0)?, node.constant(1)?);
    let count = output.shape[2] as usize;
    require!(channels.len() == count, "wrong number of channels", channels.len() as i64);
    require!(weights.len() == count * lines * taps, "wrong number of weights", weights.len() as i64);
    channels::check_clamp_of(C::Element::DTYPE, (attributes.clamp_min, attributes.clamp_max))?;
    let zero = output.zero_point;
    require!(attributes.clamps_around(output), "the clamp does not contain the output's zero point", zero);
    channels::Check::new(node.form()).blocks(channels, weights, 1, lines * taps)?;
    node.require_scratch::<C::Element>(layout.scratch_length(&window, input))
}

fn run<C: ChannelRules>(node: &Node<'_>, io: Io<'_>) {
    let attributes = Attributes::read(node.attributes()).checked();
    let (window, value, result) = (attributes.window, node.input(0), node.output(0));
    let (weights, channels): (&[i8], &[C]) =
        (node.constant(0).ok().checked_part(), node.constant(1).ok().checked_part());
    let requantization = Requantization::new(node.form(), attributes.clamp_min, attributes.clamp_max);
    let multiplier = multiplier(value, result);
    let Io { inputs, mut outputs, scratch } = io;
    let (input, output) = (inputs.get(0), outputs.take());
    match Layout::new(window, value, result).checked() {
        Layout::Lines { lines, .. } => lines.run((channels, multiplier), weights, requantization, input, output),
        Layout::Folded(fold) => {
            let scratch = scratch_elements(scratch);
            let (pitch, width) = (result.pitch as usize, result.shape[1] as usize);
            let padded = (window.horizontal.before + window.horizontal.after) as usize + value.shape[1] as usize;
            for (y, output) in output.chunks_mut(nonzero(width * pitch)).enumerate() {
                let rows = window.rows(y, value, input, scratch);
                let lines = fold.lines(&rows, padded, width, pitch);
                lines.run((channels, multiplier), weights, requantization, rows.elements, output);
            }
        }
    }
}

#[cfg(feature = "alloc")]
fn cost<C: ChannelRules>(layer: &crate::image::Layer<'_>) -> Option<crate::image::Cost> {
    let attributes = Attributes::read(&layer.attributes).ok()?;
    let (window, input, output) = (attributes.window, &layer.inputs[0], &layer.outputs[0]);
    let layout = Layout::new(window, input, output)?;
    let channels = output.shape[2] as usize;
    let (form, _) = C::pack(layer, channels, window.area()).ok()?;
    if form != ONE_PASS || !attributes.clamps_around(output) || !attributes.is_depthwise(input) {
        return None;
    }
    Some(match layout {
        Layout::Lines { lines, .. } => lines.cost(channels),
        Layout::Folded(fold) => {
            let padding = (window.horizontal.before + window.horizontal.after) as usize;
            let inputs = input.shape[2] as usize;
            let rows = Rows::<C::Element> { elements: &[], pitch: 0, pixel_pitch: inputs, first: 0 };
            let lines = fold.lines(&rows, padding + input.shape[1] as usize, output.shape[1] as usize, channels);
            let row = lines.cost(channels);
            let copied = if padding > 0 { 100 + input.shape[1] as u64 * inputs as u64 } else { 100 };
            let height = u64::from(output.shape[0]);
            crate::image::Cost { instructions: height * (row.instructions + copied), stalls: height * row.stalls }
        }
    })
}

#[cfg(feature = "alloc")]
fn pack<C: ChannelRules>(layer: &crate::image::Layer<'_>) -> Result<crate::image::Packed, crate::image::WriteError> {
    use alloc::vec::Vec;
    use zerocopy::IntoBytes;
    let attributes = Attributes::read(&layer.attributes).map_err(|broken| broken.of(super::NAME))?;
    let (window, input, output) = (attributes.window, &layer.inputs[0], &layer.outputs[0]);
    let layout =
        Layout::new(window, input, output).ok_or_else(|| layer.refused("no line kernel has this window", 0.0))?;
    let (count, area, (lines, taps)) = (output.shape[2] as usize, window.area(), layout.taps());
    let (form, channels) = C::pack(layer, count, area)?;
    let weights = layer.int8("weights", count * area)?.chunks_exact(area);
    let places: Vec<_> = (0..lines * taps).map(|place| layout.weight(place / taps, place % taps)).collect();
    let packed = weights.flat_map(|weights| places.iter().map(|place| place.map_or(0, |place| weights[place] as u8)));
    Ok(crate::image::Packed {
        form,
        constants: alloc::vec![packed.collect(), channels.as_bytes().to_vec()],
        scratch_length: layout.scratch_length(&window, input) * size_of::<C::Element>(),
        read: None,
    })
}

//! Fused convolution and residual addition: `y = add(conv2d(x), residual)`, written in place of the residual. A residual block needs memory
//! for two values instead of three.
//!
//! Each tile of output pixels is convolved to scratch memory, then added to the residual's pixels. Convolution and addition are those of
//! [`conv2d`](super) and [`add`](crate::ops::add) with their rounding and clamps: the output equals that of the two operators in sequence.
//!
//! Attributes and tensors for the writer: those of `conv2d`; `convolution_zero_point` and `convolution_scale` (float32 `[1]`) of the convolution's
//! output; and the clamp of the addition, `sum_clamp_min` and `sum_clamp_max`.
//!
//! Packed: the addition's constant, then those of the convolution. Scratch: the convolution's, then the channels of four pixels.

use core::cell::Cell;

use super::{Attributes as ConvolutionAttributes, Conv2d, LANES, macs, shape};
use crate::BrokenRule;
use crate::arena::Io;
use crate::image::Dtype;
#[cfg(feature = "alloc")]
use crate::image::{Layer, Packed, WriteError};
use crate::kernels::{Channel, LITERAL, ONE_PASS};
use crate::node::Node;
use crate::operator::{
    Alias, Checked, CheckedPart, Kernel, Operator, Output, Run, attributes, nonzero, refused, require,
};
use crate::ops::sums::Addition;

/// Kernel of the fused convolution and addition.
pub const CONV2D_ADD: Kernel = Kernel {
    id: 12,
    name: NAME,
    operator: &OPERATOR,
    inputs: &[Dtype::Int8],
    outputs: &[Dtype::Int8],
    pitched: true,
    forms: FORMS,
    check: |node| {
        let Parts { convolution, addition } = Parts::read(node)?;
        node.require_scratch::<i8>(convolution.columns_length() + LANES * convolution.pitch)?;
        convolution.check()?;
        addition.check()
    },
    run: Run::Over(run),
    #[cfg(feature = "alloc")]
    cost: |layer| Some(super::cost(layer, split(&layer.attributes).ok()?.0)? + cost_of_sum(layer)),
    #[cfg(feature = "alloc")]
    pack: |layer| pack_with(layer, super::pack::<Channel>),
};

pub(super) static OPERATOR: Operator = Operator {
    name: NAME,
    attributes: &NAMES,
    inputs: 2..=2,
    outputs: &[Output::OWN],
    alias: Alias::Never,
    shape: |node, _| {
        let (convolution, _) = split(node.attributes())?;
        let shape = shape(node, convolution)?;
        require!(
            shape == node.input(1).shape,
            "the residual's size is not the output's, elements",
            node.input(1).len() as i64
        );
        Ok(shape)
    },
    macs: |node| split(node.attributes()).map_or(0, |(convolution, _)| macs(node, convolution)),
};

const NAME: &str = "conv2d_add";

/// The estimate of the addition alone: three requantizations per output.
#[cfg(feature = "alloc")]
pub(super) fn cost_of_sum(layer: &crate::image::Layer<'_>) -> crate::image::Cost {
    let outputs = layer.outputs[0].len() as u64;
    crate::image::Cost { instructions: 33 * outputs, stalls: 26 * outputs }
}

attributes! {
    /// This operator's own attributes, which follow those of the convolution.
    struct Attributes {
        /// Zero point of the convolution's output.
        convolution_zero_point,
        sum_clamp_min,
        sum_clamp_max,
    }
}

const CONVOLUTION: usize = ConvolutionAttributes::NAMES.len();

static NAMES: [&str; CONVOLUTION + Attributes::NAMES.len()] = {
    let mut names = [""; CONVOLUTION + Attributes::NAMES.len()];
    let mut index = 0;
    while index < names.len() {
        let own = index.checked_sub(CONVOLUTION);
        names[index] = match own {
            Some(own) => Attributes::NAMES[own],
            None => ConvolutionAttributes::NAMES[index],
        };
        index += 1;
    }
    names
};

/// Splits the attributes into those of the convolution and this operator's own.
pub(super) fn split(attributes: &[i32]) -> Result<(&[i32], &[i32]), BrokenRule> {
    attributes
        .split_at_checked(CONVOLUTION)
        .ok_or_else(|| refused("wrong number of attributes", attributes.len() as i64))
}

/// The forms of both.
pub(super) const FORMS: &[u8] =
    &[form(LITERAL, LITERAL), form(ONE_PASS, LITERAL), form(LITERAL, ONE_PASS), form(ONE_PASS, ONE_PASS)];

/// Packs the requantization forms of convolution and addition into one byte.
const fn form(convolution: u8, addition: u8) -> u8 {
    convolution | addition << 1
}

/// The two operators of a node.
pub(super) struct Parts<'a> {
    pub(super) convolution: Conv2d<'a, Channel>,
    pub(super) addition: Addition,
}

impl<'a> Parts<'a> {
    /// [`Parts::read`] of a node that was checked. One function, so that the program has one place that can panic.
    #[inline(always)]
    pub(super) fn of_checked(node: &Node<'a>) -> Self {
        Parts::read(node).checked()
    }

    pub(super) fn read(node: &Node<'a>) -> Result<Self, BrokenRule> {
        let (convolution, own) = split(node.attributes())?;
        let (convolution, own) = (ConvolutionAttributes::read(convolution)?, Attributes::read(own)?);
        let zero_point = own.convolution_zero_point;
        require!((-128..=127).contains(&zero_point), "the convolution's zero point is not int8", zero_point);
        let zero_points = [zero_point, node.input(1).zero_point];
        Ok(Parts {
            convolution: Conv2d::read(node, convolution, node.form() & 1, 1, node.output(0).shape[2])?,
            addition: Addition::read(node, node.form() >> 1, zero_points, (own.sum_clamp_min, own.sum_clamp_max))?,
        })
    }
}

impl Parts<'_> {
    /// Adds the convolved pixels of a tile, contiguous, to those of the residual in `tile`.
    pub(super) fn add(&self, convolved: &mut [i8], tile: &mut [i8]) {
        let Parts { convolution: Conv2d { output, pitch: channels, .. }, addition } = self;
        // Contiguous pixels are added in one call.
        let (length, step) =
            if output.is_dense() { (LANES * channels, LANES * channels) } else { (*channels, output.pitch as usize) };
        for (convolved, tile) in convolved.chunks_mut(nonzero(length)).zip(tile.chunks_mut(nonzero(step))) {
            let [convolved, sum] = [convolved, tile].map(|bytes| Cell::from_mut(bytes).as_slice_of_cells());
            addition.run(convolved, sum, sum);
        }
    }
}

fn run(node: &Node<'_>, io: Io<'_>) {
    let parts = Parts::of_checked(node);
    let convolution = &parts.convolution;
    let Io { inputs, mut outputs, scratch } = io;
    let (columns, convolved) = scratch.split_at_mut_checked(convolution.columns_length()).checked_part();
    let add = |convolved: &mut [i8], tile: &mut [i8]| parts.add(convolved, tile);
    convolution.run(inputs.get(0), columns, outputs.take(), Some(Sum { convolved, add: &add }));
}

/// What is done with the convolution of each tile: it is added to the residual, in place.
pub(super) struct Sum<'m, T> {
    /// The convolved pixels of a tile, contiguous.
    pub(super) convolved: &'m mut [T],
    /// Adds them to the same pixels of the residual. Not a type parameter, to keep registers free for the convolution.
    pub(super) add: &'m dyn Fn(&mut [T], &mut [T]),
}

/// Fuses a convolution with the addition that is the only reader of its output.
#[cfg(feature = "alloc")]
pub(crate) const FUSION: crate::image::Fusion = crate::image::Fusion {
    parts: [super::NAME, crate::ops::add::NAME],
    operator: &OPERATOR,
    join: |convolution, addition| {
        let mut layer = convolution.clone();
        let between = convolution.outputs[0];
        let clamp = addition.attributes.iter().map(|(name, &value)| (alloc::format!("sum_{name}"), value));
        layer.attributes.extend(clamp);
        layer.attributes.insert("convolution_zero_point".into(), between.zero_point.into());
        let scale = crate::image::Tensor::Float32(alloc::vec![between.scale]);
        layer.tensors.insert("convolution_scale".into(), scale);
        layer
    },
};

/// The convolution of a layer.
#[cfg(feature = "alloc")]
pub(super) fn convolution_of<'d>(layer: &Layer<'d>) -> Result<Layer<'d>, WriteError> {
    let (attributes, own) = split(&layer.attributes).map_err(|broken| broken.of(NAME))?;
    let own = Attributes::read(own).map_err(|broken| broken.of(NAME))?;
    let mut between = layer.outputs[0];
    (between.scale, between.zero_point) = (layer.float32("convolution_scale", 1)?[0], own.convolution_zero_point);
    Ok(layer.part(&[layer.inputs[0]], between, attributes))
}

/// Packs the addition's constant, then what `pack` makes of the convolution, whose scratch memory it is.
#[cfg(feature = "alloc")]
pub(super) fn pack_parts(
    layer: &Layer<'_>,
    pack: fn(&Layer<'_>) -> Result<Packed, WriteError>,
) -> Result<Packed, WriteError> {
    let part = convolution_of(layer)?;
    let convolution = pack(&part)?;
    let addition = crate::ops::sums::pack(&layer.part(&[part.outputs[0], layer.inputs[1]], layer.outputs[0], &[]))?;
    Ok(Packed {
        form: form(convolution.form, addition.form),
        constants: addition.constants.into_iter().chain(convolution.constants).collect(),
        ..convolution
    })
}

/// [`pack_parts`] with scratch memory for the convolved channels of four pixels.
#[cfg(feature = "alloc")]
pub(super) fn pack_with(
    layer: &Layer<'_>,
    pack: fn(&Layer<'_>) -> Result<Packed, WriteError>,
) -> Result<Packed, WriteError> {
    let packed = pack_parts(layer, pack)?;
    Ok(Packed { scratch_length: packed.scratch_length + LANES * layer.outputs[0].shape[2] as usize, ..packed })
}

//! Max pooling: the largest element under the window, without the padding, clamped. Input and output share scale and zero point.
//! Bit-exact with TensorFlow Lite Micro's int8 `MAX_POOL_2D`.

use crate::BrokenRule;
use crate::arena::Io;
use crate::fixed_point::clamp_to_i8;
use crate::image::Dtype;
use crate::node::Node;
use crate::operator::{Checked, Kernel, Operator, Run};
use crate::ops::channels::check_clamp;
use crate::ops::window::{pool_operator, window_attributes};

/// Kernel of max pooling.
pub const MAX_POOL2D: Kernel = Kernel {
    id: 5,
    name: NAME,
    operator: &OPERATOR,
    inputs: &[Dtype::Int8],
    outputs: &[Dtype::Int8],
    pitched: true,
    forms: &[0],
    check,
    run: Run::Apart(run),
    #[cfg(feature = "alloc")]
    cost: |layer| Some(8 * (layer.inputs[0].len() + layer.outputs[0].len()) as u64),
    #[cfg(feature = "alloc")]
    pack: |_| Ok(Default::default()),
};

static OPERATOR: Operator = pool_operator(NAME, Attributes::NAMES);

const NAME: &str = "max_pool2d";

window_attributes!(clamp_min, clamp_max);

fn check(node: &Node<'_>) -> Result<(), BrokenRule> {
    let attributes = Attributes::read(node.attributes())?;
    node.require_no_scratch()?;
    attributes.window().check_pool(node.input(0), node.output(0))?;
    check_clamp((attributes.clamp_min, attributes.clamp_max))
}

fn run(node: &Node<'_>, io: Io<'_>) {
    let attributes = Attributes::read(node.attributes()).checked();
    let (min, max) = (attributes.clamp_min, attributes.clamp_max);
    attributes.window().pool(node, io, i32::MIN, i32::max, |largest, _| clamp_to_i8(largest, min, max));
}

//! Max pooling: the largest element under the window, the padding never counting, clamped. Input and output share scale and
//! zero point. Bit-exact with TensorFlow Lite Micro's int8 `MAX_POOL_2D`.

use crate::Error;
use crate::fixed_point::clamp_to_i8;
use crate::operator::{Checked, Io, Node, Operator};
use crate::ops::channels::check_clamp;
use crate::ops::window::window_attributes;

/// Table entry of max pooling.
pub const MAX_POOL2D: Operator = Operator {
    name: NAME,
    code: 5,
    attributes: Attributes::NAMES,
    check,
    run,
    macs: |_| 0,
    #[cfg(feature = "alloc")]
    pack: |layer| crate::image::Packed::plain(layer, Attributes::NAMES),
};

const NAME: &str = "max_pool2d";

window_attributes!(clamp_min, clamp_max);

fn check(node: &Node<'_>) -> Result<(), Error> {
    let attributes = Attributes::read(NAME, node.attributes())?;
    node.require_plain(NAME, 1)?;
    attributes.window().check_pool(NAME, node.input(0), node.output())?;
    check_clamp(NAME, (attributes.clamp_min, attributes.clamp_max))
}

fn run(node: &Node<'_>, io: &mut Io<'_>) {
    let attributes = Attributes::read(NAME, node.attributes()).checked();
    let (min, max) = (attributes.clamp_min, attributes.clamp_max);
    attributes.window().pool(node, io, i32::MIN, i32::max, |largest, _| clamp_to_i8(largest, min, max));
}

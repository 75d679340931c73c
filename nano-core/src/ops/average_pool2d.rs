//! Average pooling: the mean of the elements under the window, halves rounded away from zero, clamped. Input and output share
//! scale and zero point. With `count_include_pad` 0 the padding is left out: bit-exact with TensorFlow Lite Micro's int8
//! `AVERAGE_POOL_2D`. With 1 every position in the padding counts as a real 0, the zero point.
//! A global average is a window as large as the input.

use crate::BrokenRule;
use crate::arena::Io;
use crate::fixed_point::clamp_to_i8;
use crate::image::Dtype;
use crate::node::Node;
use crate::operator::{Checked, Kernel, Operator, Run, require};
use crate::ops::channels::check_clamp;
use crate::ops::window::{pool_operator, window_attributes};

/// Kernel of average pooling.
pub const AVERAGE_POOL2D: Kernel = Kernel {
    id: 6,
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

const NAME: &str = "average_pool2d";
/// The sum of this many int8 is at most 2^29, so rounding cannot overflow.
const LARGEST_AREA: u64 = 1 << 22;

window_attributes!(count_include_pad, clamp_min, clamp_max);

fn check(node: &Node<'_>) -> Result<(), BrokenRule> {
    let attributes = Attributes::read(node.attributes())?;
    let window = attributes.window();
    node.require_no_scratch()?;
    window.check_pool(node.input(0), node.output(0))?;
    let area = window.vertical.kernel as u64 * window.horizontal.kernel as u64;
    require!(area <= LARGEST_AREA, "the window has more than 2^22 positions", area as i64);
    let include = attributes.count_include_pad;
    require!((0..=1).contains(&include), "count_include_pad is not 0 or 1", include);
    check_clamp((attributes.clamp_min, attributes.clamp_max))
}

fn run(node: &Node<'_>, io: Io<'_>) {
    let attributes = Attributes::read(node.attributes()).checked();
    let area = attributes.window().area() as i32;
    let zero_point = node.input(0).zero_point;
    let add = |sum, element| sum + element;
    attributes.window().pool(node, io, 0, add, |mut sum, mut count| {
        if attributes.count_include_pad == 1 {
            sum += (area - count) * zero_point;
            count = area;
        }
        let half = if sum > 0 { count / 2 } else { -(count / 2) };
        // No window is empty.
        clamp_to_i8((sum + half).checked_div(count).unwrap_or(0), attributes.clamp_min, attributes.clamp_max)
    });
}

//! Average pooling: the mean of the elements under the window, halves rounded away from zero, clamped. Input and output share
//! scale and zero point. With `count_include_pad` 0 the padding is left out: bit-exact with TensorFlow Lite Micro's int8
//! and int16 `AVERAGE_POOL_2D`. With 1 every position in the padding counts as a real 0, the zero point.
//! A global average is a window as large as the input.
//!
//! **Error.** The output differs from the real mean by at most half a step, the rounding.

use crate::BrokenRule;
use crate::arena::Io;
#[cfg(feature = "host")]
use crate::image::Dtype;
use crate::image::Element;
use crate::kernels::clamp;
use crate::node::Node;
use crate::operator::{Checked, Kernel, Operator, Run, require};
use crate::ops::channels::check_clamp_of;
#[cfg(feature = "alloc")]
use crate::ops::pool_cost::{Parts, PoolCost, cost};
use crate::ops::window::{pool_operator, window_attributes};

/// Kernel of average pooling of int8.
pub const AVERAGE_POOL2D: Kernel = kernel::<i8>(6, NAME);
/// Kernel of average pooling of int16.
pub const AVERAGE_POOL2D_INT16: Kernel = kernel::<i16>(36, "average_pool2d_int16");

const fn kernel<T: Element>(id: u16, name: &'static str) -> Kernel {
    Kernel {
        id,
        name,
        operator: &OPERATOR,
        inputs: T::DTYPES,
        outputs: T::DTYPES,
        pitched: true,
        forms: &[0],
        check,
        run: Run::Apart(run::<T>),
        #[cfg(feature = "alloc")]
        cost: |layer| Some(COST.of(Attributes::read(&layer.attributes).ok()?.window(), layer)),
        #[cfg(feature = "alloc")]
        pack: |_| Ok(Default::default()),
    }
}

/// The estimate, within 3 % of counts for windows of 4 to 125 elements. An output divides, which stalls for 20 cycles.
#[cfg(feature = "alloc")]
const COST: PoolCost = PoolCost {
    row: cost(325, 71),
    pixel: cost(65, 61),
    eight: Parts { element: cost(23, 2), row: cost(6, 0), output: cost(89, 213) },
    one: Parts { element: cost(4, 0), row: cost(31, 19), output: cost(0, 23) },
};

static OPERATOR: Operator = pool_operator(NAME, Attributes::NAMES);

const NAME: &str = "average_pool2d";
window_attributes!(count_include_pad, clamp_min, clamp_max);

fn check(node: &Node<'_>) -> Result<(), BrokenRule> {
    let attributes = Attributes::read(node.attributes())?;
    let window = attributes.window();
    node.require_no_scratch()?;
    window.check_pool(node.input(0), node.output(0))?;
    let area = window.vertical.kernel as u64 * window.horizontal.kernel as u64;
    let dtype = node.output(0).dtype();
    // No overflow: kernels are at most 2^15.
    let largest = area as i64 * -i64::from(dtype.bounds().0) + area as i64 / 2;
    require!(largest < 1 << 31, "the largest sum under the window, rounded, reaches 2^31", largest);
    let include = attributes.count_include_pad;
    require!((0..=1).contains(&include), "count_include_pad is not 0 or 1", include);
    check_clamp_of(dtype, (attributes.clamp_min, attributes.clamp_max))
}

/// Prepares a node for a processor.
#[cfg(feature = "host")]
pub(super) fn host(node: &Node<'_>, processor: crate::Processor) -> alloc::boxed::Box<dyn crate::host::HostLayer> {
    match node.input(0).dtype() {
        Dtype::Int8 => crate::host::compiled(processor, run::<i8>),
        _ => crate::host::compiled(processor, run::<i16>),
    }
}

#[inline(always)]
fn run<T: Element>(node: &Node<'_>, io: Io<'_>) {
    let attributes = Attributes::read(node.attributes()).checked();
    let area = attributes.window().area() as i32;
    let zero_point = node.input(0).zero_point;
    let add = |sum, element| sum + element;
    attributes.window().pool::<T>(node, io, 0, add, |mut sum, mut count| {
        if attributes.count_include_pad == 1 {
            sum += (area - count) * zero_point;
            count = area;
        }
        let half = if sum > 0 { count / 2 } else { -(count / 2) };
        // No window is empty.
        clamp((sum + half).checked_div(count).unwrap_or(0), attributes.clamp_min, attributes.clamp_max)
    });
}

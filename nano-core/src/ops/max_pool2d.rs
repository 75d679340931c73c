//! Max pooling: the largest element under the window, without the padding, clamped. Input and output share scale and zero point.
//! Bit-exact with TensorFlow Lite Micro's int8 and int16 `MAX_POOL_2D`.

use crate::BrokenRule;
use crate::arena::Io;
#[cfg(feature = "host")]
use crate::image::Dtype;
use crate::image::Element;
use crate::kernels::clamp;
use crate::node::Node;
use crate::operator::{Checked, Kernel, Operator, Run};
use crate::ops::channels::check_clamp_of;
#[cfg(feature = "alloc")]
use crate::ops::pool_cost::{Parts, PoolCost, cost};
use crate::ops::window::{pool_operator, window_attributes};

/// Kernel of max pooling of int8.
pub const MAX_POOL2D: Kernel = kernel::<i8>(5, NAME);
/// Kernel of max pooling of int16.
pub const MAX_POOL2D_INT16: Kernel = kernel::<i16>(35, "max_pool2d_int16");

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

/// The estimate, within 3 % of counts for windows of 4 to 64 elements.
#[cfg(feature = "alloc")]
const COST: PoolCost = PoolCost {
    row: cost(261, 156),
    pixel: cost(59, 59),
    eight: Parts { element: cost(41, 12), row: cost(3, 8), output: cost(45, 57) },
    one: Parts { element: cost(8, 1), row: cost(20, 13), output: cost(0, 0) },
};

static OPERATOR: Operator = pool_operator(NAME, Attributes::NAMES);

const NAME: &str = "max_pool2d";

window_attributes!(clamp_min, clamp_max);

fn check(node: &Node<'_>) -> Result<(), BrokenRule> {
    let attributes = Attributes::read(node.attributes())?;
    node.require_no_scratch()?;
    attributes.window().check_pool(node.input(0), node.output(0))?;
    check_clamp_of(node.output(0).dtype(), (attributes.clamp_min, attributes.clamp_max))
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
    let (min, max) = (attributes.clamp_min, attributes.clamp_max);
    attributes.window().pool::<T>(node, io, i32::MIN, i32::max, |largest, _| clamp(largest, min, max));
}

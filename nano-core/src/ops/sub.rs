//! Elementwise subtraction with broadcasting: `y = clamp(x_1 - x_2)`, with the arithmetic of [`sums`].
//! Bit-exact with TensorFlow Lite Micro's int8 and int16 `SUB`.

use crate::image::Element;
use crate::operator::{Kernel, Operator, Run};
use crate::ops::{pairwise, sums};

/// Kernel of the subtraction of int8.
pub const SUB: Kernel = kernel::<i8>(15, NAME);
/// Kernel of the subtraction of int16.
pub const SUB_INT16: Kernel = kernel::<i16>(33, "sub_int16");

const fn kernel<T: Element>(id: u16, name: &'static str) -> Kernel {
    Kernel {
        id,
        name,
        operator: &OPERATOR,
        inputs: T::DTYPES,
        outputs: T::DTYPES,
        pitched: true,
        forms: sums::FORMS,
        check: sums::check,
        run: Run::InPlace(|node, memory| sums::run::<T>(node, memory, |a, b| a - b)),
        #[cfg(feature = "alloc")]
        cost: |layer| Some(crate::image::Cost::instructions(32 * layer.outputs[0].len() as u64)),
        #[cfg(feature = "alloc")]
        pack: sums::pack,
    }
}

static OPERATOR: Operator = pairwise::operator(NAME);

/// Prepares a node for a processor.
#[cfg(feature = "host")]
pub(super) fn host(
    node: &crate::Node<'_>,
    processor: crate::Processor,
) -> alloc::boxed::Box<dyn crate::host::HostLayer> {
    match node.output(0).dtype() {
        crate::image::Dtype::Int8 => {
            crate::host::compiled_in_place(processor, |node, memory| sums::run::<i8>(node, memory, |a, b| a - b))
        }
        _ => crate::host::compiled_in_place(processor, |node, memory| sums::run::<i16>(node, memory, |a, b| a - b)),
    }
}

const NAME: &str = "sub";

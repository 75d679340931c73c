//! Elementwise addition with broadcasting: `y = clamp(x_1 + x_2)`, with the arithmetic of [`sums`].
//! Bit-exact with TensorFlow Lite Micro's int8 and int16 `ADD`.

use crate::image::Element;
use crate::operator::{Kernel, Operator, Run};
use crate::ops::{pairwise, sums};

/// Kernel of the addition of int8.
pub const ADD: Kernel = kernel::<i8>(4, NAME);
/// Kernel of the addition of int16.
pub const ADD_INT16: Kernel = kernel::<i16>(32, "add_int16");

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
        run: Run::InPlace(|node, memory| sums::run::<T>(node, memory, |a, b| a + b)),
        #[cfg(feature = "alloc")]
        cost: |layer| {
            let outputs = layer.outputs[0].len() as u64;
            Some(crate::image::Cost { instructions: 32 * outputs, stalls: 20 * outputs })
        },
        #[cfg(feature = "alloc")]
        pack: sums::pack,
    }
}

static OPERATOR: Operator = pairwise::operator(NAME);

pub(super) const NAME: &str = "add";

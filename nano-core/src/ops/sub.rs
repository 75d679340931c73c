//! Elementwise subtraction with broadcasting: `y = clamp(x_1 - x_2)`, with the arithmetic of [`sums`].
//! Bit-exact with TensorFlow Lite Micro's int8 `SUB`.

use crate::image::Dtype;
use crate::operator::{Kernel, Operator, Run};
use crate::ops::{pairwise, sums};

/// Kernel of the subtraction.
pub const SUB: Kernel = Kernel {
    id: 15,
    name: NAME,
    operator: &OPERATOR,
    inputs: &[Dtype::Int8],
    outputs: &[Dtype::Int8],
    pitched: true,
    forms: sums::FORMS,
    check: sums::check,
    run: Run::InPlace(|node, memory| sums::run(node, memory, |a, b| a - b)),
    #[cfg(feature = "alloc")]
    cost: |layer| Some(32 * layer.outputs[0].len() as u64),
    #[cfg(feature = "alloc")]
    pack: sums::pack,
};

static OPERATOR: Operator = pairwise::operator(NAME);

const NAME: &str = "sub";

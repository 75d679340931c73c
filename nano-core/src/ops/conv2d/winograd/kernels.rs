//! The kernels: convolutions, and those fused with a residual addition.

use core::cell::Cell;

use super::Winograd;
use super::f2::F2;
use super::f4::F4;
use super::transform::Transform;
use crate::arena::Io;
use crate::image::Dtype;
use crate::kernels::{LITERAL, ONE_PASS};
use crate::operator::{Kernel, Run};
use crate::ops::conv2d::{Conv2d, OPERATOR, add};

/// Winograd F(4x4, 3x3), weights transformed in each run.
pub const CONV2D_WINOGRAD4: Kernel = kernel::<F4, 6, 4, false>(52, "conv2d_winograd4");
/// Winograd F(4x4, 3x3), weights stored transformed.
pub const CONV2D_WINOGRAD4_TRANSFORMED: Kernel = kernel::<F4, 6, 4, true>(53, "conv2d_winograd4_transformed");
/// Winograd F(4x4, 3x3) fused with a residual addition, weights transformed in each run.
pub const CONV2D_ADD_WINOGRAD4: Kernel = add_kernel::<F4, 6, 4>(54, "conv2d_add_winograd4");
/// Winograd F(2x2, 3x3), weights transformed in each run.
pub const CONV2D_WINOGRAD2: Kernel = kernel::<F2, 4, 2, false>(55, "conv2d_winograd2");
/// Winograd F(2x2, 3x3) fused with a residual addition, weights transformed in each run.
pub const CONV2D_ADD_WINOGRAD2: Kernel = add_kernel::<F2, 4, 2>(56, "conv2d_add_winograd2");

const fn kernel<T: Transform<SIDE, OUTPUTS>, const SIDE: usize, const OUTPUTS: usize, const STORED: bool>(
    id: u16,
    name: &'static str,
) -> Kernel {
    Kernel {
        id,
        name,
        operator: &OPERATOR,
        inputs: &[Dtype::Int8],
        outputs: &[Dtype::Int8],
        pitched: true,
        forms: &[LITERAL, ONE_PASS],
        check: |node| Winograd::<T, SIDE, OUTPUTS>::new(Conv2d::of(node)?, STORED).check(node),
        run: Run::Apart(|node, io| {
            let Io { inputs, mut outputs, scratch } = io;
            // `check` has read it.
            let Ok(convolution) = Conv2d::of(node) else { return };
            let winograd = Winograd::<T, SIDE, OUTPUTS>::new(convolution, STORED);
            winograd.run(inputs.get(0), scratch, outputs.take(), None);
        }),
        #[cfg(feature = "alloc")]
        cost: super::pack::cost::<T, SIDE, OUTPUTS, STORED>,
        #[cfg(feature = "alloc")]
        pack: super::pack::pack::<T, SIDE, OUTPUTS, STORED>,
    }
}

const fn add_kernel<T: Transform<SIDE, OUTPUTS>, const SIDE: usize, const OUTPUTS: usize>(
    id: u16,
    name: &'static str,
) -> Kernel {
    Kernel {
        id,
        name,
        operator: &add::OPERATOR,
        inputs: &[Dtype::Int8],
        outputs: &[Dtype::Int8],
        pitched: true,
        forms: add::FORMS,
        check: |node| {
            let add::Parts { convolution, addition } = add::Parts::read(node)?;
            Winograd::<T, SIDE, OUTPUTS>::new(convolution, false).check(node)?;
            addition.check()
        },
        run: Run::Over(|node, io| {
            // `check` has read them.
            let Ok(add::Parts { convolution, addition }) = add::Parts::read(node) else { return };
            let Io { inputs, mut outputs, scratch } = io;
            let add = |convolved: &[Cell<i8>], residual: &[Cell<i8>]| addition.run(convolved, residual, residual);
            let winograd = Winograd::<T, SIDE, OUTPUTS>::new(convolution, false);
            winograd.run(inputs.get(0), scratch, outputs.take(), Some(&add));
        }),
        #[cfg(feature = "alloc")]
        cost: |layer| {
            let part = add::convolution_of(layer).ok()?;
            let cost = super::pack::cost::<T, SIDE, OUTPUTS, false>(&part)?;
            Some(cost + add::cost_of_sum(layer))
        },
        #[cfg(feature = "alloc")]
        pack: |layer| add::pack_parts(layer, super::pack::pack::<T, SIDE, OUTPUTS, false>),
    }
}

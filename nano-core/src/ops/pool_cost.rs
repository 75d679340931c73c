//! The estimate of pools.

use crate::image::{Cost, Layer};
use crate::ops::window::Window;

/// What the parts of a pool take: of an output pixel, of its groups of eight channels, and of its channels left over.
pub(crate) struct PoolCost {
    /// For each row of outputs.
    pub(crate) row: Cost,
    /// For each output pixel.
    pub(crate) pixel: Cost,
    /// For eight channels.
    pub(crate) eight: Parts,
    /// For one channel.
    pub(crate) one: Parts,
}

/// What folding takes for some channels of one output pixel.
pub(crate) struct Parts {
    /// For each element under the window.
    pub(crate) element: Cost,
    /// For each row of the window.
    pub(crate) row: Cost,
    /// To begin, and to write the result.
    pub(crate) output: Cost,
}

/// A [`Cost`] in instructions and stalls.
pub(crate) const fn cost(instructions: u64, stalls: u64) -> Cost {
    Cost { instructions, stalls }
}

impl PoolCost {
    /// The estimate of one run of a pool with this window.
    pub(crate) fn of(&self, window: Window, layer: &Layer<'_>) -> Cost {
        let (input, [height, width, channels]) = (&layer.inputs[0], layer.outputs[0].shape);
        let covered = |outputs: u32, of: &dyn Fn(usize) -> usize| (0..outputs as usize).map(of).sum::<usize>() as u64;
        let rows = covered(height, &|row| window.vertical.covered(row, input.shape[0]).1);
        let columns = covered(width, &|column| window.horizontal.covered(column, input.shape[1]).1);
        let (width, pixels) = (u64::from(width), u64::from(height) * u64::from(width));
        let of_window = |parts: &Parts, count: u32| {
            let one =
                times(parts.element, rows * columns) + times(parts.row, rows * width) + times(parts.output, pixels);
            times(one, count.into())
        };
        let of_pixels = times(self.row, height.into()) + times(self.pixel, pixels);
        of_pixels + of_window(&self.eight, channels / 8) + of_window(&self.one, channels % 8)
    }
}

fn times(cost: Cost, count: u64) -> Cost {
    let [instructions, stalls] = [cost.instructions, cost.stalls].map(|each| each.saturating_mul(count));
    Cost { instructions, stalls }
}

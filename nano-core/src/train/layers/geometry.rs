//! Windows over height, width and channels: their checks, and the pixels under them.

use core::ops::Range;

use super::record::{LayerRecord, Operation};
use crate::Error;

/// The most inputs of an output, outputs, and pixels along a side.
const LARGEST_SIDE: u32 = 1 << 15;
/// The most values of a layer, and the most of its outputs that read one input.
const LARGEST_VALUES: u64 = 1 << 20;

/// The number of pixels of a height and width.
pub(super) fn area([height, width]: [u32; 2]) -> usize {
    height as usize * width as usize
}

/// The number of values of height, width and channels.
pub(super) fn volume([height, width, channels]: [u32; 3]) -> u64 {
    (u64::from(height) * u64::from(width)).saturating_mul(channels.into())
}

/// Checks sizes and window of a layer, so that each window covers at least a pixel, and nothing overflows.
pub(super) fn check(layer: &LayerRecord) -> Result<(), Error> {
    let field = |name, value: i64| Err(Error::Field { name, value });
    let LayerRecord { input, output, kernel, stride, padding, .. } = *layer;
    let sides = input.iter().chain(&output).chain(&kernel).chain(&stride);
    if let Some(&wrong) = sides.into_iter().find(|side| !(1..=LARGEST_SIDE).contains(*side)) {
        return field("trained layer's inputs or outputs", wrong.into());
    }
    if volume(input) > LARGEST_VALUES || volume(output) > LARGEST_VALUES {
        return field("trained layer's positions", volume(output).min(volume(input)) as i64);
    }
    for side in 0..2 {
        let (begin, end) = (padding[side], input[side].saturating_add(padding[side]));
        if begin >= kernel[side] {
            return field("trained layer's padding", begin.into());
        }
        if u64::from(output[side] - 1) * u64::from(stride[side]) >= u64::from(end) {
            return field("trained layer's stride", stride[side].into());
        }
    }
    let taps = volume([kernel[0], kernel[1], 1]);
    let inputs = if layer.operation() == Operation::Convolution { taps * u64::from(input[2]) } else { taps };
    if inputs > LARGEST_SIDE.into()
        || taps.min(volume([output[0], output[1], 1])) * u64::from(output[2]) > LARGEST_VALUES
    {
        return field("trained layer's inputs", inputs as i64);
    }
    let same_channels = layer.operation() == Operation::Convolution || input[2] == output[2];
    let same_size = layer.operation() != Operation::Add || input == output && (kernel, stride) == ([1, 1], [1, 1]);
    if !same_channels || !same_size {
        return field("trained layer's outputs", output[2].into());
    }
    Ok(())
}

/// Pixels of one row of the input that lie under a window.
pub(super) struct Segment {
    /// The first one's number in the window, and in the input.
    pub tap: usize,
    pub pixel: usize,
    pub count: usize,
}

impl Segment {
    /// The pixels' places in an array of `channels` values per pixel.
    pub fn pixels(&self, channels: usize) -> Range<usize> {
        self.pixel * channels..(self.pixel + self.count) * channels
    }

    /// The taps' places in a row of `channels` weights per tap.
    pub fn taps(&self, channels: usize) -> Range<usize> {
        self.tap * channels..(self.tap + self.count) * channels
    }
}

impl LayerRecord {
    /// The part of the window of an output pixel that lies in the input, row by row.
    pub fn window(&self, position: usize) -> impl Iterator<Item = Segment> + use<> {
        let size = |side: usize| self.input[side] as usize;
        let along = |side: usize, index: usize| {
            let (start, padding) = (index * self.stride[side] as usize, self.padding[side] as usize);
            let first = padding.saturating_sub(start);
            let end = (self.kernel[side] as usize).min((size(side) + padding).saturating_sub(start));
            (first..end.max(first), (start + first).saturating_sub(padding))
        };
        let columns = self.output[1].max(1) as usize;
        let ((rows, top), (taps, left)) = (along(0, position / columns), along(1, position % columns));
        let (width, kernel_width) = (size(1), self.kernel[1] as usize);
        rows.zip(top..).map(move |(row, y)| Segment {
            tap: row * kernel_width + taps.start,
            pixel: y * width + left,
            count: taps.len(),
        })
    }
}

//! The padded copy of an image that windows move over.

use super::processor::Instructions;
use crate::image::Value;
use crate::ops::window::Window;

/// Bytes of an element that the instructions multiply.
pub(crate) const fn size<I: Instructions>() -> usize {
    4 / I::GROUP
}

/// How an image is copied: with rows and columns of padding.
#[derive(Clone, Copy)]
pub(crate) struct Padded {
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) channels: usize,
    /// Elements from one pixel of the original to the next.
    pub(crate) pitch: usize,
    pub(crate) top: usize,
    pub(crate) left: usize,
    /// Rows and columns of the copy.
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    /// Each row of the copy has so many planes: of every so many columns, from the first, the second and so on.
    pub(crate) planes: usize,
    pub(crate) padding: i8,
}

impl Padded {
    /// The copy of an image with the padding of a window.
    pub(crate) fn new(image: &Value, Window { vertical, horizontal }: Window) -> Padded {
        let [height, width, channels] = image.shape.map(|size| size as usize);
        Padded {
            height,
            width,
            channels,
            pitch: image.pitch as usize,
            top: vertical.before as usize,
            left: horizontal.before as usize,
            rows: height + (vertical.before + vertical.after) as usize,
            columns: width + (horizontal.before + horizontal.after) as usize,
            planes: 1,
            padding: image.zero_point as i8,
        }
    }

    /// The copy in so many planes.
    pub(crate) fn in_planes(self, planes: usize) -> Padded {
        Padded { planes, columns: self.columns.next_multiple_of(planes), ..self }
    }

    /// Elements from the start of a row of the copy to a column.
    pub(crate) fn place(&self, column: usize) -> usize {
        (column % self.planes * (self.columns / self.planes) + column / self.planes) * self.channels
    }

    /// Bytes that the copy takes, and that may be read after it: a vector.
    pub(crate) fn bytes<I: Instructions>(&self) -> usize {
        self.rows * self.columns * self.channels * size::<I>() + 64
    }

    /// Writes the copy to the start of `copy`.
    ///
    /// # Safety
    /// The processor has the instructions.
    #[inline(always)]
    pub(crate) unsafe fn copy<I: Instructions>(&self, image: &[i8], copy: &mut [u8]) {
        let size = size::<I>();
        let row_length = self.columns * self.channels;
        let inside = self.width.min(self.columns.saturating_sub(self.left)) * self.channels;
        for (row, to) in copy.chunks_exact_mut(row_length * size).take(self.rows).enumerate() {
            let Some(y) = row.checked_sub(self.top).filter(|&y| y < self.height) else {
                // SAFETY: the caller's.
                unsafe { self.pad::<I>(to) };
                continue;
            };
            let from = &image[y * self.width * self.pitch..];
            if self.planes > 1 {
                // SAFETY: the caller's.
                unsafe {
                    self.pad::<I>(to);
                    // Copies of so few elements are fast if the compiler knows their length.
                    match self.channels {
                        8 => self.copy_to_planes::<I, 8>(from, to),
                        16 => self.copy_to_planes::<I, 16>(from, to),
                        32 => self.copy_to_planes::<I, 32>(from, to),
                        64 => self.copy_to_planes::<I, 64>(from, to),
                        _ => {
                            for (column, pixel) in self.pixels(from) {
                                let to = &mut to[self.place(column) * size..][..self.channels * size];
                                I::convert(&pixel[..self.channels], to);
                            }
                        }
                    }
                }
                continue;
            }
            let (left, to) = to.split_at_mut(self.left * self.channels * size);
            // SAFETY: the caller's.
            unsafe { self.pad::<I>(left) };
            let (to, right) = to.split_at_mut(inside * size);
            // SAFETY: the caller's.
            unsafe { self.pad::<I>(right) };
            if self.pitch == self.channels {
                // SAFETY: the caller's.
                unsafe { I::convert(&from[..inside], to) };
            } else {
                let pixels = from.chunks(self.pitch);
                for (pixel, to) in pixels.zip(to.chunks_exact_mut(self.channels * size)) {
                    // SAFETY: the caller's.
                    unsafe { I::convert(&pixel[..self.channels], to) };
                }
            }
        }
    }

    /// The pixels of a row, with their columns in the copy.
    fn pixels<'a>(&self, row: &'a [i8]) -> impl Iterator<Item = (usize, &'a [i8])> {
        (self.left..self.columns).zip(row.chunks(self.pitch).take(self.width))
    }

    /// Copies a row of `C` channels to planes.
    #[inline(always)]
    unsafe fn copy_to_planes<I: Instructions, const C: usize>(&self, from: &[i8], to: &mut [u8]) {
        let (step, of_plane) = (C * size::<I>(), self.columns / self.planes * C * size::<I>());
        for (plane, to) in to.chunks_exact_mut(of_plane).enumerate() {
            // The first column of the plane that is not padding.
            let skipped = self.left.saturating_sub(plane).div_ceil(self.planes);
            let first = skipped * self.planes + plane - self.left;
            let pixels = (first..self.width).step_by(self.planes).map(|x| &from[x * self.pitch..][..C]);
            for (pixel, to) in pixels.zip(to[skipped * step..].chunks_exact_mut(step)) {
                // SAFETY: the caller's.
                unsafe { I::convert(pixel, to) };
            }
        }
    }

    /// Fills a part of the copy with padding.
    #[inline(always)]
    unsafe fn pad<I: Instructions>(&self, part: &mut [u8]) {
        let padding = [self.padding; 64];
        for to in part.chunks_mut(padding.len() * size::<I>()) {
            // SAFETY: the caller's.
            unsafe { I::convert(&padding[..to.len() / size::<I>()], to) };
        }
    }
}

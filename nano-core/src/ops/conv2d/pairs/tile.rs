//! GEMM of the output channels of four pixels, or fewer at the end.

use crate::kernels::{Channel, LANES, Literal, OnePass, PairedColumn, Requantization, dot_pairs, dot_pairs_4x4};
use crate::operator::{Checked, CheckedPart, nonzero, unchecked};

/// The columns of a tile of output pixels, and where these lie.
pub(super) struct Block<'a> {
    pub(super) requantization: Requantization,
    pub(super) columns: &'a [PairedColumn],
    /// Elements from one pixel of the output to the next.
    pub(super) pitch: usize,
}

impl Block<'_> {
    /// Computes `channels` of a tile of `pixels` from their blocks of weights.
    pub(super) fn all(&self, channels: &[Channel], weights: &[i8], tile: &mut [i8], pixels: usize) {
        let (full, rest) = channels.as_chunks();
        let (weights, of_rest) =
            weights.split_at_checked(full.as_flattened().len() * self.columns.len()).checked_part();
        let (weights, rest, of_rest) = (weights.as_chunks().0, rest.as_chunks().0, of_rest.as_chunks().0);
        if pixels == LANES {
            self.row::<4, 2>(full, weights, tile);
            if !rest.is_empty() {
                self.row::<1, 2>(rest, of_rest, tile.get_mut(full.as_flattened().len()..).checked_part());
            }
            return;
        }
        let mut whole = [[0; LANES]; LANES];
        let block = Block { pitch: LANES, ..*self };
        let mut left = weights;
        for (index, channels) in full.iter().enumerate() {
            let Some((weights, after)) = left.split_at_checked(self.columns.len()) else { break };
            left = after;
            let channels = core::slice::from_ref(channels);
            match pixels {
                3 => block.row::<4, 2>(channels, weights, whole.as_flattened_mut()),
                _ => block.row::<4, 1>(channels, weights, whole.as_flattened_mut()),
            }
            self.copy(&whole, LANES, tile.get_mut(LANES * index..).checked_part(), pixels);
        }
        if !rest.is_empty() {
            block.row::<1, 2>(rest, of_rest, whole.as_flattened_mut());
            self.copy(&whole, rest.len(), tile.get_mut(full.as_flattened().len()..).checked_part(), pixels);
        }
    }

    /// Copies the first channels of the first pixels of a tile.
    #[inline(never)]
    fn copy(&self, whole: &[[i8; LANES]; LANES], channels: usize, tile: &mut [i8], pixels: usize) {
        for (pixel, whole) in tile.chunks_mut(nonzero(self.pitch)).zip(whole).take(pixels) {
            pixel.iter_mut().zip(whole).take(channels).for_each(|(output, &whole)| *output = whole);
        }
    }

    /// Computes blocks of `N` channels for the first `2 * PAIRS` pixels of a whole tile.
    #[inline(never)]
    fn row<const N: usize, const PAIRS: usize>(&self, channels: &[[Channel; N]], weights: &[[i8; N]], tile: &mut [i8]) {
        let &Block { requantization, columns, pitch } = self;
        let weighted = weights.len() >= columns.len() * channels.len();
        if !weighted || columns.is_empty() || tile.len() < (LANES - 1) * pitch + N * channels.len() {
            unchecked();
        }
        let mut rest = weights;
        for (index, channels) in channels.iter().enumerate() {
            // Not by `chunks_exact`, whose division costs 30 cycles.
            let Some((weights, after)) = rest.split_at_checked(columns.len()) else { break };
            rest = after;
            let bias = channels.each_ref().map(|channel| channel.bias);
            let sums = if N == LANES && PAIRS == 2 {
                let (bias, weights) = (bias.first_chunk().checked(), weights.as_flattened().as_chunks().0);
                *dot_pairs_4x4(*bias, columns, weights).first_chunk().checked()
            } else {
                dot_pairs::<N, PAIRS>(bias, columns, weights)
            };
            if !requantization.is_one_pass() {
                self.write_literally(channels, &{ sums }, tile.get_mut(index * N..).checked_part(), 2 * PAIRS);
                continue;
            }
            let first = tile.as_mut_ptr().wrapping_add(index * N);
            for (lane, (channel, sums)) in channels.iter().zip(&sums).enumerate() {
                for (pixel, &sum) in sums.iter().take(2 * PAIRS).enumerate() {
                    // SAFETY: pixel < LANES and lane < N, and the length was checked above. A check per element costs 3 instructions per
                    // output.
                    unsafe { *first.add(pixel * pitch + lane) = requantization.apply_as::<OnePass>(channel, sum) };
                }
            }
        }
    }

    /// Requantizes a block in the literal form.
    // One function for blocks of any number of channels: the form is rare, and code for each number takes 5 KB.
    #[cold]
    #[inline(never)]
    fn write_literally(&self, channels: &[Channel], sums: &[[i32; LANES]], tile: &mut [i8], pixels: usize) {
        for (lane, (channel, sums)) in channels.iter().zip(sums).enumerate() {
            for (pixel, &sum) in sums.iter().take(pixels).enumerate() {
                if let Some(output) = tile.get_mut(pixel * self.pitch + lane) {
                    *output = self.requantization.apply_as::<Literal>(channel, sum);
                }
            }
        }
    }
}

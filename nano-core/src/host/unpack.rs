//! Weights as the writer got them, `[channel][input]`, from packed ones.

use alloc::vec::Vec;

use crate::kernels::channel_pairs;

/// From blocks of channels, each `[input][width]`, whose first `count` lanes are channels; the `(count, width)` of each.
pub(crate) fn from_blocks(
    packed: &[i8],
    blocks: impl IntoIterator<Item = (usize, usize)>,
    inputs: usize,
) -> Option<Vec<i8>> {
    let mut weights = Vec::with_capacity(packed.len());
    let mut rest = packed;
    for (count, width) in blocks {
        let (block, after) = rest.split_at_checked(width * inputs)?;
        for lane in 0..count {
            weights.extend(block.iter().skip(lane).step_by(width));
        }
        rest = after;
    }
    Some(weights)
}

/// Blocks of `width` channels, the last of which may have fewer.
pub(crate) fn blocks_of(channels: usize, width: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..channels).step_by(width).map(move |first| ((channels - first).min(width), width))
}

/// From words of pairs of channels and of inputs (`kernels/channel_pairs.rs`).
pub(crate) fn from_channel_pairs(words: &[u32], channels: usize, inputs: usize) -> Option<Vec<i8>> {
    let mut weights = alloc::vec![0; channels * inputs];
    let rows = channel_pairs::rows(inputs);
    let (mut words, mut first) = (words.get(channel_pairs::LEAD..)?, 0);
    for width in channel_pairs::blocks(channels) {
        let (block, after) = words.split_at_checked(width * rows)?;
        for (index, &word) in block.iter().enumerate() {
            let (row, pair) = (index / width, index % width);
            for lane in 0..2 {
                let channel = first + 2 * pair + lane;
                for (place, weight) in channel_pairs::weights(word, lane).into_iter().enumerate() {
                    let input = (2 * row + place).checked_sub(inputs % 2);
                    if let Some(input) = input.filter(|_| channel < channels) {
                        weights[channel * inputs + input] = weight as i8;
                    }
                }
            }
        }
        (words, first) = (after, first + 2 * width);
    }
    Some(weights)
}

//! The parts of a [`LayersHead`](super::LayersHead)'s state.

use core::ops::Range;

use zerocopy::little_endian::U32;

use super::record::LayerRecord;
use crate::operator::CheckedPart;

/// int16 of the state before the weights.
fn prefix(layers: &[LayerRecord]) -> usize {
    2 * (layers.len() + 1)
}

/// Splits the state into exponents and random state, and weights.
pub(super) fn parts<'s>(state: &'s [i16], layers: &[LayerRecord]) -> (&'s [U32], &'s [i16]) {
    let (words, weights) = state.split_at_checked(prefix(layers)).checked_part();
    (zerocopy::transmute_ref!(words.as_chunks::<2>().0), weights)
}

/// [`parts`], mutable.
pub(super) fn parts_mut<'s>(state: &'s mut [i16], layers: &[LayerRecord]) -> (&'s mut [U32], &'s mut [i16]) {
    let (words, weights) = state.split_at_mut_checked(prefix(layers)).checked_part();
    (zerocopy::transmute_mut!(words.as_chunks_mut::<2>().0), weights)
}

/// The layers, each with its share of the learnt weights.
pub(super) fn by_layer<'a, 'w, T>(
    layers: &'a [LayerRecord],
    mut weights: &'w [T],
) -> impl Iterator<Item = (&'a LayerRecord, &'w [T])> {
    layers.iter().map_while(move |layer| Some((layer, weights.split_off(..layer.learnt_weights())?)))
}

/// Where layer `index` is in an array that holds all layers' parts of this size in order.
pub(super) fn span(layers: &[LayerRecord], index: usize, size: fn(&LayerRecord) -> usize) -> Range<usize> {
    let start = layers.iter().take(index).map(size).sum();
    start..start + layers.get(index).map_or(0, size)
}

/// The weights of layer `index`, learnt or of the image.
pub(super) fn weights_of<'w>(layers: &[LayerRecord], initial: &'w [i16], learnt: &'w [i16], index: usize) -> &'w [i16] {
    let learns = layers.get(index).is_some_and(LayerRecord::learns);
    let weights = match learns {
        true => learnt.get(span(layers, index, LayerRecord::learnt_weights)),
        false => initial.get(span(layers, index, LayerRecord::weights)),
    };
    weights.checked_part()
}

//! Packing on the host: compresses tables of element indices to strided loops.

use alloc::vec::Vec;

use zerocopy::IntoBytes;

use super::strided::{Strided, ZERO};
use super::{Attributes, NAME};
use crate::image::{Layer, Packed, Value, WriteError};

/// The three packed tables of a node, of bytes: rows, columns, channels.
pub(super) struct Tables([Vec<Strided>; 3]);

/// Packs the tables of a layer with the longest blocks possible, for the pitches of its values.
///
/// # Errors
/// If a tensor is missing or has the wrong length, an entry is not in -1 to 2^28 - 1, the entries do not match the attributes `first` and
/// `pitch`, or no tables fit the pitches.
pub(super) fn tables(layer: &Layer<'_>) -> Result<Tables, WriteError> {
    let Attributes { rows, columns, channels, first, pitch } =
        Attributes::read(&layer.attributes).map_err(|broken| broken.of(NAME))?;
    let [rows, columns, channels] = [("rows", rows), ("columns", columns), ("channels", channels)]
        .map(|(name, length)| layer.int32(name, length as usize));
    let [rows, columns, channels] = [rows?, columns?, channels?];
    let mut entries = rows.iter().chain(columns).chain(channels);
    if let Some(&entry) = entries.find(|&&entry| !(ZERO..Value::LARGEST as i32).contains(&entry)) {
        return Err(layer.refused("an entry of a table is not -1 to 2^28 - 1", entry.into()));
    }
    let lines = joined(columns, channels);
    if pitch > 0 {
        let pixels = joined(rows, &lines).into_iter().zip(0..);
        let of_pixel = layer.outputs[0].shape[2] as i32;
        let expected = |index: i32| first + index / of_pixel * pitch + index % of_pixel;
        if let Some((entry, _)) = pixels.into_iter().find(|&(entry, index)| entry != expected(index)) {
            return Err(layer.refused("the tables are not those of the part of the input", entry.into()));
        }
    }
    let (input, output) = (&layer.inputs[0], &layer.outputs[0]);
    let all = joined(rows, &lines);
    let in_dense =
        [[rows, columns, channels].map(<[i32]>::to_vec), [zero(), rows.to_vec(), lines], [zero(), zero(), all]];
    let mut candidates = match input.is_dense() {
        true => Vec::from(in_dense),
        false => in_dense.iter().filter_map(|tables| in_memory(tables, input)).collect(),
    };
    if !output.is_dense() {
        let of_pixel = output.shape[2] as usize;
        candidates.extend(candidates.last().and_then(|[_, _, all]| split(all, of_pixel)));
        candidates.retain(|[_, _, line]| line.len() == of_pixel);
    }
    // Of equal ones the last, as joined tables make longer blocks.
    let packed =
        candidates.into_iter().rev().map(|tables| Tables(in_bytes(tables, output).map(|table| compress(&table))));
    let fewest = packed.min_by_key(Tables::number);
    fewest.ok_or_else(|| layer.refused("no tables fit the pitches, pitch of the output", output.pitch.into()))
}

/// The tables of bytes instead of elements.
fn in_bytes([rows, columns, channels]: [Vec<i32>; 3], value: &Value) -> [Vec<i32>; 3] {
    let size = value.dtype().size() as i32;
    let scaled =
        |table: Vec<i32>| table.into_iter().map(|entry| if entry == ZERO { ZERO } else { entry * size }).collect();
    let of_element: Vec<i32> = (0..size).collect();
    let channels: Vec<i32> = scaled(channels);
    [scaled(rows), scaled(columns), joined(&channels, &of_element)]
}

/// A table that adds nothing.
fn zero() -> Vec<i32> {
    Vec::from([0])
}

/// The tables for the memory of an input whose pixels are not contiguous; `None` if the sums of entries are then no sums of three tables, or an
/// entry lies outside of the input.
fn in_memory(tables: &[Vec<i32>; 3], input: &Value) -> Option<[Vec<i32>; 3]> {
    let [channels, pitch] = [input.shape[2], input.pitch].map(|size| size as i32);
    let place = |&entry: &i32| if entry == ZERO { ZERO } else { entry / channels * pitch + entry % channels };
    let join = |[rows, columns, channels]: &[Vec<i32>; 3]| joined(rows, &joined(columns, channels));
    let placed = |table: &Vec<i32>| -> Option<Vec<i32>> {
        let is_inside = |&entry: &i32| entry < input.len() as i32;
        table.iter().all(is_inside).then(|| table.iter().map(place).collect())
    };
    let [rows, columns, channels] = tables;
    let moved = [placed(rows)?, placed(columns)?, placed(channels)?];
    (Some(join(&moved)) == placed(&join(tables))).then_some(moved)
}

/// A table of all elements as the sum of a table of pixels and one of a pixel's channels, if it is one.
fn split(all: &[i32], channels: usize) -> Option<[Vec<i32>; 3]> {
    let lowest = |pixel: &[i32]| pixel.iter().copied().filter(|&entry| entry != ZERO).min();
    let pixels = all.chunks(channels);
    let starts: Vec<i32> = pixels.clone().map(|pixel| lowest(pixel).unwrap_or(ZERO)).collect();
    let (first, start) = pixels.zip(&starts).find(|&(_, &start)| start != ZERO).unwrap_or((all, &0));
    let line: Vec<i32> =
        first.iter().take(channels).map(|&entry| if entry == ZERO { ZERO } else { entry - start }).collect();
    (joined(&starts, &line) == all).then(|| [zero(), starts, line])
}

/// One table for two: its entries are all sums of an entry of `slow` and an entry of `fast`, those of `fast` varying fastest.
fn joined(slow: &[i32], fast: &[i32]) -> Vec<i32> {
    let sum = |(&a, &b): (&i32, &i32)| if a == ZERO || b == ZERO { ZERO } else { a + b };
    slow.iter().flat_map(|a| fast.iter().map(move |b| sum((a, b)))).collect()
}

impl Tables {
    fn number(&self) -> usize {
        self.0.iter().map(Vec::len).sum()
    }

    /// The estimated number of instructions of one run.
    pub(super) fn cost(&self) -> u64 {
        let [rows, columns, channels] = &self.0;
        let entries = |table: &[Strided]| table.iter().map(|part| part.len() as u64).sum::<u64>();
        let line: u64 = channels.iter().map(Strided::cost).sum();
        entries(rows) * (20 + entries(columns) * (30 + line))
    }

    pub(super) fn packed(self) -> Packed {
        let constants = self.0.iter().map(|table| table.as_bytes().to_vec()).collect();
        Packed { constants, ..Packed::default() }
    }
}

impl Strided {
    /// The estimated number of instructions to copy this part once.
    fn cost(&self) -> u64 {
        let inner = u64::from(self.inner);
        let each = match self.inner_step {
            _ if self.is_zero() => return 30 + self.len() as u64 / 2,
            1 => 30 + inner / 2,
            _ => 9 * inner,
        };
        20 + u64::from(self.outer) * (20 + each)
    }
}

/// Compresses a table to loops, greedily: each loop starts where the previous one ends, and is as long as possible.
fn compress(table: &[i32]) -> Vec<Strided> {
    let mut parts: Vec<Strided> = Vec::new();
    let mut rest = table;
    while let Some((&start, after)) = rest.split_first() {
        let step = match after.first() {
            Some(&next) if start != ZERO && next != ZERO => next - start,
            _ => 0,
        };
        let expected =
            (0i64..).map(|count| if start == ZERO { -1 } else { i64::from(start) + count * i64::from(step) });
        let is_zero = |entry: i32| entry == ZERO;
        let follows =
            |&(&entry, expected): &(&i32, i64)| is_zero(entry) == is_zero(start) && i64::from(entry) == expected;
        let length = rest.iter().zip(expected).take_while(follows).count();
        rest = &rest[length..];
        push(&mut parts, Strided { start, outer: 1, inner: length as u32, outer_step: 0, inner_step: step });
    }
    parts
}

/// Appends a loop, or extends the last one by an outer iteration where possible.
fn push(parts: &mut Vec<Strided>, next: Strided) {
    if let Some(last) = parts.last_mut()
        && !last.is_zero()
        && !next.is_zero()
        && (last.inner, last.inner_step) == (next.inner, next.inner_step)
    {
        let step = next.start - last.at(last.outer - 1);
        if last.outer == 1 || step == last.outer_step {
            (last.outer, last.outer_step) = (last.outer + 1, step);
            return;
        }
    }
    parts.push(next);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(parts: &[Strided]) -> Vec<i32> {
        let of = |part: &Strided| -> Vec<i32> {
            if part.is_zero() { vec![ZERO; part.len()] } else { part.entries().collect() }
        };
        parts.iter().flat_map(of).collect()
    }

    #[test]
    fn loops_give_the_table_again() {
        for seed in 0..20_000 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut table = Vec::new();
            for _ in 0..random.usize(1..5) {
                let (start, outer, inner) = (random.i32(0..50), random.usize(1..4), random.usize(1..5));
                let (outer_step, inner_step) = (random.i32(0..9), random.i32(0..9));
                let mut part: Vec<i32> = (0..outer as i32)
                    .flat_map(|a| (0..inner as i32).map(move |b| start + a * outer_step + b * inner_step))
                    .collect();
                match random.u8(..4) {
                    0 => part.reverse(),
                    1 => part.fill(ZERO),
                    _ => (),
                }
                table.extend(part);
            }
            assert_eq!(entries(&compress(&table)), table, "seed {seed}");
        }
    }

    #[test]
    fn what_the_usual_maps_need_is_one_loop() {
        let upsampled: Vec<i32> = (0..40).map(|i| i / 2 * 16).collect();
        let shuffled: Vec<i32> = (0..24).map(|k| k % 3 * 8 + k / 3).collect();
        let flipped: Vec<i32> = (0..24).rev().collect();
        let transposed = joined(&[0, 1, 2, 3], &[0, 4, 8, 12, 16]);
        for table in [upsampled, shuffled, flipped, transposed] {
            assert_eq!(compress(&table).len(), 1, "{table:?}");
        }
        let padded = joined(&[ZERO, 0, 4, 8, ZERO], &[ZERO, 0, 1, 2, 3, ZERO]);
        assert_eq!(compress(&padded).len(), 7, "three blocks between zeros");
    }
}

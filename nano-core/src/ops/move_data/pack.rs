//! Packing on the host: compresses tables of element indices to strided loops.

use alloc::vec::Vec;

use zerocopy::IntoBytes;

use super::strided::{Strided, ZERO};
use super::{Attributes, NAME};
use crate::image::{Layer, Packed, Value, WriteError};

/// The three packed tables of a node: rows, columns, channels.
pub(super) struct Tables([Vec<Strided>; 3]);

/// Packs the tables of a layer with the longest blocks possible.
///
/// # Errors
/// If a tensor is missing or has the wrong length, an entry is not in -1 to 2^28 - 1, or the entries do not match the attributes `first` and
/// `pitch`.
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
    // Joining tables makes longer blocks. It is done if it does not increase the number of loops.
    let mut packed = [compress(rows), compress(columns), compress(channels)];
    for joint in
        [[Vec::from([0]), rows.to_vec(), lines.clone()], [Vec::from([0]), Vec::from([0]), joined(rows, &lines)]]
    {
        let joint = joint.map(|table| compress(&table));
        if number(&joint) <= number(&packed) {
            packed = joint;
        }
    }
    Ok(Tables(packed))
}

fn number(tables: &[Vec<Strided>; 3]) -> usize {
    tables.iter().map(Vec::len).sum()
}

/// One table for two: its entries are all sums of an entry of `slow` and an entry of `fast`, those of `fast` varying fastest.
fn joined(slow: &[i32], fast: &[i32]) -> Vec<i32> {
    let sum = |(&a, &b): (&i32, &i32)| if a == ZERO || b == ZERO { ZERO } else { a + b };
    slow.iter().flat_map(|a| fast.iter().map(move |b| sum((a, b)))).collect()
}

impl Tables {
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

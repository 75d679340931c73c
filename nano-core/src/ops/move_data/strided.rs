//! Tables of element indices, stored as strided loops.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::BrokenRule;
use crate::image::Value;
use crate::operator::require;

/// Represents the zero point in a table.
pub(super) const ZERO: i32 = -1;

/// A part of a table: the entries `start + a * outer_step + b * inner_step` for each `a` below `outer` and each `b` below `inner`, a two-dimensional
/// stride as in DMA descriptors. If `start` is [`ZERO`], all `outer * inner` entries are [`ZERO`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Strided {
    pub start: i32,
    pub outer: u32,
    pub inner: u32,
    pub outer_step: i32,
    pub inner_step: i32,
}

impl Strided {
    pub(super) fn is_zero(&self) -> bool {
        self.start == ZERO
    }

    /// Number of entries.
    pub(super) fn len(&self) -> usize {
        (self.outer * self.inner) as usize
    }

    /// The first entry of outer iteration `a`.
    #[inline(always)]
    pub(super) fn at(&self, a: u32) -> i32 {
        self.start.wrapping_add((a as i32).wrapping_mul(self.outer_step))
    }

    /// All entries, for a part that is not [`ZERO`].
    pub(super) fn entries(self) -> impl Iterator<Item = i32> {
        (0..self.outer).flat_map(move |a| {
            let first = self.at(a);
            (0..self.inner).map(move |b| first.wrapping_add((b as i32).wrapping_mul(self.inner_step)))
        })
    }
}

/// Properties of a checked table.
pub(super) struct Table {
    /// Number of entries.
    pub length: u64,
    /// The lowest and the highest entry apart from [`ZERO`], if there are any.
    pub bounds: Option<[i64; 2]>,
}

impl Table {
    /// Checks a table in time linear in its parts, independent of the number of entries.
    pub(super) fn check(parts: &[Strided]) -> Result<Table, BrokenRule> {
        let mut table = Table { length: 0, bounds: None };
        for (index, part) in parts.iter().enumerate() {
            let length = u64::from(part.outer) * u64::from(part.inner);
            require!(length > 0, "a part of a table is empty, part", index as i64);
            table.length += length;
            require!(table.length <= Value::LARGEST, "a table has more than 2^28 entries, part", index as i64);
            require!(part.start >= ZERO, "a part of a table starts below -1", part.start);
            if part.is_zero() {
                continue;
            }
            // No overflow: at most 2^28 steps of magnitude 2^31.
            let reach = |count: u32, step: i32| i64::from(count - 1) * i64::from(step);
            let reaches = [reach(part.outer, part.outer_step), reach(part.inner, part.inner_step)];
            let start = i64::from(part.start);
            let low = start + reaches.iter().map(|&reach| reach.min(0)).sum::<i64>();
            let high = start + reaches.iter().map(|&reach| reach.max(0)).sum::<i64>();
            let [lowest, highest] = table.bounds.unwrap_or([low, high]);
            table.bounds = Some([lowest.min(low), highest.max(high)]);
        }
        Ok(table)
    }
}

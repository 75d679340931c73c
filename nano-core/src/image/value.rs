//! Values: the tensors of a run, with their dtype, shape, quantization and place in the arena.

use core::ops::{Range, RangeInclusive};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Error;
use crate::operator::nonzero;

/// The type of a value's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Dtype {
    /// One byte.
    Int8,
    /// Two bytes.
    Int16,
    /// Four bytes.
    Int32,
}

impl Dtype {
    /// All of them.
    pub const ALL: [Dtype; 3] = [Dtype::Int8, Dtype::Int16, Dtype::Int32];

    /// Bytes of an element, and its alignment.
    pub const fn size(self) -> usize {
        1 << self as usize
    }

    /// The lowest and the highest number of an element.
    pub const fn bounds(self) -> (i32, i32) {
        match self {
            Dtype::Int8 => (i8::MIN as i32, i8::MAX as i32),
            Dtype::Int16 => (i16::MIN as i32, i16::MAX as i32),
            Dtype::Int32 => (i32::MIN, i32::MAX),
        }
    }

    /// The zero points of a value: only int8 has others than 0.
    pub(crate) const fn zero_points(self) -> RangeInclusive<i32> {
        match self {
            Dtype::Int8 => i8::MIN as i32..=i8::MAX as i32,
            Dtype::Int16 | Dtype::Int32 => 0..=0,
        }
    }

    /// Its name in numpy and torch.
    pub const fn name(self) -> &'static str {
        match self {
            Dtype::Int8 => "int8",
            Dtype::Int16 => "int16",
            Dtype::Int32 => "int32",
        }
    }
}

/// The Rust type of a value's elements: `i8`, `i16` or `i32`.
pub trait Element: Copy + Default + Into<i32> + FromBytes + IntoBytes + Immutable + sealed::Sealed + 'static {
    /// As a value's record has it.
    const DTYPE: Dtype;
    /// `DTYPE` alone, as a kernel lists the dtypes of its values.
    const DTYPES: &'static [Dtype] = &[Self::DTYPE];

    /// The element with the low bits of `integer`: the same number if it is in the dtype's range.
    fn truncate(integer: i32) -> Self;
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! elements {
    ($($element:ty: $dtype:ident),+) => {
        $(
            impl sealed::Sealed for $element {}
            impl Element for $element {
                const DTYPE: Dtype = Dtype::$dtype;

                #[inline(always)]
                fn truncate(integer: i32) -> Self {
                    integer as $element
                }
            }
        )+
    };
}

elements!(i8: Int8, i16: Int16, i32: Int32);

/// One tensor of a run: `real = scale * (q - zero_point)`, layout height, width, channels.
///
/// A pixel's channels are contiguous; from one pixel to the next there are `pitch` elements, between which other values may lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(C)]
pub struct Value {
    /// Height, width, channels; 1-D data has height 1, a vector has height and width 1.
    pub shape: [u32; 3],
    /// Elements from one pixel to the next: at least the channels.
    pub pitch: u32,
    /// Real step of one integer.
    pub scale: f32,
    /// The integer that stands for 0.0; 0 unless the dtype is int8.
    pub zero_point: i32,
    /// Index of the last node that reads it; of a graph output and of a state, the number of nodes; of a value that nothing reads, the node
    /// that writes it.
    pub(super) last_use: u32,
    /// Offset in the arena, in bytes.
    pub(super) offset: u32,
    /// Bytes from its first element to its last; stored, as runs would have to compute it.
    length: u32,
    /// Index in [`Dtype::ALL`].
    dtype: u8,
    /// 0: the arena, as long as it is needed. 1: the arena, from run to run.
    place: u8,
    reserved: u16,
}

impl Value {
    /// The largest number of elements that a value spans, or that is derived from its shape.
    pub(crate) const LARGEST: u64 = 1 << 28;

    /// A value without a place in the arena yet.
    #[cfg(feature = "alloc")]
    pub(super) fn unplaced(description: &super::ValueDescription) -> Value {
        let &super::ValueDescription { dtype, shape, scale, zero_point, state } = description;
        let (dtype, place) = (dtype as u8, state.into());
        let value = Value { shape, pitch: shape[2], scale, zero_point, dtype, place, ..Value::default() };
        Value { length: value.expected_length(value.pitch).unwrap_or(0), ..value }
    }

    /// The type of its elements.
    pub fn dtype(&self) -> Dtype {
        match self.dtype {
            0 => Dtype::Int8,
            1 => Dtype::Int16,
            _ => Dtype::Int32,
        }
    }

    /// Whether its integers are indices, of classes or of rows of a table: int32 with scale 1.
    pub fn holds_indices(&self) -> bool {
        self.is_of(Dtype::Int32) && self.scale == 1.0
    }

    /// The largest number of classes that a model with this output can have names for: one for each element, or any number for indices.
    pub(super) fn most_classes(&self) -> usize {
        if self.holds_indices() { Self::LARGEST as usize } else { self.len() }
    }

    pub(crate) fn is_of(&self, dtype: Dtype) -> bool {
        self.dtype == dtype as u8
    }

    /// Panics if its elements are no `T`.
    pub(crate) fn require_dtype<T: Element>(&self) {
        let (dtype, asked) = (self.dtype().name(), T::DTYPE.name());
        assert!(self.is_of(T::DTYPE), "the value's elements are {dtype}, not {asked}");
    }

    /// Whether it is a state: it is kept from run to run, in memory that no other value uses.
    pub fn is_state(&self) -> bool {
        self.place == 1
    }

    /// Whether its scale and zero point are these.
    pub(crate) fn is_quantized_by(&self, scale: f32, zero_point: i32) -> bool {
        // Equal positive numbers have equal bits; this needs no floating-point code.
        self.scale.to_bits() == scale.to_bits() && self.zero_point == zero_point
    }

    /// Number of elements.
    #[allow(clippy::len_without_is_empty, reason = "a value is never empty: the view refuses it")]
    pub fn len(&self) -> usize {
        (self.shape[0] * self.shape[1] * self.shape[2]) as usize
    }

    /// The bytes of the arena from its first to its last, those of other values between its pixels included.
    pub fn range(&self) -> Range<usize> {
        self.offset()..self.offset() + self.length as usize
    }

    /// Where in the arena it ends; in 64 bits, as it may lie outside.
    pub(super) fn end(&self) -> u64 {
        u64::from(self.offset) + u64::from(self.length)
    }

    /// Offset in the arena in bytes, and number of `T` from its first to its last.
    #[inline(always)]
    pub(crate) fn elements<T: Element>(&self) -> (usize, usize) {
        (self.offset(), self.length as usize / size_of::<T>())
    }

    /// The length for a pitch, unless it is too large.
    #[inline(never)]
    fn expected_length(&self, pitch: u32) -> Option<u32> {
        let [height, width, channels] = self.shape;
        let product = [height, width, pitch].into_iter().try_fold(1u32, |product, size| {
            let product = product.checked_mul(size)?;
            (1..=Value::LARGEST as u32).contains(&product).then_some(product)
        })?;
        Some((product - pitch + channels) << self.dtype)
    }

    /// Whether its pixels are contiguous.
    pub fn is_dense(&self) -> bool {
        self.pitch == self.shape[2] || self.shape[0] * self.shape[1] == 1
    }

    /// The bytes of each of its pixels in `arena`, in order.
    ///
    /// # Panics
    /// If it does not lie inside.
    pub fn pixels<'m>(&self, arena: &'m [i8]) -> impl Iterator<Item = &'m [i8]> {
        let size = self.dtype().size();
        let (pitch, channels) = (self.pitch as usize * size, self.shape[2] as usize * size);
        arena[self.range()].chunks(nonzero(pitch)).map(move |pixel| &pixel[..channels])
    }

    /// Offset in the arena, in bytes.
    #[inline(always)]
    pub(crate) fn offset(&self) -> usize {
        self.offset as usize
    }

    /// Its own bytes of the arena.
    #[inline(never)]
    pub(crate) fn extent(&self) -> Extent {
        self.extent_at(self.offset, self.pitch)
    }

    /// Those that would be its own at another place and pitch.
    pub(crate) fn extent_at(&self, start: u32, pitch: u32) -> Extent {
        let [height, width, channels] = self.shape;
        let count = height * width;
        if pitch == channels || count == 1 {
            return Extent::run(start, (count * channels) << self.dtype);
        }
        Extent { start, length: channels << self.dtype, pitch: pitch << self.dtype, count }
    }

    /// Those in the memory of `other`: so many elements after its first, the pixels at this pitch.
    pub(crate) fn extent_inside(&self, other: &Value, offset: u32, pitch: u32) -> Extent {
        self.extent_at(other.offset + (offset << other.dtype), pitch)
    }

    /// Whether both have the same elements in the same bytes.
    pub(crate) fn coincides(&self, other: &Value) -> bool {
        (self.shape, self.dtype) == (other.shape, other.dtype) && self.extent() == other.extent()
    }

    /// At another place and pitch.
    #[cfg(feature = "alloc")]
    pub(super) fn at(&self, offset: u32, pitch: u32) -> Value {
        Value { offset, pitch, length: self.expected_length(pitch).unwrap_or(self.length), ..*self }
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        let field = |name, value| Err(Error::Field { name, value });
        if usize::from(self.dtype) >= Dtype::ALL.len() {
            return field("value dtype", i64::from(self.dtype));
        }
        let channels = self.shape[2];
        if self.expected_length(channels).is_none() {
            return field("value shape", i64::from(self.shape[0]));
        }
        let length = self.expected_length(self.pitch).filter(|_| self.pitch >= channels);
        let Some(length) = length else { return field("value pitch", i64::from(self.pitch)) };
        if self.place > 1 || self.reserved != 0 {
            return field("value place", i64::from(self.place));
        }
        if !is_positive(self.scale) {
            return field("value scale (bits)", i64::from(self.scale.to_bits()));
        }
        if !self.dtype().zero_points().contains(&self.zero_point) {
            return field("value zero point", i64::from(self.zero_point));
        }
        if !self.offset().is_multiple_of(self.dtype().size()) {
            return field("value offset", i64::from(self.offset));
        }
        if self.length != length {
            return field("value length", i64::from(self.length));
        }
        if self.is_state() && !self.is_dense() {
            return field("pitch of a state", i64::from(self.pitch));
        }
        Ok(())
    }
}

/// Whether a number is above 0 and finite; without floating-point instructions, which the chips lack.
pub(super) fn is_positive(number: f32) -> bool {
    (1..f32::INFINITY.to_bits()).contains(&number.to_bits())
}

/// Bytes of the arena: `count` runs of `length` bytes each, `pitch` bytes from one to the next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Extent {
    start: u32,
    length: u32,
    pitch: u32,
    count: u32,
}

impl Extent {
    /// `length` contiguous bytes.
    pub(crate) fn run(start: u32, length: u32) -> Extent {
        Extent { start, length, pitch: length, count: 1 }
    }

    /// From its first byte to its last, with what lies between its runs.
    pub(crate) fn whole(&self) -> Extent {
        Extent::run(self.start, (self.count - 1) * self.pitch + self.length)
    }

    /// From its first byte to its last.
    pub(crate) fn range(&self) -> Range<usize> {
        let whole = self.whole();
        whole.start as usize..(whole.start + whole.length) as usize
    }

    /// Whether the two share a byte. Exact, except for two different pitches: then each counts as one contiguous run.
    ///
    /// Both must lie in an arena of less than 2^31 bytes, and begin at its first.
    #[inline(never)]
    pub(crate) fn overlaps(&self, other: &Extent) -> bool {
        let (a, b) = (self.whole(), other.whole());
        if a.start >= b.start + b.length || b.start >= a.start + a.length {
            return false;
        }
        let (a, b, pitch) = match (self.count, other.count) {
            (1, _) => (self, other, other.pitch),
            (_, 1) => (self, other, self.pitch),
            _ if self.pitch == other.pitch => (self, other, self.pitch),
            _ => return true,
        };
        // Run i of a and run j of b share a byte if `distance - a.length < pitch * (i - j) < distance + b.length`.
        let distance = b.start as i32 - a.start as i32;
        let pitch = pitch.max(1) as i32;
        let above = (distance - a.length as i32).checked_div_euclid(pitch).unwrap_or(0) + 1;
        let least = above.max(1 - b.count as i32);
        least < a.count as i32 && least * pitch < distance + b.length as i32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(extent: &Extent) -> Vec<u32> {
        let run = |index| extent.start + index * extent.pitch;
        (0..extent.count).flat_map(|index| run(index)..run(index) + extent.length).collect()
    }

    #[test]
    fn overlap_is_that_of_the_bytes() {
        let mut found = [0; 2];
        for seed in 0..200_000 {
            let mut random = fastrand::Rng::with_seed(seed);
            let pitch = random.u32(1..12);
            let mut extent = || {
                let (length, count) = (random.u32(1..=pitch), random.u32(1..5));
                let start = random.u32(..30);
                if random.bool() {
                    Extent { start, length, pitch, count }
                } else {
                    Extent::run(start, random.u32(1..20))
                }
            };
            let (a, b) = (extent(), extent());
            let expected = bytes(&a).iter().any(|byte| bytes(&b).contains(byte));
            assert_eq!(a.overlaps(&b), expected, "seed {seed}: {a:?} {b:?}");
            assert_eq!(b.overlaps(&a), expected, "seed {seed}: {b:?} {a:?}");
            found[usize::from(expected)] += 1;
        }
        assert!(found.iter().all(|&count| count > 10_000), "{found:?}");
    }

    #[test]
    fn overlap_of_different_pitches_is_never_missed() {
        for seed in 0..50_000 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut extent = || {
                let pitch = random.u32(1..12);
                Extent { start: random.u32(..30), length: random.u32(1..=pitch), pitch, count: random.u32(1..5) }
            };
            let (a, b) = (extent(), extent());
            let shared = bytes(&a).iter().any(|byte| bytes(&b).contains(byte));
            assert!(!shared || a.overlaps(&b), "seed {seed}: {a:?} {b:?}");
        }
    }

    #[test]
    fn overlap_at_the_ends_of_the_largest_arena() {
        let all = Extent::run(0, i32::MAX as u32);
        let last = Extent::run(i32::MAX as u32 - 1, 1);
        assert!(all.overlaps(&last) && last.overlaps(&all) && !last.overlaps(&Extent::run(0, 1)));
        let apart = Extent { start: 0, length: 1, pitch: i32::MAX as u32 - 1, count: 2 };
        assert!(apart.overlaps(&last) && !apart.overlaps(&Extent::run(1, i32::MAX as u32 - 2)));
    }
}

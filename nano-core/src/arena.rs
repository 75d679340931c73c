//! The arena: one buffer in which all values of a run live, and the only place where it is cut into slices.

use core::ops::Range;

use crate::image::Value;
use crate::operator::{Io, Node};

/// The memory of one node: `output` and `scratch` may be written, the inputs may be read. A node of one input gets it twice.
///
/// The inputs may touch or be equal. `output` and `scratch` overlap nothing. `None` if they do, or a range lies outside the arena: neither is so in
/// a checked image.
#[inline(always)]
pub(crate) fn cut<'m>(arena: &'m mut [i8], node: &Node<'_>) -> Option<Io<'m>> {
    let (base, length) = (arena.as_mut_ptr(), arena.len());
    let inside = |range: &Range<usize>| range.start <= range.end && range.end <= length;
    let (output, scratch) = (node.output.range(), node.header.scratch());
    // Fast path: most nodes use no scratch.
    let no_scratch = scratch.start == scratch.end;
    if !(inside(&output) && (no_scratch || inside(&scratch) && !overlap(&output, &scratch))) {
        return None;
    }
    let input = |value: &Value| {
        let range = value.range();
        if !inside(&range) || overlap(&range, &output) || !no_scratch && overlap(&range, &scratch) {
            return None;
        }
        // SAFETY: the range lies inside the arena, which stays borrowed mutably, and overlaps neither of the mutable slices below
        // (checked above). Safe splitting cannot express shared ranges that may be equal (x + x) beside mutable ones in any order.
        Some(unsafe { core::slice::from_raw_parts(base.add(range.start), range.end - range.start) })
    };
    let first = input(node.inputs[0])?;
    let inputs = [first, if core::ptr::eq(node.inputs[0], node.inputs[1]) { first } else { input(node.inputs[1])? }];
    // SAFETY: as above; the two do not overlap each other (checked above).
    let output = unsafe { core::slice::from_raw_parts_mut(base.add(output.start), output.end - output.start) };
    let scratch = if no_scratch {
        &mut []
    } else {
        // SAFETY: as above.
        unsafe { core::slice::from_raw_parts_mut(base.add(scratch.start), scratch.end - scratch.start) }
    };
    Some(Io { inputs, output, scratch })
}

/// Whether two ranges share an element. (An empty one overlaps those in whose middle it lies.)
pub(crate) fn overlap(a: &Range<usize>, b: &Range<usize>) -> bool {
    a.start < b.end && b.start < a.end
}

#[cfg(test)]
mod tests {
    use zerocopy::{FromBytes, IntoBytes};

    use super::*;
    use crate::image::NodeHeader;

    /// A node of two inputs, with these ranges of the arena.
    fn run(arena: &mut [i8], ranges: [Range<u32>; 4], use_memory: impl Fn(Io<'_>)) -> Option<()> {
        let value = |range: &Range<u32>| {
            let words = [1, 1, range.end - range.start, 0, 0, 0, range.start];
            Value::read_from_bytes(words.as_bytes()).unwrap()
        };
        let [first, second, output] = [0, 1, 2].map(|index| value(&ranges[index]));
        let scratch = &ranges[3];
        let header = NodeHeader {
            scratch_offset: scratch.start,
            scratch_length: scratch.end - scratch.start,
            ..NodeHeader::default()
        };
        let node = Node {
            header: &header,
            ids: &[0, 1],
            inputs: [&first, &second],
            output: &output,
            attributes: &[],
            constants: &[],
            constants_section: &[],
        };
        cut(arena, &node).map(use_memory)
    }

    #[test]
    fn equal_inputs_are_allowed() {
        let mut arena = [1i8, 2, 3, 4];
        let ran = run(&mut arena, [0..2, 0..2, 2..4, 4..4], |io| {
            io.output.copy_from_slice(io.inputs[1]);
            assert!(io.scratch.is_empty());
        });
        assert_eq!(ran, Some(()));
        assert_eq!(arena, [1, 2, 1, 2]);
    }

    #[test]
    fn what_overlaps_or_lies_outside_is_refused() {
        for ranges in [
            [0..3, 0..1, 2..4, 4..4],
            [0..1, 0..3, 2..4, 4..4],
            [0..1, 1..2, 2..4, 3..5],
            [0..1, 1..3, 3..4, 2..3],
            [0..1, 1..2, 2..9, 0..0],
            [0..9, 1..2, 2..3, 0..0],
            [0..1, 1..2, 2..3, 5..9],
        ] {
            assert_eq!(run(&mut [0; 8], ranges.clone(), |_| ()), None, "{ranges:?}");
        }
    }
}

//! The arena: one buffer in which all values of a run live, and the only place where it is cut into slices.

use core::ops::Range;

use crate::operator::MAX_INPUTS;

/// The slices of one node: `output` and `scratch` may be written, `inputs` may be read.
///
/// Any two ranges may touch or be equal among the inputs. `output` and `scratch` overlap nothing.
///
/// # Panics
/// If they do, or lie outside the arena. `Model::new` has excluded both.
pub(crate) fn cut(
    arena: &mut [i8],
    inputs: [Range<usize>; MAX_INPUTS],
    output: Range<usize>,
    scratch: Range<usize>,
) -> ([&[i8]; MAX_INPUTS], &mut [i8], &mut [i8]) {
    let inside = |range: &Range<usize>| range.start <= range.end && range.end <= arena.len();
    assert!(inputs.iter().all(inside) && inside(&output) && inside(&scratch));
    assert!(!overlap(&output, &scratch));
    assert!(inputs.iter().all(|input| !overlap(input, &output) && !overlap(input, &scratch)));
    let base = arena.as_mut_ptr();
    // SAFETY: every range lies inside the arena, which stays borrowed mutably; the two mutable slices overlap neither
    // each other nor a shared one (all asserted above). Safe splitting cannot express shared ranges that may be equal
    // (x + x) beside mutable ones in any order.
    unsafe {
        (
            inputs.map(|range| core::slice::from_raw_parts(base.add(range.start), range.len())),
            core::slice::from_raw_parts_mut(base.add(output.start), output.len()),
            core::slice::from_raw_parts_mut(base.add(scratch.start), scratch.len()),
        )
    }
}

/// Whether two ranges share an element; an empty range shares none.
pub(crate) fn overlap(a: &Range<usize>, b: &Range<usize>) -> bool {
    a.start.max(b.start) < a.end.min(b.end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_inputs_are_allowed() {
        let mut arena = [1i8, 2, 3, 4];
        let (inputs, output, scratch) = cut(&mut arena, [0..2, 0..2], 2..4, 4..4);
        output.copy_from_slice(inputs[1]);
        assert!(scratch.is_empty());
        assert_eq!(arena, [1, 2, 1, 2]);
    }

    #[test]
    #[should_panic]
    fn an_output_over_an_input_is_refused() {
        cut(&mut [0; 4], [0..3, 0..0], 2..4, 4..4);
    }
}

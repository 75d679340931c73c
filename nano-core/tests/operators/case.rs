//! A test case as bytes after an image: some steps, each with its inputs and what the outputs must be. The board's program reads it, too.

use nano_core::Model;

/// The steps, one after the other: a byte that is 1 if the states are reset before, the inputs' bytes, the outputs' bytes.
pub struct Steps<'c>(pub &'c [u8]);

impl Steps<'_> {
    /// Runs all steps; returns the number of compared bytes.
    ///
    /// # Panics
    /// If an output differs, or the steps end early.
    pub fn run(self, model: &mut Model<'_>) -> usize {
        let (mut rest, mut compared) = (self.0, 0);
        let mut take = |length: usize| {
            let (taken, after) = rest.split_at(length);
            rest = after;
            taken
        };
        let mut step = 0;
        let (&steps, _) = take(4).split_first_chunk::<4>().expect("four bytes");
        while step < u32::from_le_bytes(steps) {
            if take(1) == [1] {
                model.reset();
            }
            for index in 0..model.image().input_count() {
                let input = model.input(index);
                let length = input.len();
                input.iter_mut().zip(take(length)).for_each(|(place, &byte)| *place = byte as i8);
            }
            model.run();
            for index in 0..model.image().output_count() {
                let output = model.output(index);
                let expected = take(output.len());
                assert!(output.iter().zip(expected).all(|(&a, &b)| a as u8 == b), "step {step}, output {index}");
                compared += expected.len();
            }
            step += 1;
        }
        compared
    }
}

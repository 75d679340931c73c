//! Images with samples and the outputs that they must give, as bytes one after the other. The board's program reads them, too.

use core::fmt::Arguments;

use nano_core::{CheckedImage, Error, ops};

/// Where a case may start: at multiples of what nano-core wants of an image.
const ALIGNMENT: usize = 16;

/// The cases: their number (u32), then each at a multiple of 16 bytes: the image, and at the next multiple the number of samples (u32) and for each sample the
/// inputs' bytes and the outputs' bytes.
pub struct Cases<'c> {
    bytes: &'c [u8],
    position: usize,
}

impl<'c> Cases<'c> {
    /// `bytes` start at a multiple of 16 bytes.
    pub fn new(bytes: &'c [u8]) -> Self {
        Cases { bytes, position: 0 }
    }

    /// Runs all cases in this arena. Before each it says the number of the case, and after it the number of bytes that differ and of those compared.
    ///
    /// # Errors
    /// If an image is refused.
    ///
    /// # Panics
    /// If the bytes end early.
    pub fn run(mut self, arena: &mut [i8], mut say: impl FnMut(Arguments<'_>)) -> Result<(), Error> {
        let count = self.word();
        for case in 0..count {
            say(format_args!("case {case}"));
            let (differing, compared) = self.case(arena)?;
            say(format_args!("{differing} of {compared} bytes differ"));
        }
        Ok(())
    }

    fn case(&mut self, arena: &mut [i8]) -> Result<(usize, usize), Error> {
        self.align();
        let image = CheckedImage::new(&self.bytes[self.position..], ops::ALL)?;
        let mut model = image.bind(arena)?;
        self.position += image.image().length();
        self.align();
        let (mut differing, mut compared) = (0, 0);
        for _ in 0..self.word() {
            model.reset();
            for index in 0..image.image().input_count() {
                let input = model.input(index);
                let bytes = self.take(input.len());
                input.iter_mut().zip(bytes).for_each(|(place, &byte)| *place = byte as i8);
            }
            model.run();
            for index in 0..image.image().output_count() {
                let output = model.output(index);
                let expected = self.take(output.len());
                differing += output.iter().zip(expected).filter(|&(&a, &b)| a as u8 != b).count();
                compared += output.len();
            }
        }
        Ok((differing, compared))
    }

    fn take(&mut self, length: usize) -> &'c [u8] {
        let start = self.position;
        self.position += length;
        &self.bytes[start..self.position]
    }

    fn word(&mut self) -> u32 {
        self.take(4).iter().rev().fold(0, |word, &byte| word << 8 | u32::from(byte))
    }

    fn align(&mut self) {
        self.position = self.position.next_multiple_of(ALIGNMENT);
    }
}

//! Text for a serial port without `core::fmt`, which would take 14 KB of flash.

use embedded_io::Write;
use nano_core::{Error, Piece};

/// Writes text to a port. What the port refuses is lost: a monitor that listens later sees the next line.
pub struct Text<W>(pub W);

impl<W: Write> Text<W> {
    /// Writes a text as it is.
    pub fn text(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes())
    }

    /// Writes bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        let _ = self.0.write_all(bytes);
        self
    }

    /// Writes a number in decimal.
    pub fn number(&mut self, number: i64) -> &mut Self {
        if number < 0 {
            self.text("-");
        }
        self.digits(number.unsigned_abs(), 10, 1)
    }

    /// Writes a word in hexadecimal, with all its digits.
    pub fn word(&mut self, word: u32) -> &mut Self {
        self.digits(word.into(), 16, 8)
    }

    /// Writes the sentence of an error.
    pub fn error(&mut self, error: &Error) -> &mut Self {
        error.spell(|piece| {
            match piece {
                Piece::Text(text) => self.text(text),
                Piece::Number(number) => self.number(number),
                Piece::Checksum(checksum) => self.word(checksum),
            };
        });
        self
    }

    /// Sends what was written.
    pub fn end(&mut self) {
        let _ = self.0.flush();
    }

    fn digits(&mut self, mut number: u64, base: u64, least: usize) -> &mut Self {
        // As many as a u64 has in decimal.
        let mut digits = [b'0'; 20];
        let mut length = 0;
        for place in digits.iter_mut().rev() {
            if number == 0 && length >= least {
                break;
            }
            *place = b"0123456789abcdef"[(number % base) as usize & 15];
            number /= base;
            length += 1;
        }
        let (_, digits) = digits.split_at(digits.len() - length);
        self.bytes(digits)
    }
}

//! The board's 16550 UART as a byte stream.

use core::convert::Infallible;

use embedded_io::{ErrorType, Read, Write};

const BASE: *mut u8 = 0x1000_0000 as *mut u8;
/// Received byte when read, byte to send when written; while DLAB is set, the low byte of the clock's divisor.
const DATA: usize = 0;
/// Interrupt enable; bit 0: bytes were received.
const IER: usize = 1;
/// FIFO control; bit 0: use the FIFOs, bits 6 and 7: interrupt at 14 bytes (or when no more come).
const FCR: usize = 2;
/// Line control; bit 7 (DLAB): the first two registers are the clock's divisor, bits 0 and 1: 8 data bits.
const LCR: usize = 3;
/// Line status; bit 0: a byte was received, bit 5: a byte can be sent.
const LSR: usize = 5;

/// The interrupt controller (PLIC): the UART's source, its priority, and machine mode's enabled sources and claim.
const PLIC_UART_PRIORITY: *mut u32 = (0x0c00_0000 + 4 * UART_SOURCE) as *mut u32;
const PLIC_ENABLE: *mut u32 = 0x0c00_2000 as *mut u32;
const PLIC_CLAIM: *mut u32 = 0x0c20_0004 as *mut u32;
const UART_SOURCE: usize = 10;

/// The UART. There is one: it is made once, in `main`, and by the handler of a fatal error.
pub struct Uart(());

impl Uart {
    /// Switches the UART on, and lets a received byte wake the hart from `wfi` (without ever taking an interrupt).
    /// Sends one zero byte then: what came before it is lost.
    pub fn new() -> Self {
        write_register(LCR, 0x83);
        write_register(DATA, 1);
        write_register(LCR, 0x03);
        // QEMU hands over one byte at a time where the interrupt comes at one byte: 5 times slower.
        write_register(FCR, 0xc1);
        write_register(IER, 1);
        // SAFETY: the PLIC's registers of this board; nothing else uses them.
        unsafe {
            PLIC_UART_PRIORITY.write_volatile(1);
            PLIC_ENABLE.write_volatile(1 << UART_SOURCE);
            riscv::register::mie::set_mext();
        }
        write_register(DATA, 0);
        Self(())
    }

    /// The UART as it is, for the last words of a program that cannot go on.
    pub fn for_last_words() -> Self {
        Self(())
    }
}

impl ErrorType for Uart {
    type Error = Infallible;
}

impl Read for Uart {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Infallible> {
        if buffer.is_empty() {
            return Ok(0);
        }
        while read_register(LSR) & 1 == 0 {
            clear_interrupt();
            // A byte that came before the interrupt was cleared no longer wakes the hart.
            if read_register(LSR) & 1 == 0 {
                riscv::asm::wfi();
            }
        }
        let mut count = 0;
        while count < buffer.len() && read_register(LSR) & 1 != 0 {
            buffer[count] = read_register(DATA);
            count += 1;
        }
        Ok(count)
    }
}

impl Write for Uart {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        for &byte in bytes {
            while read_register(LSR) & (1 << 5) == 0 {}
            write_register(DATA, byte);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

fn clear_interrupt() {
    // SAFETY: a register of this board's PLIC: reading claims the interrupt, writing the source back completes it.
    unsafe { PLIC_CLAIM.write_volatile(PLIC_CLAIM.read_volatile()) }
}

fn read_register(register: usize) -> u8 {
    // SAFETY: a register of this board's UART.
    unsafe { BASE.add(register).read_volatile() }
}

fn write_register(register: usize, value: u8) {
    // SAFETY: a register of this board's UART.
    unsafe { BASE.add(register).write_volatile(value) }
}

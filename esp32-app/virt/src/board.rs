//! QEMU's `virt` board: start, memory protection, model image, counter, and the way out.

use core::arch::global_asm;
use core::fmt::Write;
use core::ptr::addr_of;

use riscv::register::{Permission, Range, mcause, mepc, minstret, mtval, pmpaddr0, pmpaddr1, pmpcfg0};

// Written by hand rather than taken from riscv-rt: a trap resets the stack pointer first, so that a stack overflow
// ends with a message instead of faulting for ever. QEMU's counter starts anywhere.
global_asm!(
    ".section .text.start, \"ax\"",
    ".globl _start",
    "_start:",
    "csrw minstret, zero",
    "csrw minstreth, zero",
    "la sp, _stack_top",
    "la t0, 1f",
    "csrw mtvec, t0",
    "call {main}",
    ".balign 4",
    "1:",
    "la sp, _stack_top",
    "call {trap}",
    main = sym crate::main,
    trap = sym trap,
);

unsafe extern "C" {
    static _code_start: u8;
    static _code_size: u8;
    static _image_start: u8;
    static _image_size: u8;
}

/// Makes code and model image read-only, as flash is: a stray write is an error with an address, not a wrong result.
pub fn protect_flash() {
    // A power-of-two region for PMP: its address and, in the low bits, its size.
    let region = |start: *const u8, size: *const u8| (start as usize >> 2) | ((size as usize >> 3) - 1);
    // SAFETY: neither region holds anything that is written.
    unsafe {
        pmpaddr0::write(region(addr_of!(_code_start), addr_of!(_code_size)));
        pmpaddr1::write(region(addr_of!(_image_start), addr_of!(_image_size)));
        pmpcfg0::set_pmp(0, Range::NAPOT, Permission::RX, true);
        pmpcfg0::set_pmp(1, Range::NAPOT, Permission::R, true);
    }
}

/// The place where QEMU has put the model image: the image, then zeros.
pub fn image() -> &'static [u8] {
    // SAFETY: memory of that size is there (virt.ld), initialized by QEMU, and read-only.
    unsafe { core::slice::from_raw_parts(addr_of!(_image_start), addr_of!(_image_size) as usize) }
}

/// Instructions retired since the start.
pub fn instructions() -> u64 {
    minstret::read64()
}

/// Ends the emulation; QEMU's exit status is 0, or 1 for a failure.
pub fn exit(success: bool) -> ! {
    let value = if success { 0x5555 } else { (1 << 16) | 0x3333 };
    loop {
        // SAFETY: the register of the board's test device.
        unsafe { (0x10_0000 as *mut u32).write_volatile(value) }
    }
}

extern "C" fn trap() -> ! {
    let (cause, address, value) = (mcause::read().code(), mepc::read(), mtval::read());
    fail(format_args!("trap: mcause {cause}, mepc {address:#x}, mtval {value:#x}"))
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo) -> ! {
    fail(format_args!("{info}"))
}

/// Says why on the UART, and ends the emulation with status 1.
pub fn fail(message: core::fmt::Arguments) -> ! {
    say(message);
    exit(false)
}

/// Writes a line on the UART.
pub fn say(message: core::fmt::Arguments) {
    struct Uart;
    impl Write for Uart {
        fn write_str(&mut self, text: &str) -> core::fmt::Result {
            for byte in text.bytes() {
                // SAFETY: the register of the board's UART that takes a byte; QEMU's UART is never busy.
                unsafe { (0x1000_0000 as *mut u8).write_volatile(byte) }
            }
            Ok(())
        }
    }
    // The UART is for last words only, and takes all.
    let _ = writeln!(Uart, "{message}");
}

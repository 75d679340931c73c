//! QEMU's `virt` board: startup, memory protection, model image, instruction counter and exit.

use core::arch::global_asm;
use core::fmt::Write;
use core::ptr::addr_of;

use riscv::register::{Permission, Range, mcause, mepc, minstret, mtval, pmpaddr0, pmpaddr1, pmpcfg0};

// Instead of riscv-rt: a trap resets the stack pointer first, so that a stack overflow ends with a message, not in an endless loop
// of faults. The counter is cleared, as its initial value in QEMU is arbitrary.
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

/// Makes code and model image read-only, as in flash: a stray write is a fault with an address, not a wrong result.
pub fn protect_flash() {
    // A naturally aligned power-of-two region (NAPOT) of the PMP: the low bits of its address encode its size.
    let region = |start: *const u8, size: *const u8| (start as usize >> 2) | ((size as usize >> 3) - 1);
    // SAFETY: nothing is ever written to either region.
    unsafe {
        pmpaddr0::write(region(addr_of!(_code_start), addr_of!(_code_size)));
        pmpaddr1::write(region(addr_of!(_image_start), addr_of!(_image_size)));
        pmpcfg0::set_pmp(0, Range::NAPOT, Permission::RX, true);
        pmpcfg0::set_pmp(1, Range::NAPOT, Permission::R, true);
    }
}

/// The memory to which QEMU has loaded the model image: the image, then zeros.
pub fn image() -> &'static [u8] {
    // SAFETY: the memory exists with this size (virt.ld), is initialized by QEMU, and is read-only.
    unsafe { core::slice::from_raw_parts(addr_of!(_image_start), addr_of!(_image_size) as usize) }
}

/// Instructions retired since the start.
pub fn instructions() -> u64 {
    minstret::read64()
}

/// Ends the emulation; QEMU's exit status is 0, or 1 for a failure.
pub fn exit(success: bool) -> ! {
    test_device(if success { 0x5555 } else { (1 << 16) | 0x3333 })
}

/// Starts the board again: QEMU loads the program and the model image as at the first start.
pub fn restart() -> ! {
    test_device(0x7777)
}

fn test_device(command: u32) -> ! {
    loop {
        // SAFETY: the register of the board's test device, which ends the emulation or resets the board.
        unsafe { (0x10_0000 as *mut u32).write_volatile(command) }
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

/// Writes the reason on the UART, and ends the emulation with status 1.
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
                // SAFETY: the transmit register of the board's UART; QEMU's UART is never busy.
                unsafe { (0x1000_0000 as *mut u8).write_volatile(byte) }
            }
            Ok(())
        }
    }
    // Writing to the UART cannot fail.
    let _ = writeln!(Uart, "{message}");
}

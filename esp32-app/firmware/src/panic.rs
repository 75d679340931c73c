//! What the firmware says when it cannot go on.

use core::panic::{Location, PanicInfo};

use esp_hal::delay::Delay;
use nano_core::Error;
use torch_nano_device::frame;

use crate::port;
use crate::text::Text;

/// It uses nothing of a panic but its location. Inlined into core's `panic_fmt` this shows the compiler that messages are never read: their texts and formatters
/// are then not linked, 5 KB. The compiler warns that it ignores the attribute, but hands it on to LLVM.
#[panic_handler]
#[allow(unused_attributes)]
#[inline(always)]
fn panic(info: &PanicInfo) -> ! {
    stop(info.location())
}

/// Where esp-hal ends after an exception of the CPU: an access that is not allowed, or a stack that is too deep. Its own handler explains them in 700 bytes.
// SAFETY: the runtime calls this name with a trap frame, which is not needed, and expects no return. It has no other definition.
#[cfg(target_arch = "riscv32")]
#[unsafe(export_name = "ExceptionHandler")]
extern "C" fn exception() -> ! {
    stop(None)
}

/// Says where the program has panicked, or that it has not, and why the latest trap was taken.
#[inline(never)]
fn stop(location: Option<&Location<'_>>) -> ! {
    say(|text| {
        match location {
            Some(location) => {
                let (line, column) = (location.line().into(), location.column().into());
                text.text("panicked at ").text(location.file()).text(":").number(line).text(":").number(column);
            }
            None => {
                text.text("stopped by an exception");
            }
        }
        #[cfg(target_arch = "riscv32")]
        {
            use riscv::register::{mcause, mepc, mtval};
            text.text("; last trap: mcause 0x").word(mcause::read().bits() as u32);
            text.text(", mepc 0x").word(mepc::read() as u32);
            text.text(", mtval 0x").word(mtval::read() as u32);
        }
    })
}

/// Says why the program cannot start.
#[cold]
pub fn refuse(error: &Error) -> ! {
    say(|text| {
        text.text("cannot start: ").error(error);
    })
}

/// Sends a line every second, as at startup no client listens yet.
fn say(write: impl Fn(&mut Text<port::transport::Port>)) -> ! {
    // SAFETY: the port's owner never runs again: there is only one core, and this function does not return.
    let mut text = Text(unsafe { port::steal() });
    loop {
        write(&mut text);
        // The end byte of a frame shows a client that waits for an answer that this is not one.
        text.text("\r\n").bytes(&[frame::END]).end();
        Delay::new().delay_millis(1000);
    }
}

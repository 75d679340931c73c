//! The check of an image and nothing else: the code size of `Model::new` is the size of this program, which is not run.
#![no_std]
#![no_main]
#![deny(missing_docs)]

use nano_core::{CheckedImage, Error, Kernel, Run};

#[path = "../src/kernels.rs"]
mod kernels;

use kernels::KERNELS;

/// A kernel without its program, which `Model::run` needs.
const fn check_of(index: usize) -> Kernel {
    let run = match KERNELS[index].run {
        Run::Apart(_) => Run::Apart(|_, _| ()),
        Run::Over(_) => Run::Over(|_, _| ()),
        Run::InPlace(_) => Run::InPlace(|_, _| ()),
    };
    Kernel { run, ..KERNELS[index] }
}

static CHECKS: [Kernel; KERNELS.len()] = {
    let mut checks = [const { check_of(0) }; _];
    let mut index = 0;
    while index < checks.len() {
        checks[index] = check_of(index);
        index += 1;
    }
    checks
};

#[unsafe(no_mangle)]
fn _start(bytes: &'static [u8]) -> Result<CheckedImage<'static>, Error> {
    CheckedImage::new(bytes, &CHECKS)
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

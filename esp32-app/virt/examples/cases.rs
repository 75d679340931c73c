//! Runs the cases that lie where a model does on the emulated board, and prints on the UART how many bytes differ.
#![no_std]
#![no_main]

#[path = "../src/board.rs"]
#[allow(dead_code, reason = "what the session needs of the board")]
mod board;
#[path = "../../../nano-core/tests/cases/cases.rs"]
mod cases;

use zerocopy::{FromBytes, IntoBytes};

extern "C" fn main() -> ! {
    static mut ARENA: [u32; 1 << 18] = [0; 1 << 18];
    board::protect_flash();
    // SAFETY: `main` runs once, and nothing else names ARENA.
    let arena = unsafe { (&raw mut ARENA).as_mut_unchecked() };
    let arena = <[i8]>::mut_from_bytes(arena.as_mut_bytes()).unwrap_or_default();
    match cases::Cases::new(board::image()).run(arena, board::say) {
        Ok(()) => board::exit(true),
        Err(error) => board::fail(format_args!("{error}")),
    }
}

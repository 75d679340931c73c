#![no_main]
use torch_nano_fuzz::session;

libfuzzer_sys::fuzz_target!(init: torch_nano_fuzz::write_seeds(session::seeds), |data: &[u8]| session::run(data));
libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, capacity: usize, seed: u32| {
    session::mutate(data, size, capacity, seed, &mut libfuzzer_sys::fuzzer_mutate)
});

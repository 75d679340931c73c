#![no_main]
use torch_nano_fuzz::storage;

libfuzzer_sys::fuzz_target!(init: torch_nano_fuzz::write_seeds(storage::seeds), |data: &[u8]| storage::run(data));
libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, capacity: usize, seed: u32| {
    storage::mutate(data, size, capacity, seed, &mut libfuzzer_sys::fuzzer_mutate)
});

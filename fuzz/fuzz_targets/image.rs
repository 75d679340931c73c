#![no_main]
use torch_nano_fuzz::image;

libfuzzer_sys::fuzz_target!(init: torch_nano_fuzz::write_seeds(image::seeds), |data: &[u8]| image::run(data));
libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, capacity: usize, seed: u32| {
    image::mutate(data, size, capacity, seed, &mut libfuzzer_sys::fuzzer_mutate)
});

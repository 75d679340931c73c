//! Runs the cases in files on the host, with overflow checks: `cargo test --test cases -- FILE...`. `tests/conformance` makes the files.

#[allow(clippy::module_inception, reason = "the board's program has the module, too")]
mod cases;

use cases::Cases;
use zerocopy::IntoBytes;

fn main() {
    let mut arena = vec![0u32; 1 << 18];
    for file in std::env::args().skip(1) {
        let bytes = std::fs::read(&file).expect("a file of cases");
        let mut aligned = vec![0u128; bytes.len().div_ceil(16)];
        aligned.as_mut_bytes()[..bytes.len()].copy_from_slice(&bytes);
        let arena = zerocopy::transmute_mut!(&mut arena[..]);
        let result = Cases::new(aligned.as_bytes()).run(arena, |text| println!("{text}"));
        result.unwrap_or_else(|error| panic!("{file}: {error}"));
    }
}

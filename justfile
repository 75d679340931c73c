python := ".venv/bin/python"

# List the recipes
@_list:
    just --list --unsorted

# Install and build what is missing
@setup: _tools
    python3 tools/setup.py

@_tools:
    python3 tools/setup.py --tools

# Train, quantize, run and personalize a model on the emulated device (arguments: see --help)
demo *arguments: setup
    @{{ python }} python-plugin/examples/demo.py {{ arguments }}

# Run every check: Rust tests on 64 and 32 bits, lint, Python tests, fuzzing for 10 s each, packages
test: _setup-and-test-rust lint _test-the-rest

# Side by side: pip downloads most of the time of a first set-up, and Rust tests need nothing of it.
[parallel]
_setup-and-test-rust: setup _test-rust

_test-rust: _tools
    cargo test --quiet --package nano-core --all-features
    cargo test --quiet --package torch-nano-cycles
    CARGO_BUILD_TARGET=i686-unknown-linux-gnu tools/cross-cargo test --quiet --package nano-core --all-features
    cargo test --quiet --manifest-path esp32-app/device/Cargo.toml
    cargo test --quiet --manifest-path esp32-app/sensors/Cargo.toml

# Side by side: Python tests wait for boards and clocks a quarter of their time.
[parallel]
_test-the-rest: _test-python _test-fuzzing package

_test-python: setup
    {{ python }} -m pytest -n 3 --dist worksteal

_test-fuzzing: setup
    {{ python }} fuzz/python/run.py 10 --fresh

# Fuzz images, sessions, storage and files for `seconds` each, guided by coverage (arguments: --help)
fuzz seconds="60" *arguments: setup
    {{ python }} fuzz/python/run.py {{ seconds }} {{ arguments }}

# Check format, types and lints of Python and Rust
[parallel]
lint: _lint-python _lint-host _lint-device _lint-fuzz

_lint-python: setup
    {{ python }} -m ruff check .
    {{ python }} -m ruff format --check .
    {{ python }} -m mypy --strict python-plugin/src python-plugin/examples tools tests/bench fuzz/python
    {{ python }} -m mypy --strict docs/extensions
    # In a run of its own, as tools/setup.py has the same module name.
    {{ python }} -m mypy --strict python-plugin/setup.py
    {{ python }} -m mypy.stubtest torch_nano._native --concise --mypy-config-file tools/stubtest.ini

_lint-host: setup
    cargo fmt --all --check
    # cargo fmt does not find the modules of operators and trainers, which macros declare.
    rustfmt --edition 2024 --check nano-core/src/ops/*.rs nano-core/src/ops/*/*.rs nano-core/src/train/*/mod.rs
    cargo clippy --quiet --workspace --all-targets --all-features -- --deny warnings
    RUSTDOCFLAGS="--deny warnings" cargo doc --quiet --no-deps --document-private-items --workspace --all-features

_lint-device: setup
    cargo fmt --all --check --manifest-path esp32-app/Cargo.toml
    cd esp32-app && cargo clippy --quiet -p torch-nano-device -p torch-nano-sensors --all-targets --all-features -- --deny warnings
    cd esp32-app && RUSTDOCFLAGS="--deny warnings" cargo doc --quiet --no-deps --document-private-items -p torch-nano-device -p torch-nano-sensors
    cd esp32-app && ../tools/cross-cargo clippy --quiet --release -p torch-nano-virt --bins --examples -- --deny warnings
    {{ python }} tests/e2e/tiny_model.py build/lint/model
    cd esp32-app && TORCH_NANO_MODEL=build/lint/model ../tools/cross-cargo clippy --quiet --release -p torch-nano-firmware --features classifier -- --deny warnings
    {{ python }} -c "from tests.e2e.tiny_model import motion_model; motion_model().export('build/lint/motion')"
    cd esp32-app && TORCH_NANO_MODEL=build/lint/motion ../tools/cross-cargo clippy --quiet --release -p torch-nano-firmware --features lsm6dso -- --deny warnings
    cd esp32-app && TORCH_NANO_MODEL=build/lint/motion ../tools/cross-cargo clippy --quiet --release -p torch-nano-firmware --features microphone -- --deny warnings
    # The firmware's other transport: a UART.
    cd esp32-app && TORCH_NANO_MODEL=build/lint/motion ../tools/cross-cargo clippy --quiet --release -p torch-nano-firmware --no-default-features --features esp32c2,voltage -- --deny warnings

_lint-fuzz: setup
    cargo fmt --all --check --manifest-path fuzz/Cargo.toml
    cd fuzz && cargo clippy --quiet --release --all-targets -- --deny warnings

# Build the firmware for a chip with a model, and make and check its flash image (arguments: CHIP MODEL)
firmware *arguments: setup
    {{ python }} -m tools.firmware build {{ arguments }}

# Build the firmware for a chip with a model, and break down the flash that it takes by crate (arguments: CHIP MODEL --as VARIANT)
firmware-size *arguments: setup
    {{ python }} -m tools.firmware size {{ arguments }}

# Build the firmware for every chip that builds here, and make and check the flash images (arguments: MODEL)
firmware-all *arguments: setup
    {{ python }} -m tools.firmware all {{ arguments }}

# Build the firmware for a chip with a model and write it to a board (arguments: CHIP MODEL --dry-run, see --help)
flash *arguments: setup
    {{ python }} -m tools.firmware flash {{ arguments }}

# Show the text that a board sends (arguments: CHIP, see --help)
monitor *arguments: setup
    @{{ python }} -m tools.firmware monitor {{ arguments }}

# Test a board that runs the firmware, and write a report (arguments: PORT MODEL, see --help)
board-test *arguments: setup
    {{ python }} -m tools.firmware board-test {{ arguments }}

# Check nano-core and device for Xtensa chips as far as stock Rust can
check-xtensa:
    tools/check-xtensa

# Build the source distribution and the wheel into build/package, and try them and the crate in fresh environments
package: setup
    {{ python }} -m pytest tests/package/checks.py

# Build the documentation into build/docs/html, with its notebooks executed; warnings and broken links are errors
docs: setup
    rm -rf build/docs/html build/docs/rust/doc
    RUSTDOCFLAGS="--deny warnings" cargo doc --quiet --no-deps --all-features --package nano-core --target-dir build/docs/rust
    cd esp32-app && RUSTDOCFLAGS="--deny warnings" cargo doc --quiet --no-deps --package torch-nano-device --target-dir ../build/docs/rust
    {{ python }} -m sphinx -q -E -W --keep-going -b html docs build/docs/html
    cp -r build/docs/rust/doc build/docs/html/rust
    {{ python }} tools/check_links.py build/docs/html

# Check the documentation's links to other sites, which needs the internet
docs-links: setup
    {{ python }} -m sphinx -q -D nb_execution_mode=off -b linkcheck docs build/docs/links

# Count instructions on the emulated device and compare them with the baseline (arguments: --help)
bench-device *arguments: setup
    {{ python }} tests/bench/bench_device.py {{ arguments }}

# Compare what inference, training steps and conversions cost here with LiteRT and torch (arguments: --help)
bench-host *arguments: setup
    {{ python }} tests/bench/bench_host.py {{ arguments }}

# List where the emulated board's program can panic, by file
panic-sites: setup
    {{ python }} tools/panic_sites.py

# Measure the linked firmware and its stack, and write the table by which `nano.fits` predicts them
program-sizes: setup
    {{ python }} tools/program_sizes.py

# Measure the accuracy that quantization-aware training recovers on a network that int8 hurts
bench-qat *arguments: setup
    {{ python }} tests/bench/bench_qat.py {{ arguments }}

# Measure the accuracy that trained networks lose in int8 (arguments: --help)
bench-accuracy *arguments: setup
    {{ python }} tests/bench/bench_accuracy.py {{ arguments }}

# Measure what int8 keeps of models with random weights, and what each correction gains (arguments: --help)
bench-corrections *arguments: setup
    {{ python }} tests/bench/bench_corrections.py {{ arguments }}

# Compare learning of the last two layers in integers and in float, on real data
bench-last-layers: setup
    {{ python }} tests/bench/bench_last_layers.py

# Run the demo with three seeds and compare its accuracies with their thresholds
bench-demo: setup
    {{ python }} tests/bench/bench_demo.py

# Compare the heads' accuracies with those of float learning, on real data
bench-learning *arguments: setup
    {{ python }} tests/bench/bench_learning.py {{ arguments }}

# Compare `layers` random layers of all operators with TFLM, bit by bit
conformance layers="10000": setup
    {{ python }} -m pytest -n 2 tests/conformance --layers {{ layers }}

# Compare `layers` random layers, each computed by every kernel that can, with plain torch, on the host and on the emulated board
conformance-device layers="5000": setup
    {{ python }} -m pytest -n 2 tests/conformance/test_forced_kernels.py --kernel-layers {{ layers }}

# Measure the server's cost of a fleet's round, with simulated nodes
bench-fleet *arguments: setup
    {{ python }} tests/bench/bench_fleet.py {{ arguments }}

# Remove everything built, except .venv
clean:
    rm -rf build target esp32-app/target fuzz/target fuzz/corpus fuzz/artifacts python-plugin/build .mypy_cache .ruff_cache .pytest_cache .hypothesis
    rm -f python-plugin/src/torch_nano/_native.abi3.so python-plugin/src/torch_nano/device/transport/cycles_plugin.abi3.so python-plugin/src/torch_nano/device/*-rv32imc.elf

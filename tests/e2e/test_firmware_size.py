"""The breakdown of a firmware's flash."""

from __future__ import annotations

import pytest
from firmware.size import crate_of, firmware_size


@pytest.mark.parametrize(
    ("symbol", "crate"),
    [
        ("main", "firmware"),
        ("_RNvNtCs3xQ30Ue3M98_4core9panicking9panic_fmt", "core"),
        ("_RNvCsfLfy6EI15iL_7___rustc17rust_begin_unwind", "__rustc"),
        ("_ZN9nano_core3ops6conv2d9block_row17h99fb9e60c06aaebaE", "nano_core"),
        ("_ZN55_$LT$nano_core..error..Error$u20$as$u20$core..fmt..Display$GT$3fmt17he6E", "nano_core"),
        ("_ZN42_$LT$$RF$mut$u20$postcard..ser..Serializer$u20$as$u20$X$GT$3fmt17h45E", "postcard"),
        ("_ZN42_$LT$$RF$T$u20$as$u20$core..fmt..Debug$GT$3fmt17h45E", "core"),
        (".Lanon.a53033d6094ffa82.100", "constants"),
        ("__EXTERNAL_INTERRUPTS", "other"),
    ],
)
def test_a_symbol_counts_for_its_crate(symbol: str, crate: str) -> None:
    assert crate_of(symbol) == crate


def test_another_kind_of_file_is_refused() -> None:
    with pytest.raises(ValueError, match="not a little-endian 32-bit ELF program: it starts with 4d5a"):
        firmware_size(b"MZ\x90\0\0\0", b"")


def test_a_program_without_the_model_is_refused() -> None:
    with pytest.raises(ValueError, match="does not carry this model of 4 bytes"):
        firmware_size(b"\x7fELF\x01\x01".ljust(64, b"\0"), b"NANO")

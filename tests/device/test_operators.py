"""Operators with states, several outputs and other dtypes than int8, on the emulated board: its bytes are
those of the reference in nano-core's tests.
"""

from __future__ import annotations

import re
from pathlib import Path

import board_programs
import pytest


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What nano-core's test leaves for the board."""
    folder = tmp_path_factory.mktemp("cases")
    test = ["cargo", "test", "--quiet", "--package", "nano-core", "--all-features", "--test", "operators"]
    board_programs.run_host(test, board_programs.ROOT, TORCH_NANO_CASES=str(folder))
    return folder


@pytest.fixture(scope="module")
def program() -> Path:
    return board_programs.build("operators")


#: The bytes of the cases, by what they are of.
COUNTS = {
    "recurrent": 60 * (7 + 2 * 7),
    "wide": 40 * (4 * 4 + 2 * 9),
    "moved": 20 * 2 * (24 + 15),
}


# One test: on another worker cargo would make cases and program again.
def test_the_board_gives_the_bytes_of_the_reference(cases: Path, program: Path) -> None:
    for name, count in COUNTS.items():
        said = board_programs.run(program, cases / name)
        assert re.fullmatch(rf"{count} bytes are equal\s*", said), f"{name}: {said}"

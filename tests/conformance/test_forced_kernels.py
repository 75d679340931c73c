"""Every kernel of nano-core, on the host with overflow checks, on its processors and on the emulated board.

They are compared with plain torch. The image writer chooses one kernel for a layer; here it may only take
the kernel in question.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path

import board_programs
import pytest
from torch_nano import _native

from .forced_kernels import KERNELS, Case, cases, write


@pytest.fixture(scope="module")
def board_program() -> Path:
    return board_programs.build("cases")


@pytest.fixture(scope="module")
def host_program() -> Path:
    """Cargo's test profile checks overflows and has debug assertions."""
    command = ["cargo", "test", "--package", "nano-core", "--all-features", "--test", "cases", "--no-run"]
    built = board_programs.run_host([*command, "--message-format", "json"], board_programs.ROOT)
    artifacts = map(json.loads, built.splitlines())
    (program,) = (one["executable"] for one in artifacts if one.get("target", {}).get("name") == "cases")
    return Path(program)


def _check(said: str, part: list[Case], where: str) -> int:
    """Returns the number of compared bytes."""
    compared = [re.fullmatch(r"(\d+) of (\d+) bytes differ", line) for line in said.splitlines()[1::2]]
    assert len(compared) == len(part), said
    for case, found in zip(part, compared, strict=True):
        assert found is not None, said
        assert found[1] == "0", f"{where}, kernel {case.kernel}: {found[0]}, {case.origin}"
    return sum(int(found[2]) for found in compared if found is not None)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_forced_kernel_gives_the_bytes_of_plain_torch(
    kernel: str,
    kernel_layer_count: int,
    board_program: Path,
    host_program: Path,
    tmp_path: Path,
    compared: Callable[[str, int], None],
) -> None:
    made = list(cases(kernel, kernel_layer_count))
    most = board_programs.room(board_program)
    of_host = of_board = 0
    for path, part in write(made, tmp_path, most):
        of_host += _check(board_programs.run_host([host_program, path], board_programs.ROOT), part, "host")
        of_board += _check(board_programs.run(board_program, path, timeout=500), part, "board")
    expected = sum(output.nbytes for case in made for output in case.outputs)
    assert of_host == of_board == expected > 0
    compared(f"kernel {kernel}", len(made))
    for case in made:
        model = _native.Model(case.image)
        for processor in [None, *_native.processors()]:
            outputs = model.on(processor).run(case.inputs)
            for output, wanted in zip(outputs, case.outputs, strict=True):
                assert output.tobytes() == wanted.tobytes(), f"{processor}, kernel {kernel}: {case.origin}"

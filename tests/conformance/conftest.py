"""Options of the conformance tests, and what they compared."""

from collections.abc import Callable

import pytest

from .forced_kernels import KERNELS
from .layers import FAMILIES

#: Of each operator family, for every run of all tests; `just conformance` compares more.
_LAYERS = 60
#: For each kernel, for every run of all tests; `just conformance-device` compares more.
_KERNEL_LAYERS = 12


def pytest_addoption(parser: pytest.Parser) -> None:
    """`pytest tests/conformance --layers N`."""
    parser.addoption(
        "--layers",
        type=int,
        help=f"random layers in all, of all operator families alike (default: {_LAYERS} of each)",
    )
    parser.addoption(
        "--kernel-layers",
        type=int,
        help=f"random layers in all, for all kernels alike (default: {_KERNEL_LAYERS} for each)",
    )


@pytest.fixture(scope="session")
def layer_count(pytestconfig: pytest.Config) -> int:
    """The number of random layers per operator family."""
    # pytest reads options from this file only when it is started on this folder.
    count: int | None = pytestconfig.getoption("--layers", default=None)
    return _LAYERS if count is None else -(-count // len(FAMILIES))


@pytest.fixture(scope="session")
def kernel_layer_count(pytestconfig: pytest.Config) -> int:
    """The number of random layers per kernel."""
    count: int | None = pytestconfig.getoption("--kernel-layers", default=None)
    return _KERNEL_LAYERS if count is None else -(-count // len(KERNELS))


@pytest.fixture
def compared(record_property: Callable[[str, object], None]) -> Callable[[str, int], None]:
    """Records the operator family that a test compares, and its number of layers, for the summary."""

    def record(family: str, layers: int) -> None:
        record_property("family", family)
        record_property("layers", layers)

    return record


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints for each family how many layers had 0 differing bytes, and the time."""
    rows = [
        (properties["family"], properties["layers"], report.duration)
        for report in terminalreporter.getreports("passed")
        if "family" in (properties := dict(report.user_properties))
    ]
    if rows:
        terminalreporter.section("layers with 0 differing bytes")
    for family, layers, seconds in sorted(rows):
        terminalreporter.write_line(f"{family:<30} {layers:>7,} {seconds:>8.1f} s")
    if rows:
        terminalreporter.write_line(f"{'all':<30} {sum(layers for _, layers, _ in rows):>7,}")

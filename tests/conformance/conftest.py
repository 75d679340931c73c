"""Options of the conformance tests."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """`pytest tests/conformance --layers N`."""
    parser.addoption(
        "--layers", type=int, default=300, help="random layers per operator family (default: %(default)s)"
    )


@pytest.fixture(scope="session")
def layer_count(pytestconfig: pytest.Config) -> int:
    """The number of random layers per operator family."""
    # pytest reads options from this file only when it is started on this folder.
    count: int = pytestconfig.getoption("--layers", default=300)
    return count

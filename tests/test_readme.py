"""The README's code runs as it stands, and prints what the README shows."""

import contextlib
import io
import re
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"


def blocks(readme: Path) -> list[tuple[str, str]]:
    """The code of a README, and what it shows after each."""
    pattern = r"^```python\n(.*?)^```$(?:\n\n^```text\n(.*?)^```$)?"
    return re.findall(pattern, readme.read_text(), re.MULTILINE | re.DOTALL)


def test_the_code_of_the_firmware_runs() -> None:
    (block,) = blocks(README.parent / "esp32-app/README.md")
    exec(compile(block[0], "esp32-app/README.md", "exec"), {"__name__": "readme"})


def test_the_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert any(shown for _, shown in blocks(README))
    monkeypatch.chdir(tmp_path)
    for block, shown in blocks(README):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(block, str(README), "exec"), {"__name__": "readme"})
        if shown:
            assert_same_text(printed.getvalue(), shown)
    assert (tmp_path / "exported/model.nano").is_file()


def assert_same_text(found: str, shown: str) -> None:
    """Compares two texts word by word; numbers, which floats of another machine may change in the last
    digit, to within 2 %.
    """
    pairs = list(zip(found.split(), shown.split(), strict=True))
    for one, other in pairs:
        number, expected = (re.fullmatch(r"-?[\d.]+(?=%?,?$)%?,?", word) for word in (one, other))
        if number and expected:
            assert float(one.strip("%,")) == pytest.approx(float(other.strip("%,")), rel=0.02, abs=0.01)
        else:
            assert one == other, pairs

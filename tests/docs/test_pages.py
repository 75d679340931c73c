"""The documentation fits the code, as far as that shows without building it, as `just docs` does."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch_nano as tn
from check_links import broken
from torch_nano import _native

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
sys.path.append(str(DOCS / "extensions"))

import api_pages  # noqa: E402
import overview  # noqa: E402
import registries  # noqa: E402
import repository_files  # noqa: E402

PAGES = sorted(page for page in DOCS.rglob("*.md") if not page.name.startswith("torch_nano"))
CODE = re.compile(
    r"^```(?:python|\{code-cell\} ipython3)\n((?::[^\n]*\n)*)(.*?)^```", re.MULTILINE | re.DOTALL
)


def code(page: Path) -> list[str]:
    return [text for _, text in CODE.findall(page.read_text())]


def names_of(tree: ast.AST) -> set[str]:
    """What code takes of torch_nano, as `tn.heads.LDA`."""
    dotted = (ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute))
    return {name for name in dotted if re.fullmatch(r"tn(\.\w+)+", name)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(DOCS).as_posix())
def test_the_code_of_a_page_is_python_and_takes_what_exists(page: Path) -> None:
    for text in code(page):
        for name in names_of(ast.parse(text)):
            found: object = tn
            for part in name.split(".")[1:]:
                found = getattr(found, part)


def test_a_name_that_does_not_exist_would_be_noticed() -> None:
    named = names_of(ast.parse("tn.heads.LDA(start=tn.heads.Start(x))"))
    assert named == {"tn.heads", "tn.heads.LDA", "tn.heads.Start"}
    named = set.union(*(names_of(ast.parse(text)) for text in code(DOCS / "tutorials/fleet.md")))
    assert "tn.zoo.load" in named


def test_the_quick_start_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile("\n".join(code(DOCS / "quick-start.md")), "quick-start.md", "exec"), {"__name__": "page"})
    assert (tmp_path / "exported/model.nano").is_file()


def test_the_code_of_how_to_pages_runs() -> None:
    run = [text for page in sorted((DOCS / "how-to").glob("*.md")) for text in code(page)]
    assert run
    for text in run:
        exec(compile(text, "how-to", "exec"), {"__name__": "page"})


def test_every_public_module_has_a_page() -> None:
    modules = [getattr(tn, name) for name in tn.__all__]
    named = {module.__name__ for module in modules if isinstance(module, ModuleType)}
    assert named | {"torch_nano", "torch_nano.integrations.flower"} <= set(api_pages.modules())
    assert ":exclude-members: " in api_pages.page("torch_nano") and "Device" in api_pages.page("torch_nano")


def test_troubleshooting_names_errors_that_exist() -> None:
    text = (DOCS / "reference/troubleshooting.md").read_text()
    named = set(re.findall(r"`(\w+(?:Error|Warning|Failed|Lost|Timeout|Restarted))`", text))
    assert len(named) > 15 and named <= set(tn.errors.__all__)


def test_the_registries_are_whole() -> None:
    rows = registries.operators().splitlines()[2:]
    assert [row.split("`")[1] for row in rows] == list(_native.operators())
    assert all(f"`{name}`" in registries.chips() for name in tn.chips.chips())
    assert all(f"`{name}`" in registries.zoo() for name in tn.zoo.names())
    assert "## torch-nano convert" in registries.commands()
    assert registries.table(["a"], [["x|y"]]) == "| a |\n|---|\n| x\\|y |"


def test_every_document_of_the_repository_has_a_page() -> None:
    documents = {"README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "esp32-app/BOARDS.md"}
    assert documents <= set(repository_files.pages())
    for path, page in repository_files.pages().items():
        part = "after the first screen" if path == "README.md" else ""
        assert repository_files.included(path, part, page)


def test_links_of_the_repository_lead_to_pages() -> None:
    text = repository_files.included("README.md", "the first screen", "index.md")
    assert "](static/overview.svg)" in text
    text = repository_files.included("esp32-app/README.md", "", "project/firmware.md")
    assert "](boards.md#chips)" in text and "](BOARDS.md" not in text


def test_the_picture_of_the_readme_is_the_one_that_is_drawn() -> None:
    assert overview.FILE.read_text() == overview.draw(), "run docs/extensions/overview.py after a new card"


def test_the_first_screen_of_the_readme_is_short() -> None:
    first = (ROOT / "README.md").read_text().partition(repository_files.END_OF_FIRST_SCREEN)[0]
    assert len(first.splitlines()) <= 36 and first.count("```python") == 1


def test_broken_links_are_found(tmp_path: Path) -> None:
    (tmp_path / "other.html").write_text('<p id="here">')
    good = '<a href="other.html#here"></a><a href="https://example.org"></a><a href="#top" id="top"></a>'
    (tmp_path / "page.html").write_text(good)
    assert broken(tmp_path) == []
    (tmp_path / "third.html").write_text('<a href="gone.html"></a><a href="other.html#there"></a>')
    assert broken(tmp_path) == ["third.html: gone.html", "third.html: other.html#there"]

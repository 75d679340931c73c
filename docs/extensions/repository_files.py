"""Pages that are files of the repository, which so stand in one place.

`<!-- include: PATH -->` in a page is replaced by that file. Its links to files that have a page lead to the
page; of links to other files the text is left. README.md has a mark where its first screen ends.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
END_OF_FIRST_SCREEN = "<!-- end of the first screen -->"
INCLUDE = re.compile(r"<!-- include: ([^ ,]+)(?:, (the first screen|after the first screen))? -->")
LINK = re.compile(r"(?<!!)\[([^\[\]]+)\]\((?!https?:|#|mailto:)([^()#]+)(#[^()]*)?\)")
IMAGE = re.compile(r"!\[([^\[\]]*)\]\((?!https?:)([^()]+)\)")


def pages() -> dict[str, str]:
    """The page of each file that has one, as a path in docs/.

    >>> pages()["esp32-app/BOARDS.md"]
    'project/boards.md'
    """
    found = {}
    for page in sorted(DOCS.rglob("*.md")):
        for path, part in INCLUDE.findall(page.read_text()):
            if part != "the first screen":
                found[path] = page.relative_to(DOCS).as_posix()
    return found


def included(path: str, part: str, page: str) -> str:
    """A file's text, or a part of the README's, with links as the page needs them.

    Raises:
        OSError: there is no such file.
    """
    text = (ROOT / path).read_text()
    if part:
        first, mark, rest = text.partition(END_OF_FIRST_SCREEN)
        if not mark:
            raise ValueError(f"{path} has no line {END_OF_FIRST_SCREEN!r}")
        text = first if part == "the first screen" else rest
    folder, known, here = PurePosixPath(path).parent, pages(), PurePosixPath(page).parent

    def in_repository(target: str) -> str:
        return os.path.normpath(folder / target)

    def image(match: re.Match[str]) -> str:
        return f"![{match[1]}]({os.path.relpath(ROOT / in_repository(match[2]), DOCS / here)})"

    def link(match: re.Match[str]) -> str:
        target = in_repository(match[2])
        if target in known:
            return f"[{match[1]}]({os.path.relpath(known[target], here)}{match[3] or ''})"
        if not (ROOT / target).exists():
            raise ValueError(f"{path} links to {match[2]}, which does not exist")
        return match[1]

    return LINK.sub(link, IMAGE.sub(image, text))


def include(app: Sphinx, page: str, source: list[str]) -> None:
    """Replaces the marks of a page by the files."""
    source[0] = INCLUDE.sub(lambda match: included(match[1], match[2] or "", page), source[0])


def setup(app: Sphinx) -> dict[str, bool]:
    """Has pages include files."""
    app.connect("source-read", include)
    return {"parallel_read_safe": True}

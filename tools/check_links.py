"""Checks a built site: every link inside of it leads to a file, and to an element with that name.

    .venv/bin/python tools/check_links.py build/docs/html

Pages of `rust/` are rustdoc's, which checks its own links: only links to them are checked.
"""

from __future__ import annotations

import sys
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """The links of a page, and the names of its elements."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.names: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Collects an element's links and names."""
        for name, value in attributes:
            if value is None:
                continue
            if name in ("href", "src"):
                self.links.append(value)
            elif name in ("id", "name"):
                self.names.add(value)


@cache
def page(file: Path) -> Page:
    return Page(file.read_text())


def broken(site: Path) -> list[str]:
    """The links of a site that lead nowhere, each with its page."""
    found = []
    for file in sorted(site.rglob("*.html")):
        if file.relative_to(site).parts[0] == "rust":
            continue
        for link in page(file).links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            if target.is_dir():
                target /= "index.html"
            missing = not target.is_file()
            if not missing and parts.fragment and target.suffix == ".html":
                missing = unquote(parts.fragment) not in page(target).names
            if missing:
                found.append(f"{file.relative_to(site)}: {link}")
    return found


def main() -> None:
    site = Path(sys.argv[1])
    files = len(list(site.rglob("*.html")))
    if not files:
        sys.exit(f"{site} has no pages")
    lines = broken(site)
    if lines:
        sys.exit("broken links:\n" + "\n".join(lines))
    print(f"{files} pages, no broken links")


if __name__ == "__main__":
    main()

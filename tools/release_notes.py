"""Prints the notes of a release: its section of CHANGELOG.md.

    python3 tools/release_notes.py --tag v0.1.0

Ends with status 1 if the tag is not the version in Cargo.toml, if the changelog has no section of that
version, or if a tagged version has no date there.
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def notes(changelog: str, version: str, *, released: bool) -> str:
    """The section of a version; a released one has a date.

    >>> log = "# Changelog\\n\\n## 1.1.0 - unreleased\\n\\n- b\\n\\n## 1.0.0 - 2026-01-31\\n\\n- a\\n"
    >>> notes(log, "1.0.0", released=True)
    '- a\\n'

    Raises:
        ValueError: the changelog has no such section, or one without a date.
    """
    sections = re.split(r"(?m)^## ", changelog)[1:]
    for section in sections:
        title, _, text = section.partition("\n")
        if title.split(" ")[0] == version:
            if released and re.search(r" - \d{4}-\d\d-\d\d$", title) is None:
                raise ValueError(f"CHANGELOG.md has '## {title}': expected '## {version} - year-month-day'")
            return text.strip() + "\n"
    titles = ", ".join(section.partition("\n")[0] for section in sections)
    raise ValueError(f"CHANGELOG.md has no section '## {version}', only: {titles}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tag", default="", help="the tag, as v0.1.0; none: the notes of the next release")
    tag = parser.parse_args().tag
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]
    if tag not in ("", f"v{version}"):
        sys.exit(f"release: the tag is {tag}, the version in Cargo.toml {version}: expected v{version}")
    try:
        print(notes((ROOT / "CHANGELOG.md").read_text(), version, released=bool(tag)), end="")
    except ValueError as error:
        sys.exit(f"release: {error}")


if __name__ == "__main__":
    main()

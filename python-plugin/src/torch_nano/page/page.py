"""Renders a page: one file of HTML with its style, pictures and nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ..tables import Table


@dataclass(frozen=True)
class Figure:
    """A figure at the top of a page."""

    title: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Bar:
    """How much of something is used."""

    title: str
    #: 0 and more; above 1 it is too much.
    share: float
    note: str


@dataclass(frozen=True)
class Section:
    """A part of a page; what is empty is left out."""

    title: str
    #: A sentence below the title.
    text: str = ""
    #: An SVG.
    picture: Markup | None = None
    tables: Sequence[Table] = ()
    #: The first column's names, and numbers: a matrix whose cells are coloured by their share of the row.
    matrix: tuple[Sequence[str], Sequence[Sequence[int]]] | None = None
    #: Bars under headings.
    bars: Sequence[tuple[str, Sequence[Bar]]] = ()
    #: Explanations of the picture's colours: a class of the style, and its meaning.
    legend: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Page:
    """A page."""

    title: str
    subtitle: str
    figures: Sequence[Figure]
    sections: Sequence[Section] = field(default_factory=list)


def render(page: Page) -> str:
    """The page as HTML.

    >>> "<h1>&lt;net&gt;</h1>" in render(Page("<net>", "", []))
    True
    """
    environment = Environment(
        loader=PackageLoader(__package__, "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.jinja").render(page=page, table=_table)


def _table(table: Table) -> Markup:
    # A Table escapes its texts itself.
    return Markup(table.html())

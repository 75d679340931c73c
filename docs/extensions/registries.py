"""Directives that print the registries of torch_nano as tables, so that no page repeats what code says."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import click
import torch_nano as tn
import typer
from docutils import nodes  # type: ignore[import-untyped]
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from torch_nano import _native
from torch_nano.ops import OPERATORS
from torch_nano_cli.main import app  # type: ignore[import-untyped]


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in Markdown.

    >>> print(table(["a", "b"], [[1, "x|y"]]))
    | a | b |
    |---|---|
    | 1 | x\\|y |
    """
    lines = [header, *rows]
    cells = ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines]
    return "\n".join([cells[0], "|" + "---|" * len(header), *cells[1:]])


def first_paragraph(of: type) -> str:
    """What a class is for, in one line."""
    return (inspect.getdoc(of) or "").partition("\n\n")[0].replace("\n", " ")


def chips() -> str:
    """All chips, with the facts that decide whether a model fits."""
    header = ["chip", "name", "clock (MHz)", "RAM for a model (KB)", "flash (MB)", "cycle model", "firmware"]
    rows = [
        (
            chip.title,
            f"`{chip.name}`",
            chip.clock // 10**6,
            chip.model_ram // 1000,
            chip.flash // 2**20,
            "yes" if chip.costs else "costs unknown",
            "builds" if chip.builds else chip.reason,
        )
        for chip in tn.chips.chips().values()
    ]
    return table(header, rows)


def operators() -> str:
    """All operators of the image, with the calls of torch that become them, their dtypes and kernels."""
    facts = _native.operators()
    by_name = {operator.name: operator for operator in OPERATORS}
    rows = []
    for name, fact in facts.items():
        # Operators that passes make of others have no class of their own.
        operator = by_name.get(name)
        calls = (
            sorted({str(call).removeprefix("aten.").removesuffix(".default") for call in operator.targets()})
            if operator
            else []
        )
        summary = first_paragraph(operator).replace("``", "`") if operator else "several of these in one"
        dtypes = sorted({"/".join(inputs) for inputs, _ in fact["dtypes"]})
        rows.append(
            (
                f"`{name}`",
                summary,
                ", ".join(f"`{call}`" for call in calls) or "made of other operators, by passes",
                "<br>".join(dtypes),
                len(fact["kernels"]),
            )
        )
    return table(["operator", "what it computes", "calls (aten)", "inputs", "kernels"], rows)


def zoo() -> str:
    """The cards of the zoo's models."""
    cards = [tn.zoo.card(name) for name in tn.zoo.names()]
    header = ["", *(f"`{card.name}`" for card in cards)]
    rows: list[tuple[str, Callable[[tn.zoo.Card], object]]] = [
        ("task", lambda card: card.task),
        ("input", lambda card: card.input),
        ("classes", lambda card: ", ".join(card.classes)),
        ("accuracy in float", lambda card: f"{card.accuracy_float} %"),
        ("accuracy in int8", lambda card: f"{card.accuracy_int8} %"),
        ("scored on", lambda card: card.scored),
        ("a user, as shipped", lambda card: f"{card.accuracy_before} %"),
        ("a user, after learning", lambda card: f"{card.accuracy_personal} %"),
        ("the user", lambda card: card.user),
        ("flash", lambda card: f"{card.flash_bytes:,} B"),
        ("RAM of a run", lambda card: f"{card.arena_bytes:,} B"),
        ("RAM of the head", lambda card: f"{card.head_bytes:,} B"),
        *(
            (f"time on {chip}, modelled", lambda card, chip=chip: f"{card.milliseconds[chip]} ms")
            for chip in cards[0].milliseconds
        ),
        ("data", lambda card: card.data),
    ]
    return table(header, [(name, *map(value, cards)) for name, value in rows])


def errors() -> str:
    """All errors and warnings: what each is about, and of which kind it is."""
    kinds = [getattr(tn.errors, name) for name in tn.errors.__all__]
    rows = [
        (
            f"`{kind.__name__}`",
            first_paragraph(kind),
            f"`{kind.__base__.__name__}`",
        )
        for kind in kinds
        if issubclass(kind, BaseException)
    ]
    return table(["name", "when", "is a"], rows)


def commands() -> str:
    """All commands of `torch-nano`, with their arguments and options."""
    parts: list[str] = []

    def describe(command: click.Command, path: str) -> None:
        if isinstance(command, click.Group):
            for name, child in command.commands.items():
                describe(child, f"{path} {name}")
            return
        text = " ".join((command.help or "").partition("\f")[0].split())
        rows = [option(parameter) for parameter in command.params if parameter.name != "help"]
        parts.append(f"## {path}\n\n{text}\n\n" + (table(["argument", "meaning"], rows) if rows else ""))

    describe(typer.main.get_command(app), "torch-nano")
    return "\n\n".join(parts)


def option(parameter: Any) -> tuple[str, str]:
    """A parameter's names, and its help."""
    names = parameter.opts if isinstance(parameter, click.Option) else [str(parameter.name).upper()]
    return ", ".join(f"`{name}`" for name in names), " ".join(
        (getattr(parameter, "help", None) or "").split()
    )


REGISTRIES: dict[str, Callable[[], str]] = {
    "chips": chips,
    "operators": operators,
    "zoo": zoo,
    "errors": errors,
    "commands": commands,
}


class Registry(SphinxDirective):
    """`{registry} chips`: the table of a registry."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        if name not in REGISTRIES:
            raise self.error(f"no registry {name!r}; expected one of {', '.join(REGISTRIES)}")
        return self.parse_text_to_nodes(REGISTRIES[name](), allow_section_headings=True)


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers the directive."""
    app.add_directive("registry", Registry)
    return {"parallel_read_safe": True}

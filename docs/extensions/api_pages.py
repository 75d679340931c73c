"""Writes a page for each public module, `reference/api/MODULE.md`, which autodoc fills from docstrings."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from types import ModuleType

import torch_nano as tn
import torch_nano.integrations
from sphinx.application import Sphinx

FOLDER = Path(__file__).parents[1] / "reference/api"


def modules() -> list[str]:
    """The public modules: the package, the submodules that it exports, and the integrations.

    >>> modules()[:2]
    ['torch_nano', 'torch_nano.chips']
    """
    exported = [getattr(tn, name) for name in tn.__all__]
    submodules = [module.__name__ for module in exported if isinstance(module, ModuleType)]
    integrations = [
        f"{torch_nano.integrations.__name__}.{module.name}"
        for module in pkgutil.iter_modules(torch_nano.integrations.__path__)
    ]
    faces = [name for name in integrations if hasattr(importlib.import_module(name), "__all__")]
    return [tn.__name__, *submodules, *faces]


def page(module: str) -> str:
    """The page of a module, in Markdown; what a submodule has is described there only."""
    elsewhere = []
    if module == tn.__name__:
        others = [vars(importlib.import_module(name)) for name in modules() if name != module]
        elsewhere = [name for name in tn.__all__ if any(name in other.get("__all__", []) for other in others)]
    lines = [f"# {module}", ""]
    if elsewhere:
        names = ", ".join(f"`{name}`" for name in elsewhere)
        lines += [f"{names} are described with the submodules that have them.", ""]
    lines += ["```{eval-rst}", f".. automodule:: {module}"]
    if elsewhere:
        lines += [f"   :exclude-members: {', '.join(elsewhere)}"]
    return "\n".join([*lines, "```", ""])


def write(app: Sphinx) -> None:
    """Writes all pages, and removes those of modules that are no more."""
    wanted = {FOLDER / f"{module}.md": page(module) for module in modules()}
    for file in set(FOLDER.glob("torch_nano*.md")) - set(wanted):
        file.unlink()
    for file, text in wanted.items():
        if not file.exists() or file.read_text() != text:
            file.write_text(text)


def setup(app: Sphinx) -> dict[str, bool]:
    """Has the pages written before Sphinx looks for pages."""
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True}

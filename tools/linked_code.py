"""Which code of a linked program each kernel needs: sections of its object file, followed along relocations.

After link-time optimization each function and each constant is a section of its own. A kernel's code is what
its entry in the table of kernels reaches, and the rest of the program does not. The linker shortens calls and
folds equal functions into one: the bytes of a function are those that it has in the linked program.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelocationSection

#: A section and an offset in it; that of a constant in a section of merged constants, otherwise 0.
Place = tuple[int, int]

_ALLOCATED, _MERGED = 2, 16
#: esp-hal's linker script puts such constants into RAM.
_IN_RAM = ".rodata..Lswitch.table."


@dataclass(frozen=True)
class Linked:
    """What some kernels add to a program, in bytes."""

    #: Code and constants in flash.
    flash: int = 0
    #: Constants of these that are also in RAM.
    ram: int = 0

    def __add__(self, other: Linked) -> Linked:
        return Linked(self.flash + other.flash, self.ram + other.ram)


class Program:
    """The code and constants of an object file.

    Args:
        linked: the program that is linked of it.
        kernels: those in the program's table of kernels, in its order.

    Raises:
        ValueError: the file has no such table.
    """

    def __init__(self, object_file: Path, linked: Path, kernels: Sequence[str]) -> None:
        self.kernels = kernels
        with linked.open("rb") as file:
            #: Address and bytes of each linked function.
            self._functions = {
                symbol.name: (symbol["st_value"], symbol["st_size"]) for symbol in _functions(ELFFile(file))
            }
        self._sizes: dict[Place, int] = {}
        self._references: dict[Place, list[tuple[int, Place]]] = defaultdict(list)
        self._roots: list[Place] = []
        with object_file.open("rb") as file:
            self._read(ELFFile(file))
        tables = [
            place
            for place, references in self._references.items()
            if place[0] in self._constants
            and len(references) >= 5 * len(kernels)
            and self._sizes[place] % len(kernels) == 0
        ]
        if len(tables) != 1:
            raise ValueError(
                f"{object_file} has {len(tables)} tables of {len(kernels)} kernels; expected one"
            )
        self._table = tables[0]
        #: Bytes of a kernel's entry in the table.
        self.entry = self._sizes[self._table] // len(kernels)

    def groups(self) -> dict[frozenset[str], Linked]:
        """What exactly these kernels need, and the rest of the program does not."""
        rest = self._reached(self._roots)
        users: dict[Place, set[str]] = defaultdict(set)
        for index, kernel in enumerate(self.kernels):
            entry = [
                place for offset, place in self._references[self._table] if offset // self.entry == index
            ]
            for place in self._reached(entry) - rest:
                users[place].add(kernel)
        groups: dict[frozenset[str], Linked] = defaultdict(Linked)
        for place, names in users.items():
            size = self._sizes[place]
            groups[frozenset(names)] += Linked(size, size if place[0] in self._in_ram else 0)
        return dict(groups)

    def _read(self, elf: Any) -> None:
        sections = list(elf.iter_sections())
        symbols = list(elf.get_section_by_name(".symtab").iter_symbols())
        kept = {
            index: section
            for index, section in enumerate(sections)
            if section["sh_flags"] & _ALLOCATED and section.name.startswith((".text", ".rodata"))
        }
        self._in_ram = {index for index, section in kept.items() if section.name.startswith(_IN_RAM)}
        self._constants = {index for index, section in kept.items() if section.name.startswith(".rodata")}
        merged = {index for index, section in kept.items() if section["sh_flags"] & _MERGED}
        self._sizes = {(index, 0): kept[index]["sh_size"] for index in kept.keys() - merged}
        # Functions that are linked at one address are one.
        folded: dict[int, int] = {}
        first_at: dict[int, int] = {}
        for function in _functions(elf):
            index = function["st_shndx"]
            if index in kept and function.name in self._functions:
                address, size = self._functions[function.name]
                folded[index] = first_at.setdefault(address, index)
                # Its section ends with instructions that are out of line, which its symbol does not count.
                self._sizes[index, 0] = size + kept[index]["sh_size"] - function["st_size"]
        for section in sections:
            if not isinstance(section, RelocationSection):
                continue
            owner = folded.get(section["sh_info"], section["sh_info"])
            for relocation in section.iter_relocations():
                symbol = symbols[relocation["r_info_sym"]]
                index = symbol["st_shndx"]
                if index not in kept:
                    continue
                index = folded.get(index, index)
                place = (index, symbol["st_value"] if index in merged else 0)
                if index in merged:
                    self._sizes[place] = symbol["st_size"]
                if owner in kept:
                    self._references[owner, 0].append((relocation["r_offset"], place))
                elif not sections[owner].name.startswith((".eh_frame", ".debug")):
                    # Of code in RAM, traps and start-up.
                    self._roots.append(place)
        self._roots += [(index, 0) for index, section in kept.items() if section.name == ".text.main"]

    def _reached(self, places: Iterable[Place]) -> set[Place]:
        """The places that these refer to, and those that they refer to, except by the table of kernels."""
        reached: set[Place] = set()
        left = list(places)
        while left:
            place = left.pop()
            if place in reached or place == self._table:
                continue
            reached.add(place)
            left += [target for _, target in self._references[place]]
        return reached


def section_sizes(program: Path) -> dict[str, int]:
    """Bytes of the sections of a linked program, by name."""
    with program.open("rb") as file:
        return {section.name: section["sh_size"] for section in _sections(file)}


def static_size(program: Path, name: str) -> int:
    """Bytes of the static of this name in a linked program; 0 without one.

    Raises:
        ValueError: there are several.
    """
    # Rust's mangling (v0) ends with the name, after its length.
    mangled = f"{len(name)}{name}"
    with program.open("rb") as file:
        table: Any = ELFFile(file).get_section_by_name(".symtab")
        sizes = [symbol["st_size"] for symbol in table.iter_symbols() if symbol.name.endswith(mangled)]
    if len(sizes) > 1:
        raise ValueError(f"{program} has {len(sizes)} statics named {name}; expected one")
    return int(sum(sizes))


def _sections(file: Any) -> Iterator[Any]:
    yield from ELFFile(file).iter_sections()


def _functions(elf: Any) -> Iterator[Any]:
    table = elf.get_section_by_name(".symtab")
    yield from (symbol for symbol in table.iter_symbols() if symbol["st_info"]["type"] == "STT_FUNC")

"""How deep the emulated board's stack goes: its memory is a file, in which the stack is painted first."""

from __future__ import annotations

import tempfile
from functools import cache
from typing import Any

from elftools.elf.elffile import ELFFile
from panic_sites import BOARD_PROGRAM
from torch_nano.device.transport.qemu import QemuBoard

_PAINT = b"\xa5"
#: Of the board's memory.
_START = 0x8000_0000


class PaintedBoard(QemuBoard):
    """An emulated board with a painted stack."""

    def _memory(self, mebibytes: int) -> list[str]:
        start, end = _stack()
        #: The board's memory.
        self._file = tempfile.NamedTemporaryFile()  # noqa: SIM115, closed with the board
        self._file.truncate(mebibytes << 20)
        self._file.seek(start - _START)
        self._file.write(_PAINT * (end - start))
        self._file.flush()
        backend = f"memory-backend-file,id=ram,size={mebibytes}M,mem-path={self._file.name},share=on"
        return [*super()._memory(mebibytes), "-object", backend, "-machine", "memory-backend=ram"]

    def high_water(self) -> int:
        """Bytes from the start of the stack to the deepest byte that was ever written."""
        start, end = _stack()
        self._file.seek(start - _START)
        stack = self._file.read(end - start)
        return len(stack.lstrip(_PAINT))

    def close(self) -> None:
        super().close()
        self._file.close()


@cache
def _stack() -> tuple[int, int]:
    """The lowest address of the stack, and the address after its highest."""
    with BOARD_PROGRAM.open("rb") as file:
        symbols: Any = ELFFile(file).get_section_by_name(".symtab")
        code_start, code_size, top = (
            int(symbols.get_symbol_by_name(name)[0]["st_value"])
            for name in ("_code_start", "_code_size", "_stack_top")
        )
    return code_start + code_size, top

"""An assembler for the few rv32imc instructions of small test programs."""

from __future__ import annotations

ZERO, T0, T1, T2, S0, S1, A0, A1 = 0, 5, 6, 7, 8, 9, 10, 11


def _word(opcode: int, rd: int, function: int, rs1: int, rest: int) -> bytes:
    return (rest << 20 | rs1 << 15 | function << 12 | rd << 7 | opcode).to_bytes(4, "little")


def lui(rd: int, upper: int) -> bytes:
    """rd = upper, of which the low 12 bits are 0."""
    assert upper & 0xFFF == 0
    return (upper | rd << 7 | 0x37).to_bytes(4, "little")


def addi(rd: int, rs1: int, number: int) -> bytes:
    """rd = rs1 + number."""
    return _word(0x13, rd, 0, rs1, number & 0xFFF)


def add(rd: int, rs1: int, rs2: int) -> bytes:
    """rd = rs1 + rs2."""
    return _word(0x33, rd, 0, rs1, rs2)


def muldiv(function: int, rd: int, rs1: int, rs2: int) -> bytes:
    """mul, mulh, mulhsu, mulhu, div, divu, rem, remu by number."""
    return _word(0x33, rd, function, rs1, 1 << 5 | rs2)


def lw(rd: int, offset: int, rs1: int) -> bytes:
    """rd = the word at rs1 + offset."""
    return _word(0x03, rd, 2, rs1, offset & 0xFFF)


def sw(rs2: int, offset: int, rs1: int) -> bytes:
    """The word at rs1 + offset = rs2."""
    return _word(0x23, offset & 0x1F, 2, rs1, (offset >> 5 & 0x7F) << 5 | rs2)


def bne(rs1: int, rs2: int, offset: int) -> bytes:
    """A jump by an offset in bytes unless rs1 = rs2."""
    low = offset & 0x1E | offset >> 11 & 1
    high = (offset >> 12 & 1) << 6 | offset >> 5 & 0x3F
    return _word(0x63, low, 1, rs1, high << 5 | rs2)


def j(offset: int) -> bytes:
    """A jump by an offset in bytes, of less than 2 KiB forwards."""
    assert 0 <= offset < 2048
    return _word(0x6F, 0, 0, 0, offset & 0x7FE)


def jr(rs1: int) -> bytes:
    """A jump to the address in rs1."""
    return _word(0x67, 0, 0, rs1, 0)


def read_counter(rd: int) -> bytes:
    """rd = the number of retired instructions."""
    return _word(0x73, rd, 2, 0, 0xB02)


def c_nop() -> bytes:
    """Two bytes that do nothing."""
    return (0x0001).to_bytes(2, "little")

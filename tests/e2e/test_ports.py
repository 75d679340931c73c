"""The board's port and the programmer: found, or refused with what to do."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import tty
from collections.abc import Callable
from pathlib import Path

import pytest
from firmware import ports, programmers
from firmware.errors import PortError, ProgrammerMissing
from firmware.ports import Port
from serial.tools.list_ports_common import ListPortInfo
from torch_nano.chips import chip

ROOT = Path(__file__).resolve().parents[2]
C2, C3 = chip("esp32c2"), chip("esp32c3")
JTAG, CONVERTER, MODEM = ("/dev/ttyACM0", 0x303A), ("/dev/ttyUSB0", 0x10C4), ("/dev/ttyS0", None)
OWN, CABLE = Port("/dev/ttyACM0", True), Port("/dev/ttyUSB0", False)


@pytest.fixture
def plug(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes a list of ports that are there, each with its USB vendor."""

    def plugged(*present: tuple[str, int | None]) -> None:
        found = []
        for device, vendor in present:
            info = ListPortInfo(device)
            info.vid = vendor
            found.append(info)
        monkeypatch.setattr(ports.list_ports, "comports", lambda: found)

    return plugged


def test_the_chips_own_usb_is_preferred_and_a_converter_taken(plug: Callable[..., None]) -> None:
    plug(MODEM, CONVERTER, JTAG)
    assert ports.find(C3, None) == OWN
    assert ports.find(C2, None) == CABLE
    assert ports.find(C3, "/dev/ttyUSB0") == CABLE
    plug(CONVERTER)
    assert ports.find(C3, None) == CABLE


def test_a_link_to_a_port_is_that_port(plug: Callable[..., None], tmp_path: Path) -> None:
    port, link = tmp_path / "ttyACM0", tmp_path / "by-id"
    port.touch()
    link.symlink_to(port)
    plug((str(port), 0x303A))
    assert ports.find(C3, str(link)) == Port(str(link), True)


def test_the_monitor_shows_what_a_board_sends() -> None:
    (board, port), (console, terminal) = pty.openpty(), pty.openpty()
    tty.setraw(port)
    command = [sys.executable, "-m", "tools.firmware", "monitor", "--port", os.ttyname(port)]
    shown = b""
    with subprocess.Popen(command, cwd=ROOT, stdin=terminal, stdout=terminal, stderr=terminal) as monitor:
        os.close(terminal)
        while b"Quit: Ctrl+]" not in shown:
            shown += os.read(console, 4096)
        os.write(board, b"panicked at src/main.rs:7\r\n")
        while b"src/main.rs:7" not in shown:
            shown += os.read(console, 4096)
        os.write(console, b"\x1d")  # Ctrl-]
    for end in (board, port, console):
        os.close(end)
    assert monitor.returncode == 0, shown


def test_no_port_and_several_are_refused(plug: Callable[..., None]) -> None:
    plug(MODEM)
    with pytest.raises(
        PortError, match=r"no board is connected; the ports here are no board's: /dev/ttyS0\."
    ):
        ports.find(C3, None)
    plug(JTAG)
    with pytest.raises(PortError, match=r"Connect the serial converter by a data cable"):
        ports.find(C2, None)
    with pytest.raises(PortError, match=r"there is no port /dev/ttyACM9; the ports here: /dev/ttyACM0"):
        ports.find(C3, "/dev/ttyACM9")
    plug(JTAG, ("/dev/ttyACM1", 0x303A))
    with pytest.raises(
        PortError, match=r"several ports may be the board's: /dev/ttyACM0, /dev/ttyACM1\. .*--port"
    ):
        ports.find(C3, None)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes these programs the only ones on the path."""

    def install(*names: str) -> None:
        for name in names:
            (tmp_path / name).write_text("#!/bin/sh\n")
            (tmp_path / name).chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))

    return install


def test_the_first_programmer_that_is_there_and_can_use_the_port_is_taken(
    installed: Callable[..., None],
) -> None:
    def words(port: Port, name: str | None = None) -> list[str]:
        commands = programmers.choose(name, port).commands(C3, port, Path("image.bin"))
        return [" ".join(str(word) for word in command) for command in commands]

    installed()
    assert words(OWN)[0].endswith("-m esptool --chip esp32c3 --port /dev/ttyACM0 write-flash 0x0 image.bin")
    installed("espflash")
    assert words(OWN) == ["espflash write-bin --chip esp32c3 --port /dev/ttyACM0 0x0 image.bin"]
    installed("probe-rs")
    download = "probe-rs download --chip esp32c3 --binary-format bin --base-address 0x0 image.bin"
    assert words(OWN) == [download, "probe-rs reset --chip esp32c3"]
    assert words(CABLE) == words(CABLE, "espflash")
    assert words(OWN, "esptool")[0].endswith("image.bin")


def test_a_programmer_that_is_missing_or_cannot_use_the_port_is_refused(
    installed: Callable[..., None],
) -> None:
    installed()
    with pytest.raises(
        ProgrammerMissing, match=r"no programmer 'openocd'; expected one of probe-rs, espflash"
    ):
        programmers.choose("openocd", OWN)
    with pytest.raises(ProgrammerMissing, match=r"not installed. Install it: cargo install probe-rs-tools"):
        programmers.choose("probe-rs", OWN)
    installed("probe-rs")
    with pytest.raises(
        ProgrammerMissing, match=r"/dev/ttyUSB0 is a serial converter: connect the chip's USB"
    ):
        programmers.choose("probe-rs", CABLE)

"""An emulator ends with the process that started it, however that ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from images import with_head
from torch_nano import Device
from torch_nano.device import QemuBoard
from torch_nano.device.transport import lifetime
from torch_nano.errors import BoardError

IMAGE = with_head()
INPUT = np.random.default_rng(0).integers(-128, 128, 216, np.int8)
#: Prints the number of the emulator's process once it has answered, and waits to be killed.
SCRIPT = """
import sys, threading, time
from pathlib import Path
from torch_nano import Device

devices = []
def connect():
    devices.append(Device("qemu", nano=Path(sys.argv[1]).read_bytes()))
if sys.argv[2] == "thread":
    thread = threading.Thread(target=connect)
    thread.start()
    thread.join()
else:
    connect()
time.sleep(0.3)
assert devices[0].stats().requests > 0
print(devices[0]._link.stream._process.pid, flush=True)
time.sleep(600)
"""


def is_running(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def ends(process: int) -> bool:
    deadline = time.monotonic() + 20
    while is_running(process) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not is_running(process)


@pytest.mark.parametrize("opened", ["main", "thread"])
def test_an_emulator_ends_when_its_parent_is_killed(opened: str, tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(IMAGE)
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "image"), opened]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        emulator = int(parent.stdout.readline())
        assert is_running(emulator)
        parent.kill()
    assert ends(emulator)


def test_an_emulator_keeps_running_after_the_thread_that_started_it() -> None:
    made: list[Device] = []
    thread = threading.Thread(target=lambda: made.append(Device("qemu", nano=IMAGE)))
    thread.start()
    thread.join()
    with made[0] as device:
        time.sleep(0.2)
        assert device.predict(INPUT).label >= 0


def test_a_program_whose_parent_is_gone_already_does_not_start(tmp_path: Path) -> None:
    """The parent may be killed before the program has asked to be killed with it."""
    started = tmp_path / "started"
    command = [sys.executable, "-I", "-S", "-c", lifetime._START]
    other = str(os.getppid())
    ended = subprocess.run([*command, other, "/usr/bin/touch", str(started)], stderr=subprocess.PIPE)
    assert ended.returncode == 1 and b"the parent is gone" in ended.stderr and not started.exists()
    assert subprocess.run([*command, str(os.getpid()), "/usr/bin/touch", str(started)]).returncode == 0
    assert started.exists()


def test_a_program_that_cannot_start_is_an_error_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(FileNotFoundError, match="/no/such/python"):
        lifetime.start(["/usr/bin/true"])
    monkeypatch.undo()
    assert lifetime.start(["/usr/bin/true"]).wait() == 0


def test_a_forked_process_neither_uses_nor_ends_its_parents_board() -> None:
    with QemuBoard(IMAGE) as board:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                with pytest.raises(BoardError, match="from which this one was forked"):
                    board.read(1)
                board.close()
                # A board of its own, started by a thread of its own.
                with Device("qemu", nano=IMAGE) as own:
                    status = 0 if own.predict(INPUT).label >= 0 else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert Device(board).predict(INPUT).label >= 0


def test_an_interrupt_at_the_start_leaves_no_program() -> None:
    script = (
        "import os, signal, sys, time\n"
        "from torch_nano.device.transport import lifetime\n"
        "popen = lifetime.subprocess.Popen\n"
        "def slow(*given, **options):\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    time.sleep(0.3)\n"
        "    made.append(popen(*given, **options))\n"
        "    return made[0]\n"
        "made, lifetime.subprocess.Popen = [], slow\n"
        "try:\n"
        "    lifetime.start(['/usr/bin/sleep', '600'])\n"
        "except KeyboardInterrupt:\n"
        "    time.sleep(1)\n"
        "    print(made[0].returncode)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert ended.stdout == f"{-signal.SIGKILL}\n", ended.stderr

"""Fuzz target `files`: damaged files of every kind. Only errors of torch_nano may escape, in bounded time
and memory.

    python fuzz/python/files.py SECONDS --seed N --output FOLDER
    python fuzz/python/files.py --reproduce FILE

Changed files that reach new lines of the package are changed further.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import torch_nano
from kinds import Kind, kinds
from torch_nano import TorchNanoError

_PACKAGE = str(Path(torch_nano.__file__).parent)
#: Limits for reading one of these small files: bytes of memory, and seconds of this process.
_MEMORY, _SECONDS = 96 << 20, 10
_STATUS = Path("/proc/self/status")


class Finding(Exception):
    """Something that reading a file must not do."""


class Lines:
    """The lines of the package that were run: pairs of a code object and a line."""

    def __init__(self) -> None:
        self.seen: set[tuple[Any, int]] = set()
        self._new = False

    def __enter__(self) -> Lines:
        self._new = False
        sys.settrace(self._call)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    @property
    def new(self) -> bool:
        """Whether a line was run that was never run before."""
        return self._new

    def _call(self, frame: FrameType, event: str, argument: object) -> Any:
        return self._line if frame.f_code.co_filename.startswith(_PACKAGE) else None

    def _line(self, frame: FrameType, event: str, argument: object) -> Any:
        line = (frame.f_code, frame.f_lineno)
        if event == "line" and line not in self.seen:
            self.seen.add(line)
            self._new = True
        return self._line


def _peak() -> int:
    """The peak memory of this process since :func:`_reset_peak`, in bytes."""
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) << 10


def _reset_peak() -> int:
    Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _out_of_time(signal_number: int, frame: FrameType | None) -> None:
    raise Finding(f"it takes more than {_SECONDS} s")


def read(kind: Kind, path: Path) -> TorchNanoError | None:
    """Reads a file with the reader of its kind; returns the error that refused it.

    Raises:
        Finding: another error escaped, or it took too much memory or time.
    """
    before = _reset_peak()
    signal.setitimer(signal.ITIMER_PROF, _SECONDS)
    refusal: TorchNanoError | None = None
    try:
        kind.read(path)
    except TorchNanoError as error:
        refusal = error
    except Finding:
        raise
    except Exception as error:
        raise Finding(str(error)[:300]) from error
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    taken = _peak() - before
    if taken > _MEMORY:
        raise Finding(f"it takes {taken >> 20} MiB of memory")
    return refusal


def raised_at(error: BaseException) -> str:
    """The place in the package where an error was raised, in the notation of :mod:`rules`."""
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(_PACKAGE)
    ]
    return f"{Path(frames[-1].filename).relative_to(_PACKAGE)}:{frames[-1].lineno}" if frames else "?"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and its causes."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def fuzz(kind: Kind, path: Path, seconds: float, rng: random.Random, lines: Lines, report: Report) -> None:
    """Reads changed files for a time, each written to `path`; the files of findings are kept."""
    corpus = []
    for content in kind.seeds:
        refused = _one(kind, content, path, lines, report)
        if refused is not None:
            report.find(path, f"a file that nobody changed is refused: {refused}", "seed")
        corpus.append(content)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        # The latest files are chosen most often.
        content = rng.choices(corpus, range(1, len(corpus) + 1))[0]
        for _ in range(rng.choice([1, 1, 1, 2, 3])):
            content = rng.choice(kind.changes)(content, rng)
        error = _one(kind, content, path, lines, report)
        if error is not None:
            report.refusals |= {raised_at(cause) for cause in _causes(error)}
        if lines.new and len(content) < 1 << 20:
            corpus.append(content)
    path.unlink(missing_ok=True)


def _one(kind: Kind, content: bytes, path: Path, lines: Lines, report: Report) -> TorchNanoError | None:
    path.write_bytes(content)
    report.executions += 1
    try:
        with lines:
            return read(kind, path)
    except Finding as finding:
        cause = finding.__cause__ or finding
        report.find(path, str(finding), f"{type(cause).__name__} at {raised_at(cause)}")
        return None


class Report:
    """The refusals and findings of a run."""

    def __init__(self) -> None:
        self.executions = 0
        self.refusals: set[str] = set()
        self.findings: list[dict[str, str]] = []
        self._known: set[str] = set()

    def find(self, path: Path, text: str, kind: str) -> None:
        """Keeps a finding and its file, if it is the first of its kind."""
        if kind not in self._known:
            self._known.add(kind)
            kept = path.with_stem(f"{path.stem}-finding-{len(self.findings)}")
            shutil.copyfile(path, kept)
            self.findings.append({"input": str(kept), "text": f"{kind}: {text}"})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seconds", type=float, nargs="?", default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("fuzz/artifacts"))
    parser.add_argument("--reproduce", type=Path)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # what numpy and torch say of a file is not what the package says
    torch.set_num_threads(1)
    signal.signal(signal.SIGPROF, _out_of_time)
    # An allocation beyond the limit is refused by the system and must not write a core dump.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with tempfile.TemporaryDirectory(prefix="torch-nano-fuzz-") as folder:
        every = kinds(Path(folder))
        if arguments.reproduce is not None:
            kind = next(kind for kind in every.values() if kind.suffix == arguments.reproduce.suffix)
            print(f"refused: {read(kind, arguments.reproduce)}")
            return 0
        arguments.output.mkdir(parents=True, exist_ok=True)
        lines, report, start = Lines(), Report(), time.monotonic()
        for number, (name, kind) in enumerate(every.items()):
            rng = random.Random(arguments.seed * 100 + number)
            path = arguments.output / f"{name}-{arguments.seed}{kind.suffix}"
            fuzz(kind, path, arguments.seconds / len(every), rng, lines, report)
    print(
        json.dumps(
            {
                "executions": report.executions,
                "seconds": time.monotonic() - start,
                "refusals": sorted(report.refusals),
                "findings": report.findings,
            }
        )
    )
    return 1 if report.findings else 0


if __name__ == "__main__":
    sys.exit(main())

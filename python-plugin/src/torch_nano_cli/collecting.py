"""Collection of time series from a device's sensor."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import IO, Self

from torch_nano import Device
from torch_nano.device.bars import Bars
from torch_nano.errors import InputError
from torch_nano.series.series_file import ABOUT, header, read_series, row

from .sensor import SensorSample, samples_of


class Collection:
    """Adds recordings to a time-series file; each row is on its way to the disk at once.

    Args:
        rate: samples a second, for the times.
        columns: names of the sensor's numbers; None: those of the file, or value0, value1 and so on.

    Raises:
        InputError: the label or a name has no use in such a file, or the file has other columns.
        FileFormatError: the file is there, and is no time series with these columns.
        OSError: it cannot be read or written.
    """

    def __init__(self, path: Path, label: str, group: str, rate: float, columns: list[str] | None) -> None:
        if not rate > 0:
            raise InputError(f"the rate is {rate:g}; expected samples a second, more than 0")
        if columns is not None and (
            len(set(columns)) != len(columns) or not all(columns) or set(columns) & set(ABOUT)
        ):
            raise InputError(
                f"the columns are {', '.join(columns)}; expected different names, other than "
                f"{', '.join(ABOUT)}"
            )
        self._path, self._label, self._group, self._rate = path, label.strip(), group.strip(), rate
        self._columns = columns
        self._file: IO[bytes] | None = None
        #: The number of the recording before.
        self._recording = 0
        #: Numbers of the first and the latest sample of the present recording.
        self._first = self._latest = 0
        self.rows = self.missed = self.recordings = 0
        if path.exists() and path.stat().st_size:
            self._continue()

    def _continue(self) -> None:
        """Looks at the recordings that are there."""
        first_line = self._path.read_bytes().partition(b"\n")[0] + b"\n"
        series = read_series(self._path)
        if first_line != header(series.channels):
            raise InputError(
                f"{self._path} was not written by collect: expected the columns {', '.join(ABOUT)}, then "
                "those of the sensor. Choose another file: --output"
            )
        if self._columns not in (None, list(series.channels)):
            raise InputError(
                f"{self._path} has the columns {', '.join(series.channels)}; expected "
                f"{', '.join(self._columns or ())}. Choose another file: --output"
            )
        self._columns = list(series.channels)
        self._recording = max((int(one) for one in series.recordings if one.isdecimal()), default=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def run(self, device: Device, seconds: float, replay: Path | None) -> None:
        """Collects until so much time has passed, the recording ends, or Ctrl-C.

        Raises:
            InputError: samples have another number of numbers than the columns.
            DeviceError: the device has no sensor, or is gone; what came before is in the file.
            OSError: the file cannot be written.
        """
        if not seconds > 0:
            raise InputError(f"seconds is {seconds:g}; expected more than 0")
        wanted = max(round(seconds * self._rate), 1)
        samples = samples_of(device, replay, self._rate)
        with Bars(None).bar("collecting", wanted) as advance:
            try:
                for sample in samples:
                    self._write(sample)
                    advance(1)
                    if self.rows == wanted:
                        break
            except KeyboardInterrupt:
                pass  # what was asked for: the file has what came before

    def _write(self, sample: SensorSample) -> None:
        if self._file is None:
            self._open(len(sample.values))
        assert self._file is not None and self._columns is not None
        if len(sample.values) != len(self._columns):
            raise InputError(
                f"a sample has {len(sample.values)} numbers; the file's columns are "
                f"{', '.join(self._columns)}"
            )
        lost = sample.number - self._latest - 1 if self.rows else 0
        self.missed += lost
        # Lost samples are a gap in the times; a recording that begins anew has no time in common.
        if not self.rows or (sample.starts and lost == 0):
            self._recording, self._first = self._recording + 1, sample.number
            self.recordings += 1
        self._latest = sample.number
        time = (sample.number - self._first) / self._rate
        self._file.write(row(str(self._recording), time, self._label, self._group, sample.values))
        self._file.flush()
        self.rows += 1

    def _open(self, numbers: int) -> None:
        is_new = not self._path.exists() or not self._path.stat().st_size
        if self._columns is None:
            self._columns = [f"value{n}" for n in range(numbers)]
        self._file = self._path.open("ab")
        if is_new:
            self._file.write(header(self._columns))
        elif not self._path.read_bytes().endswith(b"\n"):
            self._file.write(b"\n")

    def __str__(self) -> str:
        missed = f", {self.missed} lost" if self.missed else ""
        times = f"{self.rows / self._rate:.1f} s"
        several = f" in {self.recordings} recordings" if self.recordings > 1 else ""
        return f"{self._path}: {self.rows} samples of {self._label or 'unknown'}{several}, {times}{missed}"

"""What inference costs on this machine: ours, LiteRT's on the same int8 network, and torch's in float.

LiteRT runs XNNPACK's kernels. The three take turns, and each figure is a median of them: on one thread in
time of the processor, so that other programs do not count, on several in time of the wall, as LiteRT's
threads wait busily.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch_nano as tn
from ai_edge_litert.interpreter import Interpreter  # type: ignore[import-untyped]
from mlperf_tiny import ARCHITECTURES
from rich.console import Console
from rich.table import Table
from tflite_network import tflite_network
from torch_nano import _native
from torch_nano.arithmetic.layout import to_device

BATCHES, THREADS = (1, 64), (1, 2)
#: Samples of a turn by batch.
_TURNS = {1: 16, 64: 64}
#: The largest ratios to LiteRT by batch, and the models that they hold for.
LARGEST_TO_LITERT = {1: 1.5, 64: 1.0}
AGAINST_LITERT = ("resnet8", "ds_cnn", "mobilenet_v1_025")
#: The largest ratio to torch's float run.
LARGEST_TO_FLOAT = 1.0


def inference_costs(rounds: int) -> tuple[dict[str, list[dict[str, Any]]], list[str]]:
    """Prints what inference costs; returns the figures, and which are beyond their limits."""
    columns = (
        "batch",
        "threads",
        "clock",
        "ours",
        "LiteRT",
        "float",
        "/ LiteRT",
        "limit",
        "/ float",
        "limit",
    )
    table = Table("us per sample", *columns)
    report: dict[str, list[dict[str, Any]]] = {}
    exceeded = []
    for name, (make, shape) in ARCHITECTURES.items():
        model, x = make().eval(), torch.randn(max(BATCHES), *shape)
        nano = tn.to_nano(model, x[:2], calibrate=x, check=False)
        report[name] = []
        for batch in BATCHES:
            for threads in THREADS:
                with torch_threads(threads):
                    taken = _medians(rounds, _acts(model, nano, x, batch, threads), several=threads > 1)
                ours, litert, floats = (1e6 * seconds / _TURNS[batch] for seconds in taken)
                to_litert, to_float = ours / litert, ours / floats
                report[name].append(
                    {
                        "batch": batch,
                        "threads": threads,
                        "ours_us": ours,
                        "ours_vs_litert": to_litert,
                        "ours_vs_torch_float": to_float,
                    }
                )
                limit = LARGEST_TO_LITERT[batch] if name in AGAINST_LITERT else float("inf")
                table.add_row(
                    *(name, str(batch), str(threads), "wall" if threads > 1 else "cpu"),
                    *(f"{each:.1f}" for each in (ours, litert, floats)),
                    *(f"{to_litert:.2f}", f"{limit:.1f}" if name in AGAINST_LITERT else ""),
                    *(f"{to_float:.2f}", f"{LARGEST_TO_FLOAT:.1f}"),
                )
                row = f"inference.{name}, batch {batch}, threads {threads}"
                if to_litert > limit:
                    exceeded.append(f"{row}, to LiteRT")
                if to_float > LARGEST_TO_FLOAT:
                    exceeded.append(f"{row}, to float")
    Console().print(table)
    return report, exceeded


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Lets torch compute on so many threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _acts(
    model: torch.nn.Module, nano: tn.NanoModule, x: torch.Tensor, batch: int, threads: int
) -> list[Callable[[], object]]:
    """Runs of a turn's samples in batches: by nano-core, by LiteRT, and in float."""
    integers = nano.quantize_input(x[:batch])
    native, rows = _native.Model(nano.image), to_device(integers).numpy()
    interpreter = Interpreter(model_content=tflite_network(nano, batch), num_threads=threads)
    interpreter.allocate_tensors()
    given = interpreter.get_input_details()[0]
    interpreter.set_tensor(given["index"], rows.reshape(given["shape"]))
    floats = x[:batch]

    def in_float() -> None:
        with torch.inference_mode():
            model(floats)

    acts = (lambda: native.run([rows], threads), interpreter.invoke, in_float)
    return [_repeated(act, _TURNS[batch] // batch) for act in acts]


def _repeated(act: Callable[[], object], times: int) -> Callable[[], None]:
    def repeated() -> None:
        for _ in range(times):
            act()

    return repeated


def _medians(rounds: int, acts: list[Callable[[], object]], *, several: bool) -> list[float]:
    """The median seconds of each act for the samples of a turn; the first turns do not count."""
    clock = time.perf_counter if several else time.process_time
    taken: list[list[float]] = [[] for _ in acts]
    for turn in range(rounds + 3):
        for act, seconds in zip(acts, taken, strict=True):
            start = clock()
            act()
            if turn >= 3:
                seconds.append(clock() - start)
    return [statistics.median(seconds) for seconds in taken]

"""Networks over time for the tests of streams, and what they give for the last window after each step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch_nano as tn
from torch import Tensor, nn
from torch_nano.calibration.calibrate import calibrate
from torch_nano.calibration.quantize import quantize
from torch_nano.calibration.ranges import calibrated
from torch_nano.capture.capture import capture
from torch_nano.capture.passes import optimize
from torch_nano.compile.image import write_image
from torch_nano.compile.saved_model import SavedModel
from torch_nano.ops._window import WindowOperator


class Block(nn.Module):
    """A residual block of a temporal convolutional network."""

    def __init__(self, inputs: int, outputs: int, dilation: int) -> None:
        super().__init__()
        self.first = nn.Conv1d(inputs, outputs, 3, dilation=dilation, padding=dilation)
        self.norm = nn.BatchNorm1d(outputs)
        self.second = nn.Conv1d(outputs, outputs, 3, dilation=dilation, padding=dilation, groups=outputs)
        self.skip = nn.Conv1d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = torch.nn.functional.silu(self.second(torch.relu(self.norm(self.first(x)))))
        return torch.relu(y + self.skip(x))


def tcn() -> nn.Sequential:
    """Dilations 1, 2, 4 and residual additions; the output has as many rows as the window."""
    blocks = [Block(3, 8, 1), Block(8, 8, 2), Block(8, 6, 4)]
    return nn.Sequential(*blocks, nn.Conv1d(6, 4, 1), nn.Softmax(1))


class CausalConv(nn.Module):
    """A convolution that pads before the window, in one of the ways that people write it."""

    def __init__(self, inputs: int, outputs: int, dilation: int, way: str) -> None:
        super().__init__()
        self.pad, self.way = 2 * dilation, way
        padding = self.pad if way == "chomp" else 0
        self.conv = nn.Conv1d(inputs, outputs, 3, dilation=dilation, padding=padding)
        self.norm = nn.BatchNorm1d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        if self.way == "pad":
            x = torch.nn.functional.pad(x, (self.pad, 0))
        y = self.norm(self.conv(x))
        if self.way == "chomp":
            y = y[:, :, : -self.pad].contiguous()
        return torch.relu(y)


class Causal(nn.Module):
    """Padding by functions, cropped outputs, halves of the channels, a padded pool; the last row counts."""

    def __init__(self, selected: str) -> None:
        super().__init__()
        self.layers = nn.Sequential(CausalConv(3, 8, 1, "pad"), CausalConv(8, 8, 2, "chomp"))
        self.pool = nn.Sequential(nn.ConstantPad1d((3, 0), 0.0), nn.MaxPool1d(4, 1))
        self.mixed = nn.Sequential(nn.ChannelShuffle(2), CausalConv(8, 6, 4, "chomp"))
        self.linear = nn.Linear(3 * (4 if selected == "rows" else 1), 5)
        self.selected = selected

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.mixed(self.pool(self.layers(x))).chunk(2, 1)
        y = torch.sigmoid(second) + first
        if self.selected == "series":
            return y
        y = y[:, :, -4:].flatten(1) if self.selected == "rows" else y[:, :, -1]
        result: Tensor = self.linear(y)
        return result


class Gated(nn.Module):
    """Branches of different kernels side by side in the channels, gated by products, less what came in."""

    def __init__(self) -> None:
        super().__init__()
        self.branches = nn.ModuleList(CausalConv(3, 4, dilation, "pad") for dilation in (1, 2))
        self.gate, self.mix = nn.Conv1d(8, 8, 1), nn.Conv1d(8, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.cat([branch(x) for branch in self.branches], 1)
        return self.mix(y * torch.sigmoid(self.gate(y))) - x


class OverTime(nn.Module):
    """A softmax over the rows of the window: of all of them, anew in each step."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv1d(3, 4, 3), nn.Linear(4 * 18, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(torch.softmax(self.conv(x).transpose(1, 2), 1).flatten(1))
        return y


def strided() -> nn.Sequential:
    """Strides in convolutions and pools; rows are left over at each of them."""
    return nn.Sequential(
        nn.Conv1d(3, 8, 5, stride=2),
        nn.ReLU(),
        nn.MaxPool1d(3, stride=2),
        nn.Conv1d(8, 8, 3, groups=8, dilation=2),
        nn.Hardswish(),
        nn.AvgPool1d(2, stride=1),
        nn.Conv1d(8, 5, 2, stride=3),
    )


def pooled() -> nn.Sequential:
    """Valid convolutions, a global pool, a Linear."""
    return nn.Sequential(
        nn.Conv1d(3, 8, 5),
        nn.BatchNorm1d(8),
        nn.ReLU(),
        nn.MaxPool1d(2),
        nn.Conv1d(8, 12, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(12, 4),
    )


def flattened() -> nn.Sequential:
    """A Linear over all rows of a window, whose columns are permuted."""
    return nn.Sequential(nn.Conv1d(3, 6, 3), nn.ReLU6(), nn.Flatten(), nn.Linear(6 * 18, 5))


@dataclass(frozen=True)
class Task:
    """A network, and the length of its window."""

    make: Callable[[], nn.Module]
    window: int
    #: Whether to pad before the window only, with as many rows as on both sides.
    causal: bool = False

    def nano(self, seed: int = 0) -> tn.NanoModule:
        """The network over a window, with weights of a seed."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model, x = self.make(), torch.randn(64, 3, self.window)
            model.train()(x)
        return self.of(model.eval(), x)

    def of(self, model: nn.Module, x: Tensor) -> tn.NanoModule:
        """A model over a window."""
        return causal(model, x) if self.causal else tn.to_nano(model, x, calibrate=x)


TASKS = {
    "tcn": Task(tcn, 40, causal=True),
    "series": Task(lambda: Causal("series"), 40),
    "row": Task(lambda: Causal("row"), 40),
    "rows": Task(lambda: Causal("rows"), 40),
    "gated": Task(Gated, 20),
    "over_time": Task(OverTime, 20),
    "strided": Task(strided, 63),
    "pooled": Task(pooled, 50),
    "flattened": Task(flattened, 20),
}


def causal(model: nn.Module, x: Tensor) -> tn.NanoModule:
    """The model with what its layers pad on both sides before the window."""
    graph = optimize(capture(model, x))
    for node in graph.nodes:
        if isinstance(node.operator, WindowOperator):
            top, bottom, left, right = node.operator.padding
            node.operator = replace(node.operator, padding=(top, bottom, left + right, 0))
    quantized = quantize(graph, calibrated(calibrate(graph, x)))
    return tn.NanoModule(SavedModel(write_image(quantized, None, "causal", []), quantized, None))


def random_steps(nano: tn.NanoModule, stream: tn.results.Stream, count: int, seed: int) -> Tensor:
    """int8 [count, channels, step_length], at times at the ends of the range, at times still."""
    generator = torch.Generator().manual_seed(seed)
    channels = nano.input_shape[0]
    shape = (count, channels, stream.step_length)
    steps = torch.randint(-128, 128, shape, dtype=torch.int8, generator=generator)
    calm = torch.rand(count, generator=generator)
    steps[calm < 0.1] = 127
    steps[calm > 0.8] //= 16
    return steps


def last_windows(nano: tn.NanoModule, steps: Tensor) -> Tensor:
    """int8 [steps, channels, window]: the last window after each step, zeros before the first."""
    channels, window = nano.input_shape
    samples = steps.movedim(1, 0).flatten(1)
    zeros = torch.full((channels, window), nano.input_quantization.zero_point, dtype=torch.int8)
    windows = torch.cat([zeros, samples], 1).unfold(1, window, steps.shape[2])
    return windows[:, 1:].movedim(1, 0).contiguous()


def newest(y: Tensor, stream: tn.results.Stream) -> Tensor:
    """Of the outputs over windows, what a stream gives: of a series, the newest rows."""
    graph = stream.nano.graph.graph
    shape = graph.values[graph.outputs[0]].user_shape
    return y[..., -shape[-1] :] if len(shape) > 1 and stream.nano.head is None else y

"""Converts a network over a window to one that reads only the window's newest step.

A value on the time axis, (channels, length) or (channels, 1, length), has the rows of one step in the stream.
A layer that needs more rows reads a ``history``: the value's rows of earlier steps, then those of this step.
All else is equal, so a row of the stream equals the window's row at the same time, unless that row depends on
padding. The conversion checks this for every row that the outputs depend on.
"""

from __future__ import annotations

from dataclasses import replace
from math import lcm, prod

import torch
from torch import Tensor

from ..arithmetic.layout import Shape, device_shape
from ..arithmetic.tensors import dequantize_tensor
from ..calibration.quantize import QuantizedGraph
from ..errors import StreamError, in_module
from ..ir.graph import Graph, Node
from ..ops._window import WindowOperator
from ..ops.fully_connected import FullyConnected
from ..ops.history import History
from ..ops.move import Move
from .time_axis import Axis, MovedRows, Series, is_series


def to_streaming(model: QuantizedGraph, head: bool) -> QuantizedGraph:
    """The network as a stream; see :meth:`torch_nano.NanoModule.stream`.

    Args:
        model: the network over a window.
        head: whether its output is the input of a trainable head, which reads all rows of the window.

    Raises:
        StreamError: no stream can reproduce its output; the message names the layer.
    """
    return _Streaming(model, head).build()


class _Streaming:
    """The conversion of one network."""

    def __init__(self, model: QuantizedGraph, head: bool) -> None:
        self.model, self.head = model, head
        self.source = model.graph
        #: The values on the time axis by name; all others are computed from whole windows.
        self.series: dict[str, Series] = {}
        self._begin()
        for node in self.source.nodes:
            if any(name in self.series for name in node.inputs):
                self._follow(node)
        for name in self.source.outputs:
            self._refuse_late(name)
            if name in self.series:
                self._refuse_split_time(name)
        #: Samples of a step: the least common multiple of the strides, so that every value has whole rows.
        self.step = lcm(*(series.stride for series in self.series.values()))
        #: Number of trailing rows of each value that the outputs depend on; padding may count as rows.
        self.needed: dict[str, int] = {}
        self._trace_back()
        self._refuse_padding()
        self.steady = self._steady_rows()
        self.graph = Graph(
            list(self.source.inputs), list(self.source.outputs), {}, [], {}, returned=self.source.returned
        )
        self.tensors: dict[str, dict[str, Tensor]] = {}

    def _begin(self) -> None:
        for name in self.source.inputs:
            shape = self.source.values[name].shape
            if len(shape) == 1:
                continue
            if not is_series(shape):
                raise StreamError(
                    f"the input {name!r} has shape {shape}; a stream takes (channels, length), "
                    "one-dimensional data over time"
                )
            self._refuse_split_time(name)
            self.series[name] = Series(shape[-1], 1)
        lengths = {name: series.length for name, series in self.series.items()}
        if len(set(lengths.values())) != 1:
            raise StreamError(
                f"the model's windows have lengths {lengths}; expected one length, of all inputs over time"
                if lengths
                else "the model has no input over time; a stream takes (channels, length)"
            )

    def _refuse_split_time(self, name: str) -> None:
        layout = self.source.values[name].layout
        if layout is not None and layout.last is None:
            raise StreamError(
                f"{name!r} has shape {layout.shape} outside of the model, of which no dimension is time; "
                "expected one such as (length, channels)"
            )

    @property
    def window(self) -> int:
        """Samples of the window."""
        return next(iter(self.series.values())).length

    def _follow(self, node: Node) -> None:
        """Computes the time axis of a node's outputs from that of its inputs."""
        if isinstance(node.operator, Move):
            self._move(node, node.operator)
            return
        for name in node.inputs:
            self._refuse_late(name)
        if isinstance(node.operator, FullyConnected):
            return
        if isinstance(node.operator, WindowOperator):
            if not node.operator.slides:
                raise self._error(node, f"{node.operator.name} over time has no streaming form")
            if self._width(node.output) == 1:
                self._refuse_padded_window(node, node.operator)
            else:
                self._slide(node, node.operator)
            return
        given = [self.series.get(name) for name in node.inputs]
        series = [one for one in given if one is not None]
        alike = len(given) == len(series) and len({(one.length, one.stride) for one in series}) == 1
        if not node.operator.pixelwise:
            raise self._error(node, f"{node.operator.name} over time has no streaming form")
        if not alike:
            shapes = ", ".join(str(self.source.values[name].shape) for name in (*node.inputs, *node.outputs))
            raise self._error(
                node,
                f"{node.operator.name} relates rows of different times, or a row to the whole window (shapes "
                f"{shapes}); in a stream each row depends on those of its own time",
            )
        for name in node.outputs:
            self.series[name] = replace(series[0], first=max(one.first for one in series))

    def _takes_all(self, node: Node) -> bool:
        """Whether a node reads values on the time axis and its output is not on it: a row or a vector."""
        return node.name not in self.series and any(name in self.series for name in node.inputs)

    def _move(self, node: Node, operator: Move) -> None:
        """Computes the time axis of a move's output: padding, cropping and moves of whole channels keep it.

        The output of any other move is not on the time axis; it reads the last rows.
        """
        (name,) = node.inputs
        series, made = self.series[name], self.source.values[node.output].shape
        moved = MovedRows.of(operator, self.source.values[name].shape, made)
        if moved is None:
            self._refuse_late(name)
            return
        end = series.end - moved.shift
        if made[-1] < end:
            raise self._error(
                node, f"it drops the newest {end - made[-1]} rows, after which the stream would lag behind"
            )
        first = max(0, series.first - moved.shift)
        self.series[node.output] = Series(made[-1], series.stride, first, late=made[-1] - end)

    def _slide(self, node: Node, operator: WindowOperator) -> None:
        """Computes the time axis of the output of a sliding kernel window."""
        series, axis = self.series[node.inputs[0]], Axis.of(operator)
        shape = self.source.values[node.output].shape
        if not is_series(shape):
            raise self._error(node, f"it makes {shape}; a stream has values (channels, length)")
        last = (series.end + axis.before - axis.reach) // axis.stride
        self.series[node.output] = Series(
            length=shape[-1],
            stride=series.stride * axis.stride,
            first=max(0, -((-series.first - axis.before) // axis.stride)),
            late=shape[-1] - (last + 1),
        )

    def _refuse_padded_window(self, node: Node, operator: WindowOperator) -> None:
        axis, length = Axis.of(operator), self.series[node.inputs[0]].length
        if axis.before or axis.reach > length:
            raise self._error(
                node, f"it pads the {length} rows of the window that it takes in one; leave the padding out"
            )

    def _refuse_late(self, name: str) -> None:
        series, node = self.series.get(name), self.source.producer(name)
        if series is not None and series.late and node is not None:
            raise self._error(
                node,
                f"it is not causal: it pads after the window, and {series.late} of its {series.length} rows "
                "see that, where a stream has samples still to come. Pad before the window alone (dilation * "
                "(kernel - 1)), or not at all",
            )

    def _trace_back(self) -> None:
        """Computes the number of rows of each value that the outputs depend on (their receptive field)."""
        for name in self.source.outputs:
            if name in self.series:
                series = self.series[name]
                self.needed[name] = series.length if self.head else self.step // series.stride
        for node in reversed(self.source.nodes):
            for name in node.inputs:
                if name in self.series:
                    self.needed[name] = max(self.needed.get(name, 1), self._rows_read(node, name))

    def _rows_read(self, node: Node, name: str) -> int:
        """The number of trailing rows of an input that the needed rows of a node's output depend on."""
        series = self.series[name]
        if node.name not in self.series:
            if isinstance(node.operator, Move):
                numbers = node.operator.numbers(self.source.values[name].shape)
                return series.length - int((numbers[numbers >= 0] % series.length).min())
            return series.length
        needed = self.needed.get(node.name, 1)
        if not isinstance(node.operator, WindowOperator):
            return needed
        axis = Axis.of(node.operator)
        return series.end + axis.before - (self.series[node.name].end - needed) * axis.stride

    def _refuse_padding(self) -> None:
        for node in self.source.nodes:
            series = self.series.get(node.name)
            if series is None or self.needed[node.name] <= series.end - series.first:
                continue
            reader = self._reader_of_all()
            if reader is not None:
                raise self._error(
                    node,
                    f"{series.first} of its {series.length} rows depend on padding, where a stream has "
                    f"earlier samples, and {reader} takes all rows of the window. Leave the padding out "
                    "(valid), or let the last row alone count",
                )
            seen = max(self.needed[name] for name in self.source.inputs if name in self.series)
            raise self._error(
                node,
                f"the output depends on the last {seen} samples, and the window has {self.window}: it sees "
                "padding where a stream has earlier samples. Convert the model with an example of "
                f"{seen} samples or more",
            )

    def _reader_of_all(self) -> str | None:
        """The layer that computes one row, or a vector, from all rows of a window."""
        if self.head and any(name in self.series for name in self.source.outputs):
            return "the trainable head"
        for node in self.source.nodes:
            rows = [
                (self._rows_read(node, name), self.series[name].length)
                for name in node.inputs
                if name in self.series
            ]
            if self._takes_all(node) and any(read == length for read, length in rows):
                return f"{node.operator.name} (module {self.source.module_path(node)!r})"
        return None

    def _steady_rows(self) -> dict[str, Tensor]:
        """The steady state of each value after endless zeros: its newest row for a window of zeros."""
        rows: dict[str, Tensor] = {}

        def observe(name: str, tensor: Tensor) -> None:
            if name in self.series:
                rows[name] = tensor[0, ..., self.series[name].end - 1].flatten()

        zeros = [
            torch.full(
                (1, *self.source.values[name].user_shape),
                quantization.zero_point,
                dtype=quantization.torch_dtype,
            )
            for name, quantization in ((name, self.source.quantization(name)) for name in self.source.inputs)
        ]
        self.model.integer_run(*zeros, observe=observe)
        return rows

    def build(self) -> QuantizedGraph:
        """The streaming network."""
        for name in self.source.inputs:
            self._copy_value(name)
        for node in self.source.nodes:
            self._convert(node)
        if self.head:
            self.graph.outputs = [
                self._last(name, self.needed[name], name) if name in self.series else name
                for name in self.source.outputs
            ]
        return QuantizedGraph(self.graph, self.tensors, self.model.channels, streams=True)

    def _convert(self, node: Node) -> None:
        operator, inputs = node.operator, list(node.inputs)
        if self._takes_all(node):
            inputs = [
                self._last(name, self._rows_read(node, name), node.name) if name in self.series else name
                for name in inputs
            ]
        if isinstance(operator, WindowOperator) and node.inputs[0] in self.series:
            top, bottom, _, _ = operator.padding
            if node.output in self.series:
                inputs = [self._before_window(node, operator)]
            operator = replace(operator, padding=(top, bottom, 0, 0))
        for name in node.outputs:
            self._copy_value(name)
        tensors = self.model.tensors[node.name]
        if isinstance(operator, Move) and node.inputs[0] in self.series:
            operator = self._moved(node, operator, self.graph.values[inputs[0]].shape)
        self.graph.nodes.append(Node(operator, inputs, list(node.outputs)))
        if operator != node.operator and isinstance(operator, Move):
            tensors = self.graph.layer(self.graph.nodes[-1]).quantize()
        self.tensors[node.name] = tensors

    def _moved(self, node: Node, operator: Move, given: Shape) -> Move:
        """The move of a node for the rows of its input that are present in the stream."""
        shape, made = self.source.values[node.inputs[0]].shape, self.graph.values[node.output].shape
        if node.output in self.series:
            moved = MovedRows.of(operator, shape, self.source.values[node.output].shape)
            assert moved is not None
            steps = () if moved.keeps_channels else (f"index_select(dim=1, index={list(moved.channels)})",)
            return Move((*steps, *Move.reshape(made).steps))
        if given == shape:
            return operator
        # Index of each element among the last rows; the index after them is a padded zero.
        numbers, length, rows = operator.numbers(shape).flatten(), shape[-1], given[-1]
        places = numbers // length * rows + numbers % length - (length - rows)
        end = prod(given)
        index = torch.where(numbers < 0, end, places).tolist()
        if index == list(range(end)):
            return Move.reshape(made)
        zero = ("pad(pad=[0, 1])",) if bool((numbers < 0).any()) else ()
        flat = Move.reshape((end,)).steps
        return Move((*flat, *zero, f"index_select(dim=1, index={index})", *Move.reshape(made).steps))

    def _before_window(self, node: Node, operator: WindowOperator) -> str:
        """The input of a sliding kernel window, preceded by the rows of earlier steps that it needs."""
        (name,) = node.inputs
        series, axis = self.series[name], Axis.of(operator)
        last = (self.series[node.output].end - 1) * axis.stride - axis.before + axis.reach
        # Rows after the end of the last kernel window belong to the next one.
        rows = axis.reach - axis.stride + (series.end - last)
        if rows < 0:
            raise self._error(
                node,
                f"its stride of {axis.stride} skips rows, and its last window ends with the newest. Convert "
                f"the model with an example that is {-rows * series.stride} samples longer",
            )
        return self._history(name, rows, node.name)

    def _last(self, name: str, count: int, reader: str) -> str:
        """The last `count` rows of a value, or all rows of the step if those are more."""
        rows = count - self._rows_of_step(name)
        if rows < 0 and count == self.series[name].length:
            raise self._error(
                self.source.producer(name),
                f"the window has {self.window} samples, fewer than a step of {self.step}, the least common "
                "multiple of the strides; convert the model with a longer example",
            )
        return self._history(name, max(rows, 0), reader)

    def _history(self, name: str, rows: int, reader: str) -> str:
        """A value preceded by `rows` rows of earlier steps; histories of equal length are shared."""
        if rows == 0:
            return name
        for node in self.graph.consumers(name):
            if isinstance(node.operator, History) and node.operator.rows == rows:
                return node.output
        value, quantization = self.graph.values[name], self.source.quantization(name)
        shape = (*value.shape[:-1], value.shape[-1] + rows)
        made = self.graph.new_value(f"{name}_history", shape, self.source.values[reader])
        made.quantization = quantization
        start = tuple(dequantize_tensor(self.steady[name], quantization).tolist())
        node = Node(History(rows, start), [name], [made.name])
        self.graph.nodes.append(node)
        self.tensors[node.name] = self.graph.layer(node).quantize()
        return made.name

    def _copy_value(self, name: str) -> None:
        """Copies a value of the network over the window; on the time axis it has the rows of one step."""
        value = self.source.values[name]
        shape, layout = value.shape, value.layout
        if name in self.series:
            rows = self._rows_of_step(name)
            shape = (*shape[:-1], rows)
            layout = None if layout is None else layout.with_last(rows)
        self.graph.values[name] = replace(value, shape=shape, layout=layout)

    def _rows_of_step(self, name: str) -> int:
        return self.step // self.series[name].stride

    def _width(self, name: str) -> int:
        _, width, _ = device_shape(self.source.values[name].shape)
        return width

    def _error(self, node: Node | None, problem: str) -> Exception:
        path = "" if node is None else self.source.module_path(node)
        return in_module(StreamError(problem), path)

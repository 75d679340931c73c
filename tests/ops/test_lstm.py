"""The LSTM: its float run is torch's, its integers are near, its cell's range covers all steps."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch_nano import functional
from torch_nano._native import NanoError
from torch_nano.arithmetic.quantization import Quantization
from torch_nano.calibration.calibrate import calibrate
from torch_nano.calibration.quantize import QuantizedGraph, quantize
from torch_nano.calibration.ranges import calibrated, quantization
from torch_nano.errors import InputError
from torch_nano.ir.graph import Graph, Node
from torch_nano.ir.layer import Layer
from torch_nano.ir.value import Value
from torch_nano.library.one_layer import run_native
from torch_nano.ops.lstm import Lstm

from .cases import make

SEEDS = range(20)


def torch_lstm(seed: int) -> tuple[nn.LSTM, Tensor]:
    """An LSTM of random sizes, and a batch of sequences, [N, steps, features]."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        features, units, steps = torch.randint(1, 20, (3,)).tolist()
        lstm = nn.LSTM(features, units, batch_first=True, bias=seed % 3 > 0)
        return lstm, 2 * torch.randn(8, steps, features)


def parameters(lstm: nn.LSTM) -> dict[str, Tensor]:
    return {name.removesuffix("_l0"): tensor.detach() for name, tensor in lstm.named_parameters()}


def graph_of(lstm: nn.LSTM, x: Tensor) -> Graph:
    """A graph of this node alone, whose outputs are the hidden states and the last cell state."""
    _, steps, features = x.shape
    shapes = {"x": (features, steps), "y": (lstm.hidden_size, steps), "cell": (lstm.hidden_size,)}
    tensors = parameters(lstm)
    node = Node(Lstm(), ["x"], ["y", "cell"], {role: role for role in tensors})
    values = {name: Value(name, shape) for name, shape in shapes.items()}
    return Graph(["x"], ["y", "cell"], values, [node], tensors)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_float_run_is_that_of_torch(seed: int) -> None:
    lstm, x = torch_lstm(seed)
    y, cell = Layer(Lstm(), [x.mT], parameters(lstm)).float_run()
    expected, (hidden, last) = lstm(x)
    assert torch.equal(y, expected.mT) and torch.equal(cell, last[0]), f"seed {seed}"
    assert torch.equal(y[..., -1], hidden[0]), f"seed {seed}"


@pytest.mark.parametrize("seed", SEEDS)
def test_observed_cells_are_those_of_each_step(seed: int) -> None:
    lstm, x = torch_lstm(seed)
    layer = Layer(Lstm(), [x.mT], parameters(lstm))
    outputs = layer.float_run()
    hidden, cells = layer.observed(outputs)
    assert torch.equal(hidden, outputs[0])
    for step in range(x.shape[1]):
        _, (_, cell) = lstm(x[:, : step + 1])
        torch.testing.assert_close(cells[..., step], cell[0], rtol=1e-5, atol=1e-6)


def falling() -> tuple[nn.LSTM, Tensor]:
    """An LSTM whose cell rises to 3 in three steps and is forgotten in the last one."""
    lstm = nn.LSTM(2, 1, batch_first=True)
    with torch.no_grad():
        for parameter in lstm.parameters():
            parameter.zero_()
        # The first feature opens the input gate, the second closes all gates but the output gate.
        lstm.weight_ih_l0.copy_(torch.tensor([[10.0, -20.0], [10.0, -20.0], [10.0, 0.0], [10.0, 0.0]]))
    return lstm, torch.tensor([[[1.0, 0.0]] * 3 + [[0.0, 1.0]]])


def test_the_range_of_a_cell_covers_all_steps() -> None:
    lstm, x = falling()
    graph = graph_of(lstm, x)
    ranges = calibrate(graph, torch.cat([x.mT] * 32))
    with torch.no_grad():
        _, (_, cell) = lstm(x)
    assert abs(float(cell)) < 1e-3 and ranges["cell"][1] == pytest.approx(3.0, abs=1e-2)
    chosen = quantize(graph, calibrated(ranges)).graph.quantization("cell")
    # 4 is the next power of two.
    assert chosen == Quantization(2.0**-13, 0, "int16")


def test_a_larger_cell_scale_is_the_next_power_of_two() -> None:
    for largest in (1e-3, 0.7, 1.0, 5.0, 300.0):
        found = quantization(-largest, largest / 2, "int16")
        rounded = found.to_power_of_two()
        assert found.scale <= rounded.scale < 2 * found.scale
        assert rounded == rounded.to_power_of_two()


def integers(lstm: nn.LSTM, x: Tensor) -> QuantizedGraph:
    graph = graph_of(lstm, x)
    return quantize(graph, calibrated(calibrate(graph, torch.cat([x.mT] * 4))))


@pytest.mark.parametrize("seed", SEEDS)
def test_integers_are_near_torch(seed: int) -> None:
    lstm, x = torch_lstm(seed)
    quantized = integers(lstm, x)
    chosen = [quantized.graph.quantization(name) for name in ("x", "y", "cell")]
    q = (x.mT / chosen[0].scale + chosen[0].zero_point).round().clamp(-128, 127).to(torch.int8)
    given = (q.float() - chosen[0].zero_point) * chosen[0].scale
    found = quantized.integer_run(q)
    real = Layer(Lstm(), [given], parameters(lstm)).float_run()
    for y, expected, of_output, least in zip(found, real, chosen[1:], (30.0, 30.0), strict=True):
        error = (y.double() - of_output.zero_point) * of_output.scale - expected.double()
        sqnr = 10 * torch.log10(expected.double().square().sum() / error.square().sum())
        assert float(sqnr) > least, f"seed {seed}: {float(sqnr):.1f} dB"


def test_the_function_gives_the_integers_and_their_gradients() -> None:
    for seed in range(6):
        case = make(Lstm, seed)
        x, hidden = case.inputs[0].float().requires_grad_(), case.output_quantizations[0]
        given = [case.parameters.get(role) for role in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
        leaves = [None if one is None else one.clone().requires_grad_() for one in given]
        y, cell = functional.lstm(x, *leaves, case.input_quantization, *case.output_quantizations)
        expected = case.integer_run()
        assert torch.equal(y, expected[0].float()) and torch.equal(cell, expected[1].float()), f"seed {seed}"
        learned = [x, *(one for one in leaves if one is not None)]
        gradients = torch.autograd.grad([y.sum(), cell.sum()], learned)
        inner = replace(case, inputs=[x.detach() - case.input_quantizations[0].zero_point])
        again = replace(inner, parameters=dict(zip(case.parameters, learned[1:], strict=True))).train_run()
        others = torch.autograd.grad([one.sum() for one in again], learned[1:])
        assert hidden.dtype == "int8" and len(gradients) == len(others) + 1
        for gradient, other in zip(gradients[1:], others, strict=True):
            assert torch.equal(gradient, other), f"seed {seed}"


def test_the_function_refuses_what_does_not_fit() -> None:
    ones, of_x, cell = torch.ones(4, 1), Quantization(0.1, 0), Quantization(0.25, 0, "int16")

    def call(x: Tensor, weight_ih: Tensor = ones, of_cell: Quantization = cell) -> None:
        functional.lstm(x, weight_ih, ones, None, None, of_x, of_x, of_cell)

    x = torch.zeros(1, 1, 2)
    call(x)
    with pytest.raises(InputError, match=r"lstm: x has shape \(1, 2\); expected \[N, features, steps\]"):
        call(x[0])
    with pytest.raises(InputError, match=r"lstm: x holds 0.5"):
        call(x + 0.5)
    with pytest.raises(
        InputError,
        match=r"lstm: weight_ih is torch.float32 of shape \(4, 2\); expected float32 of shape \(4, 1\)",
    ):
        call(x, torch.ones(4, 2))
    with pytest.raises(InputError, match=r"int16 whose scale is a power of two from 2\^-43 to 2\^2"):
        call(x, of_cell=Quantization(0.3, 0, "int16"))


def test_a_cell_scale_that_is_no_power_of_two_is_refused() -> None:
    case = make(Lstm, 0)
    hidden, cell = case.output_quantizations
    wrong = replace(case, output_quantizations=[hidden, replace(cell, scale=0.75 * cell.scale)])
    with pytest.raises(NanoError, match=r"lstm: the cell's scale is not a power of two from 2\^-43 to 2\^2"):
        run_native(wrong, [tuple(y.shape[1:]) for y in case.integer_run()])

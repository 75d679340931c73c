"""GRU and RNN against the real formula: the error bounds that nano-core documents, and the state's dtype."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch_nano._native import NanoError
from torch_nano.arithmetic.quantization import Quantization
from torch_nano.errors import InputError
from torch_nano.functional import gru, rnn
from torch_nano.ir.layer import Layer
from torch_nano.library.one_layer import run_native
from torch_nano.ops.gru import Gru
from torch_nano.ops.rnn import Rnn

SEEDS = range(150)
UNIT = Quantization(1.0, 0)


def random_layer(seed: int, operator: Gru | Rnn) -> Layer:
    """Weights of all sizes, scales from 2^-8 to 2^-3, zero points at both ends, saturated inputs."""
    rng = np.random.default_rng(seed)
    features, units, steps = (int(rng.integers(1, most)) for most in (40, 40, 30))
    channels, size = operator.gates * units, float(2.0 ** rng.uniform(-3, 1))

    def normal(*shape: int) -> Tensor:
        return torch.from_numpy(rng.normal(size=shape).astype(np.float32) * np.float32(size))

    parameters = {
        "weight_ih": normal(channels, features) / features**0.5,
        "weight_hh": normal(channels, units) / units**0.5,
        "bias_ih": normal(channels),
        "bias_hh": normal(channels),
    }
    numbers = [-128, 127] if rng.random() < 0.2 else range(-128, 128)
    x = torch.from_numpy(rng.choice(numbers, (3, features, steps)).astype(np.int8))
    of_x = Quantization(float(2.0 ** rng.uniform(-8, -3)), int(rng.choice([-128, 0, 127, -3])))
    of_y = Quantization(float(2.0 ** rng.uniform(-8, -6)), int(rng.choice([-128, 0, 127, 11])))
    layer = Layer(operator, [x], parameters, {}, [of_x], [of_y])
    return Layer(operator, [x], {}, layer.quantize(), [of_x], [of_y])


def products(layer: Layer, name: str, integers: Tensor, quantization: Quantization) -> Tensor:
    """The real sums of the quantized weights and biases, float64 [N, channels] of int8 [N, elements]."""
    scales = layer.tensors[f"scales_{name}"].double() * quantization.scale
    sums = (integers.double() - quantization.zero_point) @ layer.tensors[f"weight_{name}"].double().T
    return (sums + layer.tensors[f"bias_{name}"].double()) * scales


def native_sequence(layer: Layer) -> Tensor:
    """nano-core's output, which is also plain torch's: int8 [N, units, steps]."""
    units = layer.tensors["weight_hh"].shape[1]
    (plain,), (native,) = layer.integer_run(), run_native(layer, [(units, layer.input.shape[2])])
    assert torch.equal(plain, native)
    return native


def test_each_step_of_a_gru_stays_below_the_documented_bound() -> None:
    worst, largest = 0.0, 0.0
    for seed in SEEDS:
        layer = random_layer(seed, Gru())
        native, output = native_sequence(layer), layer.output_quantization
        states, rounded = Gru().states(layer)
        assert torch.equal(torch.stack(rounded, -1), native)
        state = torch.zeros_like(states[0]).double()
        before = torch.full_like(rounded[0], output.zero_point)
        for step, after in enumerate(states):
            x_r, x_z, x_n = products(layer, "ih", layer.input[..., step], layer.input_quantization).chunk(
                3, 1
            )
            h_r, h_z, h_n = products(layer, "hh", before, output).chunk(3, 1)
            reset, update = (x_r + h_r).sigmoid(), (x_z + h_z).sigmoid()
            new = (x_n + reset * h_n).tanh()
            real = (1 - update) * new + update * state
            error = (after.double() / 2**15 - real).abs()
            bound = (16 + 4 * h_n.abs()) / 2**14
            arguments = torch.stack([x_r + h_r, x_z + h_z, x_n + reset * h_n]).abs().amax(0)
            bound = bound + torch.where(arguments > 8 - 2**-10, (1 + h_n.abs() / 2) / 2**11, 0)
            assert (error <= bound).all(), (
                f"seed {seed}, step {step}: {(error - bound).max()} above the bound"
            )
            shown = (after.double() / 2**15 / output.scale + output.zero_point).clamp(-128, 127)
            assert (native[..., step].double() - shown).abs().max() <= 0.75, f"seed {seed}, step {step}"
            worst = max(worst, float((error / bound).max()))
            largest = max(largest, float(arguments.max()))
            state, before = after.double() / 2**15, native[..., step]
    # The bound is not far from what occurs, and arguments beyond the table occur.
    assert worst > 0.2 and largest > 8


@pytest.mark.parametrize("relu", [False, True], ids=["tanh", "relu"])
def test_each_step_of_an_rnn_stays_below_the_documented_bound(relu: bool) -> None:
    worst, clamped = 0.0, 0.0
    for seed in SEEDS:
        layer = random_layer(seed, Rnn(relu))
        native, output = native_sequence(layer), layer.output_quantization
        before = torch.full_like(native[..., 0], output.zero_point)
        for step in range(native.shape[-1]):
            x = products(layer, "ih", layer.input[..., step], layer.input_quantization)
            total = x + products(layer, "hh", before, output)
            real = (total.clamp(min=0) if relu else total.tanh()) / output.scale + output.zero_point
            before = native[..., step]
            error = (before.double() - real.clamp(-128, 127)).abs()
            bound = 0.75 + (2**-7 if relu else (1.5 * 2**-12 + 2**-13) / output.scale)
            assert float(error.max()) <= bound, f"seed {seed}, step {step}: {float(error.max())} > {bound}"
            worst = max(worst, float(error.max()) / bound)
            clamped += float((real > 127).double().mean()) / len(SEEDS) / native.shape[-1]
    assert worst > 0.6 and clamped < 0.8


def test_a_state_of_int16_is_nearer_to_float_than_one_of_int8() -> None:
    """Over 100 steps with slow units: with the int8 output as its state, a unit stands still."""
    of_int16, of_int8 = [], []
    for seed in range(20):
        torch.manual_seed(seed)
        module = torch.nn.GRU(6, 20, batch_first=True)
        with torch.no_grad():
            module.bias_ih_l0[20:40] += 3.0
        of_x, of_y = Quantization(0.03, 0), Quantization(2.0**-7, 0)
        x = torch.randint(-128, 128, (8, 6, 100), dtype=torch.int8)
        parameters = {name.removesuffix("_l0"): tensor.detach() for name, tensor in module.named_parameters()}
        layer = Layer(Gru(), [x], parameters, {}, [of_x], [of_y])
        layer = Layer(Gru(), [x], {}, layer.quantize(), [of_x], [of_y])
        with torch.no_grad():
            real = module((x.float() * of_x.scale).mT)[0].mT
        of_int16.append(float((layer.integer_run()[0] * of_y.scale - real).square().mean()))
        of_int8.append(float((_with_state_of_int8(layer) * of_y.scale - real).square().mean()))
    assert np.mean(of_int16) < np.mean(of_int8) / 2, f"{np.mean(of_int16)}, {np.mean(of_int8)}"


def _with_state_of_int8(layer: Layer) -> Tensor:
    """The exact step of a GRU whose state is its int8 output."""
    output = layer.output_quantization
    state = torch.zeros(len(layer.input), layer.tensors["weight_hh"].shape[1], dtype=torch.int8)
    states = []
    for x in layer.input.unbind(-1):
        x_r, x_z, x_n = products(layer, "ih", x, layer.input_quantization).chunk(3, 1)
        h_r, h_z, h_n = products(layer, "hh", state, output).chunk(3, 1)
        update, new = (x_z + h_z).sigmoid(), (x_n + (x_r + h_r).sigmoid() * h_n).tanh()
        real = (1 - update) * new + update * state.double() * output.scale
        state = (real / output.scale).round().clamp(-128, 127).to(torch.int8)
        states.append(state)
    return torch.stack(states, -1)


def test_layers_that_do_not_fit_are_refused() -> None:
    layer = random_layer(0, Gru())
    tiny = replace(layer, output_quantizations=[Quantization(2.0**-50, 0)])
    units, steps = layer.tensors["weight_hh"].shape[1], layer.input.shape[2]
    with pytest.raises(NanoError, match=r"the activation's step / s_y is not in \[0, 2\^30\)"):
        run_native(tiny, [(units, steps)])
    bias = layer.tensors | {"bias_hh": torch.full_like(layer.tensors["bias_hh"], 2**31 - 1)}
    full = Layer(
        layer.operator, layer.inputs, {}, bias, layer.input_quantizations, layer.output_quantizations
    )
    with pytest.raises(NanoError, match=r"must stay below 2\^31"):
        run_native(full, [(units, steps)])


def test_functions_check_their_parameters() -> None:
    x, one = torch.zeros(1, 2, 3), torch.zeros(3, 2)
    with pytest.raises(InputError, match=r"gru: weight_hh is .*\(3, 2\); expected float32 of shape \(6, 2\)"):
        gru(x, torch.zeros(6, 2), one, None, None, UNIT, UNIT)
    with pytest.raises(InputError, match="rnn: one of bias_ih and bias_hh is None; expected both or neither"):
        rnn(x, torch.zeros(2, 2), torch.zeros(2, 2), torch.zeros(2), None, UNIT, UNIT)

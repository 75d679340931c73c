"""Layer and RMS normalization against the real formula: the error bound that nano-core documents."""

import numpy as np
import pytest
import torch
from torch_nano._native import NanoError, layer_norm_parameters
from torch_nano.arithmetic.quantization import Quantization
from torch_nano.ir.layer import Layer
from torch_nano.library.one_layer import run_native
from torch_nano.ops.layer_norm import LayerNorm

SEEDS = range(300)


def rows(rng: np.random.Generator, count: int, channels: int) -> np.ndarray:
    """Random, constant, almost constant and saturated rows."""
    uniform = rng.integers(-128, 128, (count, channels))
    constant = np.broadcast_to(rng.integers(-128, 128, (count, 1)), uniform.shape)
    single = np.where(np.arange(channels) == rng.integers(channels), -constant.clip(-127), constant)
    next_to = (constant + (np.arange(channels) == rng.integers(channels))).clip(-128, 127)
    saturated = rng.choice([-128, 127], uniform.shape)
    return np.concatenate([uniform, constant, single, next_to, saturated]).astype(np.int8)


def exact(
    x: np.ndarray, of_x: Quantization, weight: np.ndarray, bias: np.ndarray, operator: LayerNorm
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The real output, T and V of the definition, in float64."""
    q = x.astype(np.float64) - of_x.zero_point
    count = x.shape[1]
    center = q.sum(1, keepdims=True) if operator.subtract_mean else np.zeros((len(q), 1))
    variance = count * (q * q).sum(1, keepdims=True) - center**2
    epsilon = float(np.float32(operator.epsilon)) / of_x.scale**2
    root = np.sqrt(variance + count**2 * epsilon)
    normalized = np.divide(count * q - center, root, out=np.zeros_like(q), where=root > 0)
    return normalized * weight + bias, normalized, np.broadcast_to(variance, q.shape)


@pytest.mark.parametrize("subtract_mean", [True, False], ids=["layer", "rms"])
def test_errors_stay_below_the_documented_bound(subtract_mean: bool) -> None:
    """Scales of 2^-12 to 2^4, against inputs and weights of all sizes, with any epsilon."""
    saturated = worst = 0.0
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        channels = int(rng.choice([1, 2, 3, 5, 8, 17, 64, 129, 768, 4096], p=[0.05, *[0.13] * 7, 0.03, 0.01]))
        epsilon = float(rng.choice([0.0, 1e-12, 1e-6, 1e-5, 1e-3, 10.0]))
        operator = LayerNorm(epsilon, subtract_mean)
        of_x = Quantization(float(2.0 ** rng.uniform(-12, 4)), int(rng.choice([-128, 0, 127, -3])))
        of_y = Quantization(float(2.0 ** rng.uniform(-12, 4)), int(rng.choice([-128, 0, 127, 11])))
        size = 2.0 ** rng.uniform(-4, 4)
        weight, bias = (rng.normal(size=channels).astype(np.float32) * np.float32(size) for _ in range(2))
        x = rows(rng, 8, channels)
        parameters = {"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)}
        shapes = [(channels,)]
        layer = Layer(operator, parameters=parameters, input_quantizations=[of_x], shapes=shapes)
        layer = Layer(operator, [torch.from_numpy(x)], {}, layer.quantize(), [of_x], [of_y])
        (plain,), (native,) = layer.integer_run(), run_native(layer, [(channels,)])
        assert torch.equal(plain, native), f"seed {seed}: {operator}"

        real, normalized, variance = exact(x, of_x, weight, bias, operator)
        _, constants = layer_norm_parameters(weight, bias, epsilon, of_x.scale, (of_y.scale, of_y.zero_point))
        shift = constants[:, 2].astype(np.float64)
        factor = np.abs(weight.astype(np.float64) / of_y.scale)
        relative = 2.0**-23 + 2.0**-17 / np.maximum(variance, 1)
        bound = 0.5 + factor * np.abs(normalized) * relative + 2.0**-21 * factor
        bound += 2.0 ** (1 - shift) + 2.0 ** -(12 + shift) * np.abs(normalized)
        expected = (real / of_y.scale + of_y.zero_point).clip(-128, 127)
        error = np.abs(native.numpy() - expected)
        assert (error <= bound).all(), f"seed {seed}: {(error - bound).max()} above the bound, {operator}"
        saturated += float(np.mean(np.abs(native.numpy().astype(int)) >= 127)) / len(SEEDS)
        ordinary = (shift >= 10) & (factor * np.abs(normalized) < 512)
        worst = max(worst, float(error[ordinary].max(initial=0.0)))
    # The sentence of the documentation, and that not all outputs were clamped.
    assert worst < 0.51
    assert saturated < 0.8


def test_numbers_that_do_not_fit_are_refused() -> None:
    one = np.ones(1, np.float32)
    with pytest.raises(NanoError, match=r"weight / s_y reaches 2\^19, or bias / s_y 2\^29: 1048576"):
        layer_norm_parameters(one, one * 0, 0.0, 1.0, (2.0**-20, 0))
    with pytest.raises(NanoError, match=r"epsilon / s_x\^2 is not in \[0, 2\^61\)"):
        layer_norm_parameters(one, one, 1.0, 2.0**-30, (1.0, 0))

"""A call with real numbers: one native call gives what quantizing, running and dequantizing in torch do."""

import numpy as np
import pytest
import torch
import torch_nano as tn
from torch import Tensor, nn
from torch_nano import _native
from torch_nano.arithmetic.tensors import dequantize_tensor, quantize_tensor

LARGEST = torch.finfo(torch.float32).max


def models() -> list[tuple[nn.Module, tuple[int, ...]]]:
    """A vector's, a signal's and a picture's."""
    return [
        (nn.Linear(7, 5), (7,)),
        (nn.Conv1d(3, 4, 3), (3, 9)),
        (nn.Conv2d(3, 5, 3), (3, 6, 4)),
    ]


def in_steps(nano: tn.NanoModule, x: Tensor) -> Tensor:
    return dequantize_tensor(nano.forward_int8(nano.quantize_input(x)), nano.output_quantization)


@pytest.mark.parametrize("index", range(3))
def test_a_call_gives_the_bytes_of_its_steps(index: int) -> None:
    torch.manual_seed(index)
    model, shape = models()[index]
    nano = tn.to_nano(model.eval(), torch.randn(8, *shape), calibrate=torch.randn(8, *shape) + 0.5)
    scale, zero_point = nano.input_quantization.scale, nano.input_quantization.zero_point
    # Halves between integers and their neighbours, the ends of the range and of float32, subnormal numbers.
    halves = (torch.arange(-300, 300).double() - zero_point + 0.5) * scale
    special = torch.tensor([0.0, -0.0, 1e-45, -1e-45, LARGEST, -LARGEST, 600 * scale, -600 * scale])
    steps = halves.float()
    inf = torch.tensor(torch.inf)
    reals = torch.cat([steps, steps.nextafter(inf), steps.nextafter(-inf), special, torch.randn(1000)])
    x = reals[torch.randint(len(reals), (200, *shape))]
    expected = in_steps(nano, x)
    assert torch.equal(nano(x), expected), f"seed {index}"
    assert torch.equal(nano(x[:1]), expected[:1]), f"seed {index}"
    assert nano(x[:0]).shape == expected[:0].shape
    for given in (x.double(), x.clone().requires_grad_(), x.movedim(1, -1).contiguous().movedim(-1, 1)):
        called = nano(given)
        assert torch.equal(called, expected) and called.dtype == torch.float32 and not called.requires_grad


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_are_not_rounded_to_float32_first(dtype: torch.dtype) -> None:
    torch.manual_seed(3)
    nano = tn.to_nano(nn.Linear(6, 4), torch.randn(8, 6), calibrate=torch.randn(8, 6))
    x = torch.randn(50, 6, dtype=torch.float64).to(dtype)
    assert torch.equal(nano(x), in_steps(nano, x))


def test_only_nan_and_infinity_are_refused() -> None:
    torch.manual_seed(4)
    nano = tn.to_nano(nn.Linear(6, 4), torch.randn(8, 6), calibrate=torch.randn(8, 6))
    x = torch.full((5, 6), LARGEST)  # its sum is infinite
    assert torch.equal(nano(x), in_steps(nano, x))
    for wrong in (torch.nan, torch.inf, -torch.inf):
        given = x.clone()
        given[3, 2] = wrong
        with pytest.raises(tn.errors.InputError, match=r"NaN or infinity in samples \[3\] of 5"):
            nano(given)
    given = torch.zeros(5, 6)
    given[1, 0], given[1, 1], given[4, 5] = torch.inf, -torch.inf, torch.nan
    with pytest.raises(tn.errors.InputError, match=r"NaN or infinity in samples \[1, 4\] of 5"):
        nano(given)


def test_native_arrays_have_the_lengths_of_the_image() -> None:
    torch.manual_seed(5)
    nano = tn.to_nano(nn.Linear(6, 4), torch.randn(8, 6), calibrate=torch.randn(8, 6))
    model = _native.Model(nano.image)
    with pytest.raises(_native.NanoError, match="input"):
        model.run_real([np.zeros((1, 5), np.float32)])
    x = torch.randn(3, 6)
    (y,) = model.run_real([x.numpy()])
    integers = quantize_tensor(x, nano.input_quantization).numpy()
    (expected,) = model.run([integers])
    assert np.array_equal(y, dequantize_tensor(torch.from_numpy(expected), nano.output_quantization).numpy())

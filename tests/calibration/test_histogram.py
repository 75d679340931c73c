"""Ranges chosen from a histogram."""

import pytest
import torch
import torch_nano as tn
from torch import Tensor, nn
from torch_nano.arithmetic.tensors import dequantize_tensor, quantize_tensor
from torch_nano.calibration.calibrate import calibrate
from torch_nano.calibration.histogram import Histogram
from torch_nano.calibration.ranges import Bounds, quantization
from torch_nano.capture.capture import capture


def numbers(seed: int) -> Tensor:
    """Numbers of a random distribution, some of them clamped at 0 and 6 as by ReLU6."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(20_000, generator=generator)
    x = x * torch.rand(20_000, generator=generator).pow(seed % 4) + seed % 3
    return x.clamp(0, 6) if seed % 2 else x


def histogram_of(x: Tensor, parts: int = 1) -> Histogram:
    histogram = Histogram()
    for part in x.chunk(parts):
        histogram.observe(part)
    return histogram


def error(x: Tensor, bounds: Bounds) -> float:
    chosen = quantization(*bounds)
    return float((dequantize_tensor(quantize_tensor(x, chosen), chosen).double() - x).square().sum())


@pytest.mark.parametrize("seed", range(12))
def test_the_error_of_the_histogram_is_that_of_the_numbers(seed: int) -> None:
    x = numbers(seed)
    histogram = histogram_of(x)
    for share in (1.0, 0.7, 0.3):
        bounds = histogram.bounds[0] * share, histogram.bounds[1] * share
        assert histogram.squared_error(bounds) == pytest.approx(error(x, bounds), rel=0.1), f"seed {seed}"


@pytest.mark.parametrize("seed", range(12))
def test_mse_is_never_worse_than_all_numbers(seed: int) -> None:
    x = numbers(seed)
    histogram = histogram_of(x)
    found = histogram.least_squared_error()
    assert error(x, found) <= error(x, histogram.bounds) * 1.02, f"seed {seed}"
    assert histogram.bounds[0] <= found[0] <= found[1] <= histogram.bounds[1]


def test_mse_and_entropy_leave_out_long_tails() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(50_000, generator=generator) / torch.rand(50_000, generator=generator).clamp(min=0.01)
    histogram = histogram_of(x)
    for low, high in (histogram.least_squared_error(), histogram.least_divergence()):
        assert histogram.bounds[0] * 0.95 < low < -20 and 20 < high < histogram.bounds[1] * 0.95
    assert error(x, histogram.least_squared_error()) < 0.95 * error(x, histogram.bounds)


@pytest.mark.parametrize("value", [0.0, 1.0, -2.0])
def test_equal_numbers_are_covered(value: float) -> None:
    histogram = histogram_of(torch.full((50,), value))
    for low, high in (histogram.least_squared_error(), histogram.least_divergence()):
        assert low <= value <= high


@pytest.mark.parametrize("seed", range(6))
def test_the_batches_do_not_matter(seed: int) -> None:
    x = numbers(seed) * torch.logspace(-6, 2, 20_000)
    expected, found = histogram_of(x), histogram_of(x, 17)
    assert found.bounds == expected.bounds and found.exponent == expected.exponent
    assert torch.equal(found.counts, expected.counts)


def test_auto_has_the_least_squared_error_of_all_methods() -> None:
    graph = capture(nn.Sequential(nn.Identity(), nn.ReLU()), torch.zeros(2, 20))
    x = numbers(8).reshape(-1, 20)
    errors = {
        method: error(x, calibrate(graph, x, method)["input"])  # type: ignore[arg-type]
        for method in ("minmax", "percentile", "mse", "entropy", "auto")
    }
    assert errors["auto"] <= min(errors.values()) * 1.02


def test_wrong_percentiles_and_methods_are_refused() -> None:
    x = torch.randn(40, 4)
    model = nn.Sequential(nn.Linear(4, 3))
    with pytest.raises(
        tn.errors.InputError, match=r"percentile is 101; expected a number above 0, at most 100"
    ):
        tn.to_nano(model, x, calibrate=x, method="percentile", percentile=101)
    for make in (tn.to_nano, tn.prepare_qat):
        with pytest.raises(
            tn.errors.InputError, match=r"percentile is 99 and method 'minmax', .*='percentile'"
        ):
            make(model, x, calibrate=x, percentile=99)
    with pytest.raises(tn.errors.InputError, match="method is 'best'; expected one of minmax, "):
        tn.to_nano(model, x, calibrate=x, method="best")  # type: ignore[arg-type]

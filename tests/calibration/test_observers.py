import numpy as np
import pytest
import torch
from torch_nano.calibration.histogram import Histogram
from torch_nano.calibration.observers import MinMaxObserver, PercentileObserver


@pytest.mark.parametrize("seed", range(20))
def test_percentile_is_within_one_bin_of_numpy_for_any_batches(seed):
    rng = np.random.default_rng(seed)
    scale = 10.0 ** rng.uniform(-6, 6)
    sorted_by_size = rng.random() < 0.5
    data = (rng.standard_t(3, 20_000) * scale + rng.normal() * scale).astype(np.float32)
    data = data[np.argsort(abs(data))] if sorted_by_size else data
    percentile = rng.uniform(80, 99.99)
    observer = PercentileObserver(percentile)
    for batch in np.array_split(data, rng.integers(1, 30)):
        observer.observe(torch.from_numpy(batch))
    low, high = observer.range()
    left_out = (100 - percentile) / 2
    # One bin, and the distance between numpy's "lower" and "higher" neighbour.
    bin_width = 2 * abs(data).max() / Histogram.BINS
    for found, share in ((low, left_out), (high, 100 - left_out)):
        smallest = np.percentile(data, share, method="lower") - bin_width
        largest = np.percentile(data, share, method="higher") + bin_width
        assert smallest <= found <= largest, f"seed {seed}"


def test_the_order_of_batches_does_not_matter():
    data = (
        torch.randn(64, 100, generator=torch.Generator().manual_seed(0)) * torch.logspace(-9, 3, 64)[:, None]
    )
    ranges = set()
    for order in (torch.arange(64), torch.arange(63, -1, -1)):
        observer = PercentileObserver(99.0)
        for row in data[order]:
            observer.observe(row)
        ranges.add(observer.range())
    assert len(ranges) == 1


def test_zeros_before_small_numbers_cost_no_precision():
    observer = PercentileObserver(100.0)
    for value in (0.0, 1e-20, 3e-20):
        observer.observe(torch.full((10,), value))
    low, high = observer.range()
    assert 0 <= low <= 1e-23 and high == np.float32(3e-20)


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0, 3.4e38, -3.4e38, 1e-45])
def test_a_single_number_is_in_the_range(value):
    number = float(np.float32(value))
    for observer in (MinMaxObserver(), PercentileObserver(99.99)):
        observer.observe(torch.tensor([number]))
        low, high = observer.range()
        assert low <= number <= high


def test_an_outlier_is_left_out_by_percentile_only():
    data = torch.cat([torch.linspace(-1, 1, 100_000), torch.tensor([50.0])])
    observers = MinMaxObserver(), PercentileObserver(99.9)
    for observer in observers:
        observer.observe(data)
    assert observers[0].range() == (-1.0, 50.0)
    # The bins are 64 / 4096 wide.
    assert observers[1].range()[1] == pytest.approx(1.0, abs=64 / 4096)

"""What `to_nano` warns of."""

import warnings
from collections.abc import Iterator

import pytest
import torch
import torch_nano as tn
from networks import ConvNet1d, inputs, make
from torch import Tensor, nn
from torch_nano.calibration.batches import Batch
from torch_nano.comparison.samples import KeptSamples

X = inputs((3, 40), 64)
OUTLIER = torch.cat([X, 300 * X[:1]])


def warned(model: nn.Module, calibrate: object, **options: object) -> list[warnings.WarningMessage]:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        tn.to_nano(model, X[:2], calibrate=calibrate, **options)  # type: ignore[arg-type]
    return found


def test_lost_accuracy_is_warned_of_once_and_names_the_worst_layers() -> None:
    (found,) = warned(make(ConvNet1d), OUTLIER)
    assert found.category is tn.errors.AccuracyWarning
    text = str(found.message)
    assert text.startswith("int8 keeps ") and text.count(" dB)") == 3 and "check=False" in text
    # At the user's line.
    assert found.filename == __file__


def test_without_the_check_nothing_is_said() -> None:
    assert warned(make(ConvNet1d), OUTLIER, check=False) == []


def test_an_ordinary_model_is_not_warned_of() -> None:
    assert warned(make(ConvNet1d), X) == []


def test_data_that_can_be_read_only_once_is_checked() -> None:
    def once() -> Iterator[Tensor]:
        yield from OUTLIER.split(10)

    assert [found.category for found in warned(make(ConvNet1d), once())] == [tn.errors.AccuracyWarning]


def test_a_qat_module_has_no_data_to_check() -> None:
    qat = tn.prepare_qat(make(ConvNet1d), X[:2], calibrate=OUTLIER)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        qat.to_nano()


def test_few_samples_and_constant_inputs_are_warned_of() -> None:
    found = warned(make(ConvNet1d), torch.zeros(4, 3, 40))
    assert {one.category for one in found} >= {tn.errors.CalibrationWarning}
    texts = [str(one.message) for one in found if one.category is tn.errors.CalibrationWarning]
    assert len(texts) == 2
    assert "has 4 samples" in texts[0] and "constant: each number of input 'x' is 0" in texts[1]


def test_a_percentile_of_too_few_numbers_is_warned_of() -> None:
    torch.manual_seed(0)
    x = torch.randn(300, 6)
    x[0, 0] = 1e4
    model = nn.Sequential(nn.Linear(6, 3))

    def scale(**options: object) -> float:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            nano = tn.to_nano(model, x, calibrate=x, check=False, **options)  # type: ignore[arg-type]
        return nano.input_quantization.scale

    with (
        pytest.warns(
            tn.errors.CalibrationWarning, match=r"none of the 1,800 .* percentile=99.88 leaves out one"
        ),
        pytest.warns(tn.errors.ChannelRangeWarning),
    ):
        tn.to_nano(model, x, calibrate=x, method="percentile", check=False)
    assert scale(method="percentile") > 30
    assert scale(method="percentile", percentile=99.88) < 0.1


@pytest.mark.parametrize(
    "patterns,reason",
    [((), "'classifier', the Linear that ends it, is frozen too"), (("classifier",), "is frozen too")],
)
def test_a_frozen_model_without_a_head_says_why(patterns: tuple[str, ...], reason: str) -> None:
    model = make(ConvNet1d)
    tn.freeze(model, *patterns)
    (found,) = warned(model, X)
    assert found.category is tn.errors.HeadWarning and reason in str(found.message)
    assert warned(model, X, head=None) == []


def test_a_frozen_model_that_ends_in_something_else_says_what() -> None:
    model = nn.Sequential(make(ConvNet1d), nn.ReLU())
    tn.freeze(model, "0.features")
    (found,) = warned(model, X)
    assert found.category is tn.errors.HeadWarning and "an activation follows it" in str(found.message)


@pytest.mark.parametrize("seed", range(20))
def test_kept_samples_are_few_and_spread_evenly(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    kept, start = KeptSamples(), 0
    count = int(torch.randint(1, 30, (), generator=generator))
    for size in torch.randint(1, 300, (count,), generator=generator).tolist():
        kept.observe(Batch([torch.arange(start, start + size).float()[:, None]], None))
        start += size
    found = torch.cat([batch.inputs[0] for batch in kept.batches]).flatten()
    steps = found.diff().unique()
    assert found[0] == 0 and len(steps) <= 1, f"seed {seed}"
    assert min(start, 8) <= len(found) <= max(15, min(256, start // 16)), f"seed {seed}"


def test_more_samples_are_kept_where_they_are_asked_for() -> None:
    kept = KeptSamples(32)
    for batch in torch.arange(200.0)[:, None].split(30):
        kept.observe(Batch([batch], None))
    found = torch.cat([batch.inputs[0] for batch in kept.batches]).flatten()
    assert 32 <= len(found) < 64 and found[0] == 0 and len(found.diff().unique()) == 1


def test_large_samples_are_kept_in_little_memory() -> None:
    kept = KeptSamples()
    for _ in range(50):
        kept.observe(Batch([torch.zeros(4, 2**19)], None))
    assert 8 <= kept.count < 16

"""Models that end in an argmax return class indices: in Python, on the board, in files, for a firmware."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch_nano as tn
from torch import Tensor, nn
from torch_nano.errors import HeadError, HeadWarning, InputError, UnsupportedError

VECTORS = torch.randn(48, 8, generator=torch.Generator().manual_seed(0))
IMAGES = torch.randn(48, 3, 6, 5, generator=torch.Generator().manual_seed(0))
LABELS = ["walk", "run", "sit", "climb", "rest"]


class Net(nn.Module):
    """A function of the scores of a layer, in evaluation mode."""

    def __init__(self, function: Callable[[Tensor], object], layer: nn.Module | None = None) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.function = function
        self.scores = layer or nn.Linear(8, 5)
        self.eval()

    def forward(self, x: Tensor) -> object:
        return self.function(self.scores(x))


def converted(model: nn.Module, x: Tensor = VECTORS, **settings: object) -> tn.NanoModule:
    return tn.to_nano(model, x[:2], calibrate=x, head=None, **settings)


@pytest.mark.parametrize(
    "function",
    [
        lambda y: y.argmax(1),
        lambda y: torch.argmax(y, dim=-1, keepdim=True),
        lambda y: torch.max(y, 1)[1],
        lambda y: y.max(1).indices,
        lambda y: y.topk(1)[1],
        lambda y: y.softmax(1).argmax(1),
        lambda y: y.argmin(1),
        lambda y: y.min(1, keepdim=True).indices,
        lambda y: y.argmax(1).int(),
        lambda y: torch.stack([y.argmax(1), y.argmin(1)], 1),
    ],
)
def test_every_spelling_returns_the_indices_of_the_scores(function: Callable[[Tensor], Tensor]) -> None:
    model = Net(function)
    nano, scores = converted(model), converted(Net(lambda y: y))
    expected = model(VECTORS)
    found = nano(VECTORS)
    assert found.shape == expected.shape and found.dtype == torch.int64
    # Those of the int8 scores, whose order may differ from float where two are close.
    assert torch.equal(found, function(scores(VECTORS)).long())
    assert float((found == expected).float().mean()) > 0.9
    assert nano.verify(data=VECTORS)


@pytest.mark.parametrize("function", [lambda y: y.argmax(1), lambda y: y.argmax(3), lambda y: y.max(2)[1]])
def test_a_map_of_indices_has_its_own_shape(function: Callable[[Tensor], Tensor]) -> None:
    model = Net(function, nn.Conv2d(3, 4, 3))
    nano = converted(model, IMAGES)
    assert nano(IMAGES).shape == model(IMAGES).shape
    assert float((nano(IMAGES) == model(IMAGES)).float().mean()) > 0.95
    assert nano.verify(data=IMAGES)


def test_scores_and_class_may_be_returned_together() -> None:
    model = Net(lambda y: {"scores": y, "class": y.argmax(1)})
    nano = converted(model)
    assert torch.equal(nano(VECTORS)["class"], nano(VECTORS)["scores"].argmax(1))
    qat = tn.prepare_qat(model, VECTORS[:2], calibrate=VECTORS)
    qat.train()(VECTORS)["scores"].sum().backward()
    assert qat.eval()(VECTORS)["class"].dtype == torch.int64
    assert torch.equal(qat(VECTORS)["class"], tn.to_nano(qat)(VECTORS)["class"])


def test_devices_and_files_keep_indices(tmp_path: Path) -> None:
    nano = converted(Net(lambda y: y.argmax(1)), labels=LABELS)
    assert nano.verify("rv32imc", VECTORS[:3])
    nano.save(tmp_path / "model.nano")
    assert torch.equal(tn.load(tmp_path / "model.nano")(VECTORS), nano(VECTORS))
    with tn.Device("sim", nano=nano) as device:
        for x, label in zip(VECTORS[:8], nano(VECTORS[:8]).tolist(), strict=True):
            prediction = device.predict(x)
            assert (prediction.label, prediction.name) == (label, LABELS[label])
            assert prediction.confidence is None and prediction.known
    nano.export(tmp_path / "export")
    module = (tmp_path / "export" / "model.rs").read_text()
    assert "Its integers are indices." in module and "fn dequantize" not in module
    with pytest.raises(InputError, match="4 labels for a model of 5 outputs"):
        converted(Net(lambda y: y.argmax(1)), labels=LABELS[:4])


def test_a_comparison_counts_equal_indices() -> None:
    model = Net(lambda y: y.argmax(1))
    nano = converted(model)
    (output,) = nano.compare(model, (VECTORS, model(VECTORS))).outputs
    share = float((nano(VECTORS) == model(VECTORS)).double().mean())
    assert output.holds_indices and output.agreement == output.int8_accuracy == share
    assert output.float_accuracy == 1 and str(output).startswith("output: same class in ")


def test_different_indices_are_warned_of() -> None:
    layer = nn.Linear(8, 5)
    with torch.no_grad():
        layer.weight.mul_(1e-3)
        layer.bias.copy_(torch.tensor([1.0, 1, 1, 1, -100]))
    with pytest.warns(tn.errors.AccuracyWarning, match=r"int8 finds the same 'output' in \d+\.\d% of"):
        converted(Net(lambda y: y.argmax(1), layer))


def test_a_head_needs_the_scores() -> None:
    model = Net(lambda y: torch.relu(y).argmax(1), nn.Sequential(nn.Linear(8, 6), nn.Linear(6, 5)))
    with pytest.raises(HeadError, match="ends in an argmax; return the scores"):
        tn.to_nano(model, VECTORS[:2], calibrate=VECTORS, head="scores.1")
    tn.freeze(model, "scores.0")
    with pytest.warns(HeadWarning, match="ends in an argmax; return the scores"):
        tn.to_nano(model, VECTORS[:2], calibrate=VECTORS)


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda y: y.argmax(1).float(), "it converts indices to float32"),
        (lambda y: y.argmax(1) * 2, "it computes with indices"),
        (lambda y: y.argmax(1) == 2, "it computes with indices"),
        (lambda y: nn.functional.one_hot(y.argmax(1), 5), "it computes with indices"),
        (lambda y: y.max(1)[1] * y.max(1)[0], "it computes with indices"),
        (lambda y: y.topk(2)[1], "it orders the 2 largest"),
        (lambda y: y.gather(1, y.argmax(1, keepdim=True)), "it computes with indices"),
    ],
)
def test_computing_with_indices_is_refused(function: Callable[[Tensor], Tensor], reason: str) -> None:
    with pytest.raises(UnsupportedError, match=reason) as caught:
        converted(Net(function))
    assert all(node.way_out for node in caught.value.nodes)

"""Modules that are unsupported by their class are reported before torch.export."""

import warnings

import pytest
import torch
import torch_nano as tn
from torch import Tensor, nn

X = torch.zeros(2, 7, 6)


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNCellBase]) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(7, 7, 1)
        self.layer = kind(6, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        state = self.layer(self.convolution(x)[:, 0])
        return self.head(state[0] if isinstance(state, tuple) else state)


class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = Recurrent(nn.LSTMCell)
        self.cell = nn.GRUCell(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.cell(self.first(x))


@pytest.fixture
def no_export(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise AssertionError("exported")

    monkeypatch.setattr(torch.export, "export", fail)


@pytest.mark.usefixtures("no_export")
@pytest.mark.parametrize("convert", [tn.to_nano, tn.prepare_qat])
@pytest.mark.parametrize("kind", [nn.RNNCell, nn.GRUCell, nn.LSTMCell])
def test_recurrent_cells_are_refused_without_export(kind: type[nn.RNNCellBase], convert: object) -> None:
    model = Recurrent(kind).train()
    assert callable(convert)
    with (
        pytest.raises(tn.errors.UnsupportedError, match="carries a state") as caught,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("error")
        convert(model, X, calibrate=X)
    (node,) = caught.value.nodes
    assert (node.module_path, node.operator) == ("layer", f"nn.{kind.__name__}")
    assert "nn.GRU" in node.way_out and model.layer.training


@pytest.mark.usefixtures("no_export")
def test_all_are_named() -> None:
    with pytest.raises(tn.errors.UnsupportedError) as caught:
        tn.to_nano(Nested(), X, calibrate=X)
    found = [(node.module_path, node.operator) for node in caught.value.nodes]
    assert found == [("first.layer", "nn.LSTMCell"), ("cell", "nn.GRUCell")]


@pytest.mark.usefixtures("no_export")
def test_a_subclass_is_named_by_torchs_class() -> None:
    class Gated(nn.GRUCell):
        pass

    with pytest.raises(tn.errors.UnsupportedError, match=r"layer: nn\.GRUCell"):
        tn.to_nano(Recurrent(Gated), X, calibrate=X)


def test_a_module_that_is_not_called_is_allowed() -> None:
    model = Recurrent(nn.GRUCell)
    x = torch.randn(8, 7, 6)
    front = tn.transfer.get_model_feature_extractor(model, "convolution")
    nano = tn.to_nano(front, x, calibrate=x)
    assert nano.verify("host", x)


@pytest.mark.usefixtures("no_export")
def test_fake_quantization_of_torch_is_refused_by_its_module() -> None:
    model = nn.Sequential(torch.ao.quantization.FakeQuantize(), nn.Linear(6, 3))
    with pytest.raises(tn.errors.UnsupportedError, match="rounds as another device would") as caught:
        tn.to_nano(model, X, calibrate=X)
    (node,) = caught.value.nodes
    assert (node.module_path, node.operator) == ("0", "torch.ao.quantization.FakeQuantize")

"""Models that take indices and look up rows of a table: in Python, in training, on the board, in files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch_nano as tn
from torch import Tensor, nn
from torch_nano.errors import InputError, UnsupportedError

ROWS, TOKENS = 40, 12
IDS = torch.randint(ROWS, (64, TOKENS), generator=torch.Generator().manual_seed(0))
REAL = torch.randn(64, 3, generator=torch.Generator().manual_seed(1))


class Net(nn.Module):
    """A function of a model of an embedding and further layers, in evaluation mode."""

    def __init__(self, function: Callable[..., Tensor], **layers: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.function = function
        self.rows = nn.Embedding(ROWS, 8, padding_idx=0)
        self.scores = nn.Linear(8, 5)
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


class Columns(nn.Module):
    """Two columns of categories with tables of their own, and real numbers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first, self.second, self.scores = nn.Embedding(ROWS, 4), nn.Embedding(50, 4), nn.Linear(11, 5)
        self.eval()

    def forward(self, ids: Tensor, x: Tensor) -> Tensor:
        rows = self.first(ids[:, 0]), self.second(ids[:, 1])
        return self.scores(torch.cat([*rows, x], 1))


def mean(net: Net, x: Tensor) -> Tensor:
    return net.scores(net.rows(x).mean(1))


def recurrent(net: Net, x: Tensor) -> Tensor:
    return net.scores(net.gru(net.rows(x))[0][:, -1])


def with_positions(net: Net, x: Tensor) -> Tensor:
    positions = net.positions(torch.arange(x.shape[1], device=x.device))
    return net.scores((net.rows(x) + positions).relu().mean(1))


def converted(model: nn.Module, x: Tensor = IDS, **settings: object) -> tn.NanoModule:
    return tn.to_nano(model, x[:2], calibrate=x, head=None, **settings)


def sqnr(expected: Tensor, found: Tensor) -> float:
    return float(10 * torch.log10(expected.square().sum() / (expected - found).square().sum()))


@pytest.mark.parametrize(
    ("model", "x"),
    [
        (Net(mean), IDS),
        (Net(mean), IDS.int()),
        (Net(lambda net, x: nn.functional.embedding(x.long(), net.rows.weight).amax(1)), IDS.int()),
        (Net(lambda net, x: net.scores(net.rows.weight[x].transpose(1, 2).mean(2))), IDS),
        (Net(lambda net, x: net.rows(x[:, 3])), IDS),
        (Net(lambda net, x: net.rows(x.flip(1)).flatten(1)), IDS),
        (Net(lambda net, x: net.rows(x).permute(0, 3, 1, 2).relu()), IDS.reshape(64, 3, 4)),
        (Net(lambda net, x: net.scores(net.rows(x))), IDS),
        (Net(recurrent, gru=nn.GRU(8, 8, batch_first=True)), IDS),
        (Net(with_positions, positions=nn.Embedding(TOKENS, 8)), IDS),
    ],
    ids=["mean", "int32", "function", "index", "one", "moved", "map", "each", "gru", "positions"],
)
def test_every_spelling_looks_up_rows(model: nn.Module, x: Tensor) -> None:
    nano = converted(model, x)
    with torch.no_grad():
        expected = model(x)
    found = nano(x)
    assert found.shape == expected.shape and sqnr(expected, found) > 30
    assert nano.verify(data=x) and nano.verify()
    assert nano.compare(model, x).outputs[0].sqnr > 30


def test_indices_and_real_numbers_are_inputs_of_one_model() -> None:
    model, data = Columns(), {"ids": IDS[:, :2], "x": REAL}
    nano = tn.to_nano(model, data, calibrate=data, head=None)
    assert nano.index_limits == {"ids": ROWS, "x": None}
    with torch.no_grad():
        assert sqnr(model(**data), nano(**data)) > 30
    assert nano.verify(data=data)


def test_devices_and_files_take_indices(tmp_path: Path) -> None:
    nano = converted(Net(mean))
    assert nano.verify("rv32imc", IDS[:3])
    nano.save(tmp_path / "model.nano")
    loaded = tn.load(tmp_path / "model.nano")
    assert torch.equal(loaded(IDS), nano(IDS)) and loaded.index_limits == nano.index_limits
    with tn.Device("sim", nano=nano) as device:
        for x, label in zip(IDS[:4], nano(IDS[:4]).argmax(1).tolist(), strict=True):
            assert device.predict(x).label == device.predict(x.numpy()).label == label
        with pytest.raises(InputError, match="the input holds the index 40; expected 0 to 39"):
            device.predict(torch.full((TOKENS,), ROWS))
        with pytest.raises(InputError, match=r"dtype torch\.float32; expected indices, int64 or int32"):
            device.predict(IDS[0].float())
    nano.export(tmp_path / "export")
    module = (tmp_path / "export" / "model.rs").read_text()
    assert "Its integers are indices." in module and "fn quantize" not in module


@pytest.mark.parametrize("index", [-1, ROWS])
def test_an_index_without_a_row_is_refused(index: int) -> None:
    model, wrong = Net(mean), torch.full((2, TOKENS), index)
    message = f"holds the index {index}; expected 0 to 39, the rows of an embedding"
    nano, qat = converted(model), tn.prepare_qat(model, IDS[:2], calibrate=IDS)
    for call in (nano, nano.forward_int8, qat, lambda x: converted(model, x), lambda x: nano.verify(data=x)):
        with pytest.raises(InputError, match=message):
            call(wrong)
    with pytest.raises(
        InputError, match=r"dtype torch\.float32; expected a tensor \[N, 12\] of int64 indices"
    ):
        nano(IDS.float())


def test_arrays_of_indices_have_the_order_of_the_model() -> None:
    pairs = IDS.unflatten(1, (4, 3))
    nano = converted(Net(lambda net, x: net.rows(x.mT.flatten(1)).flatten(1)), pairs)
    with tn.Device("sim", nano=nano) as device:
        made = device.predict(pairs[0].numpy()).outputs["output"]
        assert made.tolist() == device.predict(nano.device_inputs(pairs)[0]).outputs["output"].tolist()
        assert made.tolist() == device.predict(pairs[0]).outputs["output"].tolist()


def test_the_rows_are_trained_with_the_bytes_of_the_device() -> None:
    model = Net(with_positions, positions=nn.Embedding(TOKENS, 8))
    qat = tn.prepare_qat(model, IDS[:2], calibrate=IDS).train()
    optimizer = torch.optim.SGD(qat.parameters(), 0.1)
    before = {name: tensor.clone() for name, tensor in qat.float_state_dict().items()}
    for _ in range(2):
        optimizer.zero_grad()
        qat(IDS).square().sum().backward()
        assert not qat.rows.weight.grad[0].any()
        optimizer.step()
    after = qat.float_state_dict()
    assert all(not torch.equal(before[name], after[name]) for name in ("rows.weight", "positions.weight"))
    tn.qat.freeze_ranges(qat)
    assert torch.equal(qat.eval()(IDS), qat.to_nano(head=None)(IDS))


def test_rows_that_the_data_do_not_use_keep_their_numbers() -> None:
    model = Net(lambda net, x: net.rows(x))
    with torch.no_grad():
        model.rows.weight[ROWS - 1] = 20.0
    nano = converted(model, IDS % 8)
    rare = torch.full((1, TOKENS), ROWS - 1)
    assert torch.allclose(nano(rare), model(rare), atol=nano.output_quantization.scale)


@pytest.mark.parametrize(
    ("function", "reason", "way_out"),
    [
        (lambda net, x: mean(net, x * 1), "it computes with indices", mean),
        (lambda net, x: net.rows(x.float().long()).mean(1), "it converts indices to float32", mean),
        (
            lambda net, x: net.rows.weight[:, 0][x],
            r"other parts than rows of a table, of a tensor of shape \[40\]",
            lambda net, x: net.rows.weight[:, :1].contiguous()[x].flatten(1),
        ),
        (lambda net, x: net.bag(x), "it looks up rows and adds them", lambda net, x: net.rows(x).mean(1)),
    ],
)
def test_other_uses_of_indices_are_refused_with_a_way_out(
    function: Callable[..., Tensor], reason: str, way_out: Callable[..., Tensor]
) -> None:
    with pytest.raises(UnsupportedError, match=reason) as caught:
        converted(Net(function, bag=nn.EmbeddingBag(ROWS, 8)))
    assert all(node.way_out for node in caught.value.nodes)
    assert converted(Net(way_out)).verify(data=IDS[:4])


def test_rows_that_are_scaled_in_forward_are_scaled_once() -> None:
    model = Net(mean)
    embedding = model.rows
    embedding.max_norm = 1.0
    with pytest.raises(UnsupportedError, match=r"it scales its rows in forward \(max_norm=1\)"):
        converted(model)
    embedding.weight.data.renorm_(embedding.norm_type, 0, embedding.max_norm)
    embedding.max_norm = None
    assert converted(model).verify(data=IDS[:4])


@pytest.mark.parametrize("function", [lambda net, x: x.flip(1), lambda net, x: x.float() / 255])
def test_integers_that_choose_no_rows_are_refused(function: Callable[..., Tensor]) -> None:
    with pytest.raises(InputError, match="'x' holds integers, and no embedding looks up rows by them"):
        converted(Net(function))
    with pytest.raises(InputError, match=r"dtype torch\.uint8; expected a float tensor with batch"):
        converted(Net(function), IDS.to(torch.uint8))

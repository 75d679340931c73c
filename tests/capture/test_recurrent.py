"""Recurrent modules in every form: captured without their steps, equal to the module, trained exactly."""

import time
from collections.abc import Callable

import pytest
import torch
import torch_nano as tn
from torch import Tensor, nn
from torch_nano.capture.capture import capture
from torch_nano.capture.passes import optimize

X = torch.randn(16, 12, 5, generator=torch.Generator().manual_seed(0))
Forward = Callable[[nn.Module, Tensor], Tensor]


class Model(nn.Module):
    def __init__(self, recurrent: nn.RNNBase, forward: Forward, width: int) -> None:
        super().__init__()
        self.recurrent, self.function, self.classifier = recurrent, forward, nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.function(self.recurrent, x))


def _both_directions(recurrent: nn.Module, x: Tensor) -> Tensor:
    state = recurrent(x)[1]
    state = state[0] if isinstance(state, tuple) else state
    return torch.cat([state[-2], state[-1]], 1)


def _zeros(recurrent: nn.Module, x: Tensor) -> Tensor:
    return recurrent(x, torch.zeros(1, x.shape[0], 6))[0][:, -1]


#: The recurrent module, what forward makes of it, and the number of features.
FORMS: dict[str, tuple[Callable[[], nn.RNNBase], Forward, int]] = {
    "last step": (lambda: nn.GRU(5, 6, batch_first=True), lambda m, x: m(x)[0][:, -1], 6),
    "mean": (lambda: nn.RNN(5, 6, batch_first=True), lambda m, x: m(x)[0].mean(1), 6),
    "relu": (lambda: nn.RNN(5, 6, nonlinearity="relu", batch_first=True), lambda m, x: m(x)[0][:, -1], 6),
    "no bias": (lambda: nn.GRU(5, 6, bias=False, batch_first=True), lambda m, x: m(x)[0][:, -1], 6),
    "state squeezed": (lambda: nn.GRU(5, 6, batch_first=True), lambda m, x: m(x)[1].squeeze(0), 6),
    "states": (
        lambda: nn.GRU(5, 6, 2, batch_first=True),
        lambda m, x: m(x)[1].transpose(0, 1).flatten(1),
        12,
    ),
    "both directions": (lambda: nn.LSTM(5, 6, batch_first=True, bidirectional=True), _both_directions, 12),
    "two layers, both directions": (
        lambda: nn.GRU(5, 6, 2, dropout=0.3, bidirectional=True, batch_first=True),
        _both_directions,
        12,
    ),
    "zeros given": (lambda: nn.GRU(5, 6, batch_first=True), _zeros, 6),
    "time first": (lambda: nn.GRU(5, 6), lambda m, x: torch.relu(m(x.transpose(0, 1))[0] * 2)[-1], 6),
    "time first, back": (
        lambda: nn.LSTM(5, 6, 2),
        lambda m, x: m(x.permute(1, 0, 2))[0].permute(1, 2, 0).amax(-1),
        6,
    ),
}


def made(name: str) -> Model:
    torch.manual_seed(0)
    recurrent, forward, width = FORMS[name]
    return Model(recurrent(), forward, width).eval()


@pytest.mark.parametrize("name", FORMS)
def test_a_form_is_captured_and_runs_with_the_same_bytes(name: str) -> None:
    model = made(name)
    graph = optimize(capture(model, X))
    with torch.no_grad():
        torch.testing.assert_close(graph.float_run(X)[0], model(X), atol=1e-5, rtol=0)
    nano = tn.to_nano(model, X, calibrate=X, head=None, check=False)
    assert nano.verify("host", X)
    assert nano.verify("rv32imc", X[:1])


def test_time_first_costs_no_move() -> None:
    graph = optimize(capture(made("time first"), X))
    assert [node.operator.name for node in graph.nodes].count("move") == 1, "the last step only"


def test_a_long_sequence_is_captured_at_once() -> None:
    model = Model(nn.GRU(5, 6, batch_first=True), lambda m, x: m(x)[0][:, -1], 6).eval()
    capture(model, X)
    start = time.perf_counter()
    capture(model, torch.randn(2, 500, 5))
    # Each step once took 0.1 s.
    assert time.perf_counter() - start < 10


@pytest.mark.parametrize("form", ["two layers, both directions", "both directions", "mean"])
def test_training_runs_the_numbers_of_the_image(form: str) -> None:
    qat = tn.prepare_qat(made(form), X, calibrate=X)
    optimizer = torch.optim.SGD(qat.parameters(), 0.1)
    name = "recurrent.weight_hh_l0"
    before = qat.state_dict()[name].clone()
    for _ in range(3):
        optimizer.zero_grad()
        qat(X).square().sum().backward()
        optimizer.step()
    assert not torch.equal(before, qat.state_dict()[name])
    qat.eval()
    nano = qat.to_nano(head=None)
    assert torch.equal(nano(X), qat(X))


def test_a_frozen_recurrent_module_leaves_the_head() -> None:
    model = made("last step")
    tn.freeze(model, "recurrent")
    nano = tn.to_nano(model, X, calibrate=X, check=False)
    assert nano.head is not None and not model.recurrent.weight_hh_l0.requires_grad


class Packed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.GRU(5, 6, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(x, torch.full((len(x),), 12), batch_first=True)
        return self.recurrent(packed)[1][-1]


class Learned(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.recurrent, self.start = nn.GRU(5, 6, batch_first=True), nn.Parameter(torch.ones(1, 1, 6))

    def forward(self, x: Tensor) -> Tensor:
        return self.recurrent(x, self.start.expand(-1, x.shape[0], -1).contiguous())[0][:, -1]


class Changed(nn.Module):
    """A state of zeros that is changed in place, through a view."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.GRU(5, 6, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        start = torch.zeros(1, x.shape[0], 6)
        start[0].fill_(1)
        return self.recurrent(x, start)[0][:, -1]


def test_what_remains_is_refused_with_a_way_out() -> None:
    projected = Model(nn.LSTM(5, 6, proj_size=3, batch_first=True), lambda m, x: m(x)[0][:, -1], 3)
    for model, reason, way_out in (
        (projected, "projected", r"nn\.Linear"),
        (Packed(), "lengths of their own", "windows of one length"),
        (Changed(), "starts from a state that forward gives it", r"torch\.zeros"),
        (Learned(), "starts from a state that forward gives it", r"torch\.zeros"),
    ):
        with pytest.raises(tn.errors.UnsupportedError, match=f"(?s){reason}.*{way_out}"):
            capture(model, X)


@pytest.mark.parametrize(
    "zeros",
    [
        lambda x: torch.zeros(1, x.shape[0], 6).to(x),
        lambda x: torch.full((1, x.shape[0], 6), 0.0).requires_grad_().detach(),
        lambda x: torch.zeros(1, 1, 6).repeat(1, x.shape[0], 1),
        lambda x: torch.zeros(1, 1, 6).expand(1, x.shape[0], 6).contiguous(),
    ],
)
def test_a_state_of_zeros_in_any_spelling_is_no_state(zeros: Callable[[Tensor], Tensor]) -> None:
    model = Model(nn.GRU(5, 6, batch_first=True), lambda m, x: m(x, zeros(x))[0][:, -1], 6)
    (found,) = capture(model, X).float_run(X)
    torch.testing.assert_close(found, model(X))


def test_a_state_that_depends_on_the_input_can_be_a_part_of_each_step() -> None:
    class Decoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.GRU(5, 6, batch_first=True), nn.GRU(11, 6, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            h = self.first(x)[1][-1]
            y: Tensor = self.second(torch.cat([x, h[:, None].expand(-1, x.shape[1], -1)], 2))[0]
            return y

    assert tn.to_nano(Decoder(), X, calibrate=X, head=None, check=False).verify("host", X[:2])


def test_a_refused_module_is_named_before_the_export() -> None:
    convolutions = [nn.Conv1d(12, 12, 3, padding=1) for _ in range(3)]
    model = nn.Sequential(*convolutions, nn.LSTM(5, 6, proj_size=3, batch_first=True))
    with pytest.raises(tn.errors.UnsupportedError, match="proj_size=3") as caught:
        capture(model, X)
    assert [node.module_path for node in caught.value.nodes] == ["3"]
    with pytest.raises(tn.errors.UnsupportedError, match="lengths of their own") as caught:
        capture(Packed(), X)
    assert "test_recurrent.py:" in caught.value.nodes[0].source


def test_final_states_are_returned_with_the_batch_first() -> None:
    finals = Model(nn.LSTM(5, 6, batch_first=True), lambda m, x: m(x)[1][1], 6)
    with pytest.raises(
        tn.errors.UnsupportedError, match=r"move the batch to the front: y\.transpose\(0, 1\)"
    ):
        capture(finals, X)


@pytest.mark.parametrize(
    "forward",
    [
        lambda m, x: m(x)[1][1][-1],
        lambda m, x: m(x)[1][1].transpose(0, 1),
        lambda m, x: m(x)[1][1].squeeze(0),
    ],
)
def test_the_final_cell_of_an_lstm_is_an_output(forward: Callable[[nn.Module, Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    lstm = nn.LSTM(5, 6, batch_first=True)

    class Cell(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = lstm

        def forward(self, x: Tensor) -> Tensor:
            return forward(self.lstm, x)

    model = Cell().eval()
    nano = tn.to_nano(model, X, calibrate=X, check=False)
    assert nano.output_quantization.dtype == "int16" and nano(X).shape == model(X).shape
    with torch.no_grad():
        assert float((nano(X) - model(X)).abs().max()) < 0.05
    assert nano.verify(data=X)

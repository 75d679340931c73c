import inspect

import pytest
import torch
import torch.nn.functional as F
import torch_nano as tn
from networks import NETWORKS, inputs, make
from torch import nn
from torch_nano.capture.capture import capture


def net(forward, **modules):
    """A model of these modules and this forward."""
    model = nn.Module()
    for name, module in modules.items():
        model.add_module(name, module)
    model.__class__ = type("Net", (nn.Module,), {"forward": forward})
    return model


@pytest.mark.parametrize(("network", "shape"), NETWORKS)
@pytest.mark.parametrize("batch", [1, 5])
def test_the_float_run_is_the_model(network, shape, batch):
    model = make(network)
    x = inputs(shape, 7)
    graph = capture(model, x[:batch])
    with torch.no_grad():
        expected = model(x)
    (found,) = graph.float_run(x)
    # The same float32 operations; an average is a sum divided by a count here, which rounds once more than
    # torch's.
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("network", "shape"), NETWORKS)
def test_the_model_is_not_changed(network, shape):
    model = make(network).train()
    model[1].eval() if isinstance(model, nn.Sequential) else next(model.children()).eval()
    modes = [module.training for module in model.modules()]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    capture(model, inputs(shape, 4))
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_values_know_their_module_and_source_line():
    def forward(self, x):
        x = F.relu(self.first(x))
        return self.second(x)

    graph = capture(net(forward, first=nn.Linear(3, 4), second=nn.Linear(4, 2)), torch.zeros(2, 3))
    lines, start = inspect.getsourcelines(forward)
    places = [(value.module_path, value.source.rsplit("/", 1)[-1]) for value in graph.values.values()]
    here = "test_capture.py"
    expected = [("first", start + 1), ("", start + 1), ("second", start + 2)]
    assert places == [("", ""), *((path, f"{here}:{line}") for path, line in expected)]
    assert len(lines) == 3


def test_a_module_called_twice_keeps_its_name():
    graph = capture(net(lambda s, x: s.a(s.b(s.a(x))), a=nn.ReLU(), b=nn.Linear(3, 3)), torch.zeros(2, 3))
    assert [value.module_path for value in graph.values.values()] == ["", "a", "b", "a"]


def test_all_unsupported_calls_come_in_one_error():
    class Unsupported(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = net(lambda s, x: torch.cumsum(s.linear(x), 1), linear=nn.Linear(8, 8))

        def forward(self, x):
            x = self.inner(x)
            y = F.dropout(torch.cumprod(x, 1))
            return torch.sort(y * 2.0, 1).values

    with pytest.raises(tn.errors.UnsupportedError) as caught:
        capture(Unsupported(), torch.zeros(2, 8))
    nodes = caught.value.nodes
    assert nodes[0].module_path == "inner"
    assert [node.operator for node in nodes] == [
        "aten.cumsum.default",
        "aten.cumprod.default",
        "aten.dropout.default",
        "aten.sort.default",
    ]
    _, start = inspect.getsourcelines(Unsupported)
    # torch records the frames of functions called forward only: a lambda's line is its caller's.
    assert [int(node.source.rsplit(":", 1)[1]) - start for node in nodes] == [6, 7, 7, 8]
    assert all(node.reason for node in nodes) and "pass training" in nodes[2].way_out
    text = str(caught.value)
    assert text.startswith("4 calls of the model") and all(node.operator in text for node in nodes)


@pytest.mark.parametrize(
    ("forward", "reason"),
    [
        (lambda s, x: x.transpose(0, 1), "batch is not its first dimension"),
        (lambda s, x: x.flatten(), "batch is not its first dimension"),
        (lambda s, x: x.reshape(x.shape[0] * 2, 2), "batch is not its first dimension"),
        (lambda s, x: x.sum(), "it mixes the samples of a batch"),
        (lambda s, x: F.relu(x)[None], "no such operator|first dimension"),
        (lambda s, x: F.hardtanh(x, 0.0, x.shape[0]), "depends on the batch size"),
        (lambda s, x: F.batch_norm(x, None, None, training=True), "statistics of the batch"),
    ],
)
def test_unsupported_calls_say_why(forward, reason):
    with pytest.raises(tn.errors.UnsupportedError, match=reason):
        capture(net(forward), torch.zeros(3, 4))


@pytest.mark.parametrize(
    ("forward", "reason"),
    [
        (lambda s, x: F.relu(x) if x.shape[0] == 3 else x, "a batch of 3 only"),
        (lambda s, x: F.relu(x).reshape(3, 2, 2), "a batch of 3 only"),
        (lambda s, x: (F.relu(x), None), "returns None as output1; expected one tensor that is computed"),
        (lambda s, x: (), "returns nothing"),
        (lambda s, x: s.weight, "torch.export|computed from its input"),
        (lambda s, x, y: x + y, "Net fails with an input of shape .*missing 1 required positional argument"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_models_that_cannot_be_captured_say_why(forward, reason):
    model = net(forward)
    model.weight = nn.Parameter(torch.zeros(3, 4))
    with pytest.raises(tn.errors.CaptureError, match=reason):
        capture(model, torch.zeros(3, 4))


@pytest.mark.parametrize(
    "example",
    [None, torch.zeros(3), torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2, 3).cfloat()],
)
def test_wrong_examples_are_refused(example):
    with pytest.raises(tn.errors.InputError, match=r"the example(?:'s 'input')? (?:is|holds)"):
        capture(nn.ReLU(), example)


def test_a_backbone_under_no_grad_is_captured():
    def forward(self, x):
        with torch.no_grad():
            x = torch.relu(self.backbone(x))
        return self.head(x)

    graph = capture(net(forward, backbone=nn.Linear(3, 4), head=nn.Linear(4, 2)), torch.zeros(2, 3))
    assert [node.operator.name for node in graph.nodes] == ["fully_connected", "table", "fully_connected"]


def test_unused_parts_are_dropped():
    def forward(self, x):
        self.unused(x)
        return self.used(x)

    graph = capture(net(forward, used=nn.Linear(3, 2), unused=nn.Linear(3, 3)), torch.zeros(2, 3))
    assert set(graph.parameters) == {"used.weight", "used.bias"}
    assert len(graph.nodes) == 1


def test_half_precision_and_double_models_are_taken_as_float32():
    model = nn.Sequential(nn.Linear(3, 2)).double()
    graph = capture(model, torch.zeros(2, 3))
    assert graph.parameters["0.weight"].dtype == torch.float32

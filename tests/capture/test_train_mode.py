"""Calls that a model makes in only one of its modes are reported before training."""

import inspect
import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torch_nano as tn
import torchvision
from torch import Tensor, nn
from torch_nano.capture.program import export
from torch_nano.capture.train_mode import check_train_mode
from torch_nano.modules.inputs import Inputs

X = torch.zeros(2, 6)


class OneLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)
        self.other = nn.Linear(6, 6)
        self.register_buffer("mean", torch.zeros(6))
        self.register_buffer("variance", torch.ones(6))
        self.register_buffer("calls", torch.zeros(()))


class NoisyInput(OneLayer):
    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x + torch.randn_like(x) if self.training else x)


class NoiseInPlace(OneLayer):
    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        if self.training:
            y += torch.rand(6)
        return y


class Scaled(OneLayer):
    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        return y * 2.0 if self.training else y


class SecondOutput(OneLayer):
    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        return (self.layer(x), self.other(x)) if self.training else self.layer(x)


class SoftmaxInEvaluation(OneLayer):
    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        return y if self.training else y.softmax(1)


class Counter(OneLayer):
    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.calls += 1
        return self.layer(x)


class AnotherConstant(OneLayer):
    def forward(self, x: Tensor) -> Tensor:
        return F.hardtanh(self.layer(x), 0.0, 2.0 if self.training else 3.0)


class AnotherResult(OneLayer):
    def forward(self, x: Tensor) -> Tensor:
        first, second = self.layer(x), self.other(x)
        return first + second if not self.training else second + first


class NoisyDropout(nn.Dropout):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x) if self.training else x


#: Model -> path of what differs, ATen's name, and a part of the line.
DIFFERENT = {
    NoisyInput: ("", "aten.randn_like", "torch.randn_like(x)"),
    NoiseInPlace: ("", "aten.rand", "y += torch.rand(6)"),
    Scaled: ("", "aten.mul", "y * 2.0"),
    SecondOutput: ("other", "Linear, aten.linear", "self.other(x)"),
    SoftmaxInEvaluation: ("", "aten.softmax", "y.softmax(1)"),
    Counter: ("", "aten.add_", "self.calls += 1"),
    AnotherConstant: ("", "aten.hardtanh", "F.hardtanh"),
    AnotherResult: ("", "aten.add", "first + second"),
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", DIFFERENT)
def test_it_is_named_with_module_and_line_whatever_the_mode_now(kind: type[OneLayer], training: bool) -> None:
    path, call, part = DIFFERENT[kind]
    with pytest.raises(
        tn.errors.UnsupportedError, match="1 call of the model cannot be trained by prepare_qat"
    ) as caught:
        tn.prepare_qat(kind().train(training), X, calibrate=X)
    (node,) = caught.value.nodes
    assert node.module_path == path and node.operator.startswith(call)
    lines, start = inspect.getsourcelines(kind)
    assert part in lines[int(node.source.rsplit(":", 1)[1]) - start]
    mode = "evaluation" if kind is SoftmaxInEvaluation else "train mode"
    assert f"computed in {mode} only" in node.reason and node.way_out


def test_to_nano_accepts_what_differs_in_train_mode() -> None:
    assert tn.to_nano(NoisyInput(), X, calibrate=torch.randn(8, 6)).verify("host")


def test_another_result_in_train_mode_is_refused() -> None:
    class Swapped(OneLayer):
        def forward(self, x: Tensor) -> Tensor:
            first = F.relu(self.layer(x))
            second = first + x
            return first if self.training else second

    with pytest.raises(tn.errors.UnsupportedError, match="returns another of its results in train mode"):
        tn.prepare_qat(Swapped(), X, calibrate=X)


def test_each_stochastic_depth_of_a_published_model_is_named() -> None:
    model = torchvision.models.efficientnet_b0()
    droppers = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torchvision.ops.StochasticDepth) and module.p > 0
    ]
    used = [name for name in droppers if model.get_submodule(name.rpartition(".")[0]).use_res_connect]
    with pytest.raises(tn.errors.UnsupportedError) as caught:
        check_train_mode(*_exported(model, torch.zeros(2, 3, 32, 32)))
    assert [node.module_path for node in caught.value.nodes] == used and len(used) == 9
    assert all(node.operator.startswith("StochasticDepth, ") for node in caught.value.nodes)
    assert all("stochastic_depth.py:" in node.source for node in caught.value.nodes)


def _exported(model: nn.Module, batch: Tensor) -> tuple[nn.Module, Inputs, torch.export.ExportedProgram]:
    inputs = Inputs((batch,))
    return model, inputs, export(model, inputs)


class Same(OneLayer):
    """Dropouts and batch norms, as modules and as functions."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.5)
        self.norm = nn.BatchNorm1d(6, momentum=None)

    def forward(self, *inputs: Tensor) -> Tensor:
        x = F.dropout(self.dropout(self.norm(self.layer(inputs[0]))), 0.2, self.training)
        return F.batch_norm(x, self.mean, self.variance, training=self.training)


@pytest.mark.parametrize("how", ["dropout and batch norm", "frozen", "off"])
def test_dropout_and_batch_norm_are_no_difference(how: str) -> None:
    model: nn.Module = Same()
    if how == "frozen":
        model = nn.Sequential(NoisyInput(), nn.Linear(6, 2))
        tn.freeze(model, "0")
    elif how == "off":
        model = nn.Sequential(torchvision.ops.StochasticDepth(0.0, "row"), nn.Linear(6, 2))
    modes = [module.training for module in model.modules()]
    qat = tn.prepare_qat(model, X, calibrate=torch.randn(8, 6)).eval()
    assert torch.equal(qat(X), qat.to_nano()(X))
    assert [module.training for module in model.modules()] == modes


class LayerDrop(OneLayer):
    """With the numbers of another library than torch, as some published models do it."""

    def __init__(self, draw: Callable[[], float], in_evaluation: bool) -> None:
        super().__init__()
        self.draw, self.in_evaluation = draw, in_evaluation

    def forward(self, x: Tensor) -> Tensor:
        drops = (self.training or self.in_evaluation) and self.draw() < 0.5
        return x if drops else self.layer(x)


@pytest.mark.parametrize("draw", [random.random, np.random.rand])
def test_random_numbers_of_python_and_numpy_are_refused(draw: Callable[[], float]) -> None:
    message = "LayerDrop draws numbers from Python's or numpy's random in {} mode"
    calibrate = torch.randn(8, 6)
    for _ in range(3):
        with pytest.raises(tn.errors.CaptureError, match=message.format("train")):
            tn.prepare_qat(LayerDrop(draw, False), X, calibrate=calibrate)
        with pytest.raises(tn.errors.CaptureError, match=message.format("evaluation")):
            tn.to_nano(LayerDrop(draw, True), X, calibrate=calibrate)
    tn.to_nano(LayerDrop(draw, False), X, calibrate=calibrate)


def test_a_derived_dropout_may_do_something_else() -> None:
    with pytest.raises(tn.errors.UnsupportedError, match=r"0: NoisyDropout, aten\.randn_like"):
        tn.prepare_qat(nn.Sequential(NoisyDropout(), nn.Linear(6, 2)), X, calibrate=X)


def test_a_trace_error_names_the_mode() -> None:
    class Branch(OneLayer):
        def forward(self, x: Tensor) -> Tensor:
            if self.training and x.sum() > 0:
                return x
            return self.layer(x)

    with pytest.raises(tn.errors.UnsupportedError, match=r"bool\(tensor\), as of an if in train mode"):
        tn.prepare_qat(Branch(), X, calibrate=X)

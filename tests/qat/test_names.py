"""A network in training keeps the names of its original, so code that uses them still works."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torch_nano as tn
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch_nano.ir.graph import Graph
from torch_nano.qat import QatModule
from torch_nano.qat.training_ranges import TrainingRanges

from .trained import TASKS, differing_bits, train


def prepared(**options: object) -> tuple[nn.Module, QatModule, Tensor, Tensor]:
    x, y = TASKS["residual"].data()
    model = TASKS["residual"].model()
    qat = tn.prepare_qat(model, x[:2], calibrate=x[:200], **options)  # type: ignore[arg-type]
    return model, qat, x, y


def test_parameters_buffers_and_modules_keep_their_names_and_are_copies() -> None:
    model, qat, x, y = prepared()
    assert [name for name, _ in qat.named_parameters()] == [name for name, _ in model.named_parameters()]
    assert [name for name, _ in qat.named_children()][:-1] == [name for name, _ in model.named_children()]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    train(qat, x, y, steps=2)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not torch.equal(qat.get_parameter("stem.0.weight"), before["stem.0.weight"])


def test_every_parameter_of_the_model_learns_even_those_of_folded_batch_norms() -> None:
    _, qat, x, y = prepared()
    F.cross_entropy(qat(x[:64]), y[:64]).backward()
    for name, parameter in qat.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.any()), name


def test_an_optimizer_by_name_trains_only_what_it_names() -> None:
    _, qat, x, y = prepared()
    before = {name: parameter.detach().clone() for name, parameter in qat.named_parameters()}
    optimizer = torch.optim.SGD([("classifier.weight", qat.get_parameter("classifier.weight"))], lr=0.1)
    assert optimizer.param_groups[0]["param_names"] == ["classifier.weight"]
    train(qat, x, y, 2, optimizer)
    changed = {name for name, parameter in qat.named_parameters() if not torch.equal(parameter, before[name])}
    assert changed == {"classifier.weight"}


def test_weight_decay_can_be_set_by_name() -> None:
    _, qat, x, y = prepared()
    decayed = [parameter for name, parameter in qat.named_parameters() if parameter.dim() > 1]
    rest = [parameter for name, parameter in qat.named_parameters() if parameter.dim() <= 1]
    before = [parameter.detach().clone() for parameter in (*decayed, *rest)]
    optimizer = torch.optim.SGD([{"params": decayed, "weight_decay": 0.5}, {"params": rest}], lr=0.1)
    loss = F.cross_entropy(qat(x[:64]), y[:64]) * 0
    loss.backward()
    optimizer.step()
    for parameter, old in zip(decayed, before, strict=False):
        # w - 0.1 * 0.5 * w, in two roundings of float32.
        torch.testing.assert_close(parameter.detach(), old * 0.95, rtol=1e-6, atol=0)
    for parameter, old in zip(rest, before[len(decayed) :], strict=True):
        assert torch.equal(parameter, old)


def test_freeze_by_glob_stops_weights_and_ranges() -> None:
    _, qat, x, y = prepared(momentum=0.5)
    tn.freeze(qat, "stem.*", "first")
    assert tn.frozen(qat) == ["stem", "stem.0", "stem.1", "stem.2", "first", "first.0", "first.1"]
    weights = {name: parameter.detach().clone() for name, parameter in qat.named_parameters()}
    ranges = qat.quantization_ranges
    bounds = {name: ranges.bounds[index].clone() for name, index in ranges._index.items()}
    train(qat.train(), x, y, steps=2)
    changed = {name for name, weight in weights.items() if not torch.equal(weight, qat.get_parameter(name))}
    assert changed == {name for name in weights if not name.startswith(("stem.", "first."))}
    moved = {name for name, old in bounds.items() if not torch.equal(old, ranges.bounds[ranges._index[name]])}
    paths = {qat._graph.values[name].module_path for name in moved}
    assert {path.partition(".")[0] for path in paths} == {"", "second", "projection", "classifier"}


def test_a_frozen_module_keeps_its_learned_scale_whatever_the_optimizer_does() -> None:
    _, qat, x, y = prepared(ranges="learned")
    scales = qat.quantization_ranges.log_scales
    assert scales is not None
    tn.freeze(qat, "stem")
    tn.qat.freeze_ranges(qat, "second")
    before = {name: scale.detach().clone() for name, scale in scales.items()}
    train(qat, x, y, 3, torch.optim.AdamW(qat.parameters(), lr=0.01, weight_decay=0.1))
    kept = {name for name, scale in scales.items() if torch.equal(scale, before[name])}
    # A learned scale is called by its value's number and name.
    paths = {qat._graph.values[name.partition("_")[2]].module_path.partition(".")[0] for name in kept}
    assert len(kept) == 2 and paths == {"stem", "second"}
    tn.qat.unfreeze_ranges(qat, "second")
    train(qat, x, y, 1, torch.optim.AdamW(qat.parameters(), lr=0.01))
    assert sum(torch.equal(scale, before[name]) for name, scale in scales.items()) == 1


def test_what_was_frozen_in_the_model_stays_frozen() -> None:
    x, _ = TASKS["residual"].data()
    model = TASKS["residual"].model()
    tn.freeze(model, "stem")
    qat = tn.prepare_qat(model, x[:2], calibrate=x[:200])
    assert tn.frozen(qat) == ["stem", "stem.0", "stem.1", "stem.2"]
    tn.freeze(model)
    assert "" in tn.frozen(tn.prepare_qat(model, x[:2], calibrate=x[:200]))


def test_checkpoints_of_the_float_model_load_and_back() -> None:
    model, qat, x, y = prepared()
    assert set(qat.float_state_dict()) == set(model.state_dict())
    train(model.train(), x, y, steps=2)
    bounds = qat.quantization_ranges.bounds.clone()
    qat.load_state_dict(model.state_dict(), strict=True)
    assert torch.equal(qat.quantization_ranges.bounds, bounds)
    for name, tensor in model.state_dict().items():
        assert torch.equal(qat.state_dict()[name], tensor), name
    train(qat, x, y, steps=2)
    model.load_state_dict(qat.float_state_dict(), strict=True)
    assert torch.equal(model.get_parameter("classifier.weight"), qat.get_parameter("classifier.weight"))
    wrong = model.state_dict()
    del wrong["classifier.weight"]
    with pytest.raises(RuntimeError, match=r"Missing key\(s\) in state_dict: \"classifier.weight\""):
        qat.load_state_dict(wrong)


def test_a_checkpoint_holds_what_is_disabled_and_folded() -> None:
    _, qat, x, _ = prepared(batch_norm="batch_statistics")
    tn.qat.disable_quantization(qat, "stem.0")
    _, same, _, _ = prepared()
    same.load_state_dict(qat.state_dict())
    same.train()
    qat.train()
    assert torch.equal(qat(x), same(x))
    tn.qat.enable_quantization(qat)
    tn.qat.fold_batch_norm(qat)
    assert not torch.equal(qat(x), same(x))
    same.load_state_dict(qat.state_dict())
    assert torch.equal(qat(x), same(x))
    other = tn.prepare_qat(nn.Sequential(nn.Linear(4, 3)), torch.zeros(2, 4))
    with pytest.raises(tn.errors.InputError, match=r"the state is of \d+ layers; this module has 1"):
        other.set_extra_state(qat.get_extra_state())


@pytest.mark.parametrize("ranges", ["moving_average", "learned"])
def test_its_own_checkpoint_restores_the_bits(ranges: str) -> None:
    _, qat, x, y = prepared(ranges=ranges)
    train(qat, x, y, steps=3)
    tn.qat.freeze_ranges(qat)
    _, other, _, _ = prepared(ranges=ranges)
    assert differing_bits(other.eval()(x[:100]), qat.eval()(x[:100])) > 0
    other.load_state_dict(qat.state_dict(), strict=True)
    assert differing_bits(other(x[:100]), qat(x[:100])) == 0
    assert other.to_nano().image == qat.to_nano().image
    assert bool(other.quantization_ranges.frozen.all())


@pytest.mark.parametrize("ranges", ["moving_average", "learned"])
def test_an_average_of_models_is_a_model(ranges: str) -> None:
    _, qat, x, y = prepared(ranges=ranges, momentum=0.5)
    tn.qat.freeze_ranges(qat)
    average = AveragedModel(qat, multi_avg_fn=get_ema_multi_avg_fn(0.5))
    average.eval()(x[:2])
    tn.qat.unfreeze_ranges(qat)
    weight = qat.get_parameter("classifier.weight").detach().clone()
    average.update_parameters(qat)
    train(qat.train(), x, y, steps=2)
    average.update_parameters(qat)
    expected = (weight + qat.get_parameter("classifier.weight")) / 2
    torch.testing.assert_close(average.module.classifier.weight, expected, rtol=1e-6, atol=1e-7)
    with torch.no_grad():
        assert differing_bits(average(x[:500]), tn.to_nano(average)(x[:500])) == 0
    if ranges == "moving_average":
        # The average takes the buffers as they are: its ranges are those that training has reached.
        assert torch.equal(average.module.quantization_ranges.bounds, qat.quantization_ranges.bounds)
        assert average.module.float_graph().values["conv2d"] == qat.float_graph().values["conv2d"]


@pytest.mark.parametrize("name", [*sorted(vars(QatModule)), "quantization_ranges", "_graph", "model_name"])
@pytest.mark.parametrize("kind", ["parameter", "buffer", "module"])
def test_a_name_that_a_qat_module_has_itself_is_refused(kind: str, name: str) -> None:
    model = nn.Sequential(nn.Linear(4, 3))
    own = {
        "parameter": (model._parameters, nn.Parameter(torch.zeros(1))),
        "buffer": (model._buffers, torch.zeros(1)),
        "module": (model._modules, nn.Identity()),
    }
    names, thing = own[kind]
    names[name] = thing  # type: ignore[index]
    with pytest.raises(tn.errors.InputError, match=rf"the model has '{name}', .* rename it"):
        QatModule(model, *_prepared_parts(), "folded")


def _prepared_parts() -> tuple[Graph, TrainingRanges]:
    qat = tn.prepare_qat(nn.Sequential(nn.Linear(4, 3)), torch.zeros(2, 4), calibrate=torch.eye(4))
    graph = qat.float_graph()
    return graph, qat.quantization_ranges


def forward_of(names: Sequence[str]) -> type[nn.Module]:
    """A module whose forward calls its inputs so."""
    made: dict[str, Any] = {}
    exec(
        f"def forward(self, {', '.join(names)}):\n    return self.head(self.norm({' + '.join(names)}))", made
    )

    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.head = nn.BatchNorm1d(6), nn.Linear(6, 3)

        forward = made["forward"]

    return Named


def batched(names: Sequence[str], count: int) -> Iterator[tuple[str, ...]]:
    """Names in tuples of `count`; the last may be shorter."""
    return (tuple(names[start : start + count]) for start in range(0, len(names), count))


#: All that a module or a container of parameters calls its own ...
TAKEN = sorted({name for name in (*dir(nn.ParameterDict()), *dir(nn.Module())) if not name.startswith("__")})
#: ... and what passes call the values of a model with one input.
CALLED = ("batch_norm", "batch_norm_input", "batch_norm_image", "linear", "input")


@pytest.mark.parametrize("names", [*((name,) for name in CALLED), *batched(TAKEN, 12)], ids="-".join)
def test_inputs_may_have_any_name(names: Sequence[str]) -> None:
    random = torch.Generator().manual_seed(0)
    x = tuple(torch.randn(16, 6, generator=random) for _ in names)
    torch.manual_seed(0)
    qat = tn.prepare_qat(forward_of(names)(), x, calibrate=[x], ranges="learned").train()
    optimizer = torch.optim.SGD(qat.parameters(), lr=0.1)
    qat(*x).square().sum().backward()
    optimizer.step()
    scales = qat.quantization_ranges.log_scales
    assert scales is not None and all(scale.grad is not None for scale in scales.values())
    assert all(key.partition("_")[0].isdigit() for key in scales)
    other = tn.prepare_qat(forward_of(names)(), x, calibrate=[x], ranges="learned")
    other.load_state_dict(qat.state_dict())
    assert torch.equal(other.eval()(*x), qat.eval()(*x)) and torch.equal(qat(*x), qat.to_nano()(*x))

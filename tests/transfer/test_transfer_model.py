import copy
import inspect

import pytest
import torch
import torch_nano as tn
from networks import ResidualNet, inputs, make
from torch import nn

from .hooks import hooks_of


@pytest.fixture
def base() -> nn.Module:
    net = make(ResidualNet)
    net.classifier = nn.Identity()
    return net


def trainable(model: nn.Module) -> set[str]:
    """The top-level parts of the base, and of the whole, that have something to train."""
    return {
        ".".join(name.split(".")[:2]).removesuffix(".weight").removesuffix(".bias")
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def test_the_signature_is_the_promised_one():
    parameters = inspect.signature(tn.transfer.TransferModel).parameters
    assert [(name, parameter.default) for name, parameter in parameters.items()] == [
        ("base_model", inspect.Parameter.empty),
        ("new_layers", inspect.Parameter.empty),
        ("freeze_base", True),
        ("fine_tune_layers", None),
    ]


def test_it_is_the_new_layers_of_the_base(base):
    new_layers = nn.Sequential(nn.Linear(48, 16), nn.ReLU(), nn.Linear(16, 3))
    model = tn.transfer.TransferModel(base, new_layers)
    x = inputs((2, 8, 8), 5)
    assert torch.equal(model(x), new_layers(base(x)))
    assert model.get_base_model() is base and model.get_new_layers() is new_layers


def test_only_what_is_asked_for_is_trained(base):
    assert trainable(tn.transfer.TransferModel(base, nn.Linear(48, 3))) == {"new_layers"}
    model = tn.transfer.TransferModel(base, nn.Linear(48, 3), fine_tune_layers=["second", "proj*"])
    assert trainable(model) == {"base_model.second", "base_model.projection", "new_layers"}
    model.freeze_base_model()
    assert trainable(model) == {"new_layers"}
    model.unfreeze_layers(["first"])
    assert trainable(model) == {"base_model.first", "new_layers"}
    model.unfreeze_base_model()
    assert tn.frozen(model) == [] and hooks_of(model) == []
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_without_freezing_all_is_trainable(base):
    model = tn.transfer.TransferModel(base, nn.Linear(48, 3), freeze_base=False)
    assert all(parameter.requires_grad for parameter in model.parameters()) and tn.frozen(model) == []


def test_a_training_step_changes_what_is_trainable_and_nothing_else(base):
    model = tn.transfer.TransferModel(base, nn.Linear(48, 3), fine_tune_layers=["second"]).train()
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD(filter(lambda p: p.requires_grad, model.parameters()), lr=0.1)
    nn.functional.cross_entropy(model(inputs((2, 8, 8), 8)), torch.arange(8) % 3).backward()
    optimizer.step()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    parts = {name.split(".")[1] if name.startswith("base_model") else name.split(".")[0] for name in changed}
    assert parts == {"second", "new_layers"}
    assert "base_model.second.1.running_mean" in changed


def test_fine_tune_layers_of_a_base_that_is_not_frozen_is_refused(base):
    with pytest.raises(tn.errors.InputError, match="freeze_base=False"):
        tn.transfer.TransferModel(base, nn.Linear(48, 3), freeze_base=False, fine_tune_layers=["second"])


def test_an_unknown_layer_lists_near_ones(base):
    with pytest.raises(tn.errors.ModuleNameError, match=r"'secnd'.*did you mean.*'second'"):
        tn.transfer.TransferModel(base, nn.Linear(48, 3), fine_tune_layers=["secnd"])
    model = tn.transfer.TransferModel(base, nn.Linear(48, 3))
    with pytest.raises(tn.errors.ModuleNameError, match=r"expected a list of names: \['second'\]"):
        model.unfreeze_layers("second")
    assert trainable(model) == {"new_layers"}


@pytest.mark.parametrize(
    ("layer", "features", "way_out"),
    [
        ("projection", 12, r"\[4, 12, 4, 4\].*nn.AdaptiveAvgPool2d\(1\), nn.Flatten\(\)"),
        ("projection", 12 * 16, r"for 192 features; begin with nn.Flatten\(\)"),
        ("projection", 7, "pool or flatten first"),
        ("classifier", 7, r"\[4, 4\].*nn.Linear\(4, 3\)"),
    ],
)
def test_new_layers_that_do_not_fit_are_explained(layer, features, way_out):
    base = tn.transfer.get_model_feature_extractor(make(ResidualNet), layer)
    model = tn.transfer.TransferModel(base, nn.Sequential(nn.Linear(features, 3)))
    with pytest.raises(tn.errors.InputError, match=way_out):
        model(inputs((2, 8, 8), 4))


@pytest.mark.parametrize("copied", [False, True])
def test_it_becomes_a_device_model_with_a_trainable_head(base, copied):
    model = tn.transfer.TransferModel(base, nn.Linear(48, 3)).train()
    x = inputs((2, 8, 8), 64)
    if copied:
        model = copy.deepcopy(model)
    nano = tn.to_nano(model.eval(), x[:1], calibrate=x)
    assert (nano.head.features, nano.head.classes) == (48, 3)
    agreement = (nano(x).argmax(1) == model(x).argmax(1)).float().mean()
    # Two rounded logits may swap where they are close.
    assert agreement >= 0.9


def test_layers_are_frozen_by_lists_of_names(base):
    tn.transfer.freeze_layers(base, ["stem", "first.*"])
    assert trainable(base) == {"second.0", "second.1", "projection"}
    tn.transfer.unfreeze_layers(base, ["first"])
    assert trainable(base) == {"first.0", "first.1", "second.0", "second.1", "projection"}
    tn.transfer.freeze_layers(base, [])
    assert "second.0" in trainable(base)
    tn.transfer.freeze_layers(base)
    tn.transfer.unfreeze_layers(base, [])
    assert trainable(base) == set()
    tn.transfer.unfreeze_layers(base)
    assert tn.frozen(base) == []
    for change in (tn.transfer.freeze_layers, tn.transfer.unfreeze_layers):
        with pytest.raises(tn.errors.ModuleNameError, match="did you mean"):
            change(base, ["stemm"])
        with pytest.raises(tn.errors.ModuleNameError, match="expected a list"):
            change(base, "stem")

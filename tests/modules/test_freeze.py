import copy
import pickle

import pytest
import torch
import torch_nano as tn
from networks import ConvNet1d, inputs, make
from torch import nn


@pytest.fixture
def model() -> nn.Module:
    return make(ConvNet1d)


def run_training_batches(model: nn.Module) -> None:
    model.train()
    model(inputs((3, 40), 8) * 3 + 1)


def statistics(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: buffer.clone() for name, buffer in model.named_buffers()}


@pytest.mark.parametrize("copied", [lambda m: m, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_batch_norm_statistics_and_gradients_stay(model, copied):
    tn.freeze(model, "features.*")
    model = copied(model)
    before = statistics(model)
    run_training_batches(model)
    after = statistics(model)
    assert all(torch.equal(before[name], after[name]) for name in before)
    trainable = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert trainable == ["classifier.weight", "classifier.bias"]
    assert [module.training for module in (model, model.dropout, model.features[1])] == [True, True, False]


def test_without_freezing_the_statistics_would_move(model):
    before = statistics(model)
    run_training_batches(model)
    assert not torch.equal(before["features.1.running_mean"], model.features[1].running_mean)


def test_frozen_dropout_is_off(model):
    tn.freeze(model)
    x = inputs((3, 40), 4)
    model.train()
    assert torch.equal(model(x), model(x))


def test_a_glob_freezes_a_module_and_all_inside_it(model):
    tn.freeze(model, "features.*")
    assert tn.frozen(model) == ["features", *(f"features.{index}" for index in range(8))]


def test_patterns_may_overlap_and_repeat(model):
    tn.freeze(model, "features.0", "dropout")
    tn.freeze(model, "features.0")
    assert tn.frozen(model) == ["features.0", "dropout"]
    tn.unfreeze(model)
    assert tn.frozen(model) == []
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_unfreeze_undoes_freeze(model):
    model.train()
    tn.freeze(model)
    assert all(name in tn.frozen(model) for name in ("", "features", "features.1", "classifier"))
    tn.unfreeze(model, "features.4")
    assert not {"", "features", "features.4"} & set(tn.frozen(model))
    assert "features.1" in tn.frozen(model)
    assert model.features[4].weight.requires_grad and not model.features[0].weight.requires_grad
    tn.unfreeze(model)
    before = statistics(model)
    run_training_batches(model)
    assert not torch.equal(before["features.5.running_mean"], model.features[5].running_mean)
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("change", [tn.freeze, tn.unfreeze])
def test_an_unknown_name_lists_near_ones_and_changes_nothing(model, change):
    tn.freeze(model, "dropout")
    with pytest.raises(tn.errors.ModuleNameError, match=r"'classifer'.*did you mean.*'classifier'"):
        change(model, "features", "classifer")
    assert tn.frozen(model) == ["dropout"]


@pytest.mark.parametrize("pattern", [["features"], 3, None])
def test_a_list_of_patterns_is_refused(model, pattern):
    with pytest.raises(tn.errors.ModuleNameError, match="each a str of its own, or modules"):
        tn.freeze(model, pattern)


def test_modules_name_themselves(model):
    tn.freeze(model, model.features[4], "dropout")
    assert tn.frozen(model) == ["features.4", "dropout"]
    tn.unfreeze(model, model.features[4])
    assert tn.frozen(model) == ["dropout"]


@pytest.mark.parametrize("change", [tn.freeze, tn.unfreeze])
def test_a_module_of_another_model_is_refused(model, change):
    with pytest.raises(tn.errors.ModuleNameError, match="Linear was given that is not part of ConvNet1d"):
        change(model, "features", copy.deepcopy(model).classifier)
    assert tn.frozen(model) == []


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copy_is_unfrozen_without_the_original(model, copied):
    tn.freeze(model)
    other = copied(model)
    tn.unfreeze(other)
    assert tn.frozen(other) == [] and not any(m._forward_pre_hooks for m in other.modules())
    assert len(tn.frozen(model)) == len(list(model.modules()))
    before = statistics(model)
    run_training_batches(model)
    assert all(torch.equal(before[name], tensor) for name, tensor in statistics(model).items())


@pytest.mark.parametrize("assign", [False, True])
def test_load_state_dict_does_not_change_what_is_frozen(model, assign):
    trained = make(ConvNet1d, 1)
    with torch.no_grad():
        trained.features[0].weight += 1
    plain = model.state_dict().keys()
    tn.freeze(model, "features")
    assert model.state_dict().keys() == plain
    model.load_state_dict(trained.state_dict(), assign=assign)
    assert torch.equal(model.features[0].weight, trained.features[0].weight)
    assert "features.1" in tn.frozen(model) and not model.features[0].weight.requires_grad
    before = statistics(model)
    run_training_batches(model)
    assert all(torch.equal(before[name], tensor) for name, tensor in statistics(model).items())


def test_a_state_dict_does_not_freeze_what_loads_it(model):
    other = make(ConvNet1d)
    tn.freeze(model)
    other.load_state_dict(model.state_dict())
    assert tn.frozen(other) == [] and all(parameter.requires_grad for parameter in other.parameters())


def test_a_gradient_from_before_does_not_move_what_is_frozen(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    for _ in range(2):
        model(inputs((3, 40), 8)).sum().backward()
        optimizer.step()
    tn.freeze(model, "features")
    before = model.features[0].weight.clone()
    optimizer.step()
    assert torch.equal(model.features[0].weight, before)


def test_integers_stay_without_gradients(model):
    model.register_parameter("table", nn.Parameter(torch.arange(3), requires_grad=False))
    tn.freeze(model)
    tn.unfreeze(model)
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == ["table"]


class Tied(nn.Module):
    """Encoder and decoder have one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(4, 4)
        self.decoder = nn.Linear(4, 4)
        self.decoder.weight = self.encoder.weight
        self.head = nn.Linear(4, 2)


def test_a_parameter_cannot_be_frozen_and_not():
    model = Tied()
    with pytest.raises(
        tn.errors.FreezeError, match=r"'encoder.weight' is also 'decoder.weight', whose .* would not"
    ):
        tn.freeze(model, "encoder")
    assert tn.frozen(model) == [] and all(parameter.requires_grad for parameter in model.parameters())
    tn.freeze(model, "encoder", "decoder")
    with pytest.raises(
        tn.errors.FreezeError, match=r"'decoder.weight' is also 'encoder.weight', whose .* stay frozen"
    ):
        tn.unfreeze(model, "decoder")
    assert tn.frozen(model) == ["encoder", "decoder"] and not model.decoder.weight.requires_grad
    tn.unfreeze(model, "encoder", "decoder")
    tn.freeze(model, "head")
    assert tn.frozen(model) == ["head"]


def test_a_module_in_two_places_is_one():
    shared = nn.Linear(4, 4)
    model = nn.ModuleDict({"first": nn.Sequential(shared), "second": nn.Sequential(shared)})
    tn.freeze(model, "first")
    assert tn.frozen(model) == ["first", "first.0"]
    tn.unfreeze(model, "second.0")
    assert tn.frozen(model) == []

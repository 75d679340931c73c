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


def test_a_glob_freezes_all_below_and_the_module_itself(model):
    tn.freeze(model, "features.*")
    assert tn.frozen(model) == ["features", *(f"features.{index}" for index in range(8))]


def test_several_patterns_and_the_same_twice(model):
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
    with pytest.raises(tn.ModuleNameError, match=r"'classifer'.*did you mean.*'classifier'"):
        change(model, "features", "classifer")
    assert tn.frozen(model) == ["dropout"]


def test_a_list_of_patterns_is_refused(model):
    with pytest.raises(tn.ModuleNameError, match="each a str of its own"):
        tn.freeze(model, ["features"])

import copy

import pytest
import torch
import torch_nano as tn
from networks import ConvNet1d, inputs, make
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from .hooks import hooks_of
from .task import SEED, data, equal, network, state


def with_exact_features() -> nn.Sequential:
    """A network whose backbone computes without rounding, for the inputs of `exact_data`: then its features
    do not depend on the batch, in which sums may come in another order.
    """
    model = network()
    model.backbone = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.2))
    with torch.no_grad():
        for parameter in model.backbone.parameters():
            parameter.copy_((parameter * 64).round() / 64)
    return model


def exact_data() -> tuple[Tensor, Tensor]:
    x, y = data()
    return (x * 64).round() / 64, y


class Counting(nn.Module):
    """Counts calls, and samples in them."""

    def __init__(self) -> None:
        super().__init__()
        self.calls, self.samples = 0, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.samples += len(x)
        return x


def test_the_head_gets_the_very_weights_of_training_with_the_frozen_part_in_the_loop():
    cached = with_exact_features().train()
    looped = copy.deepcopy(cached)
    # 96 samples in batches of 20: the last one is smaller.
    options = {"epochs": 4, "batch_size": 20, "seed": SEED, "learning_rate": 0.01, "progress": False}
    before = state(cached)
    history = tn.transfer.feature_extraction(cached, exact_data(), exact_data(), head="head", **options)
    tn.freeze(looped, "backbone.*")
    expected = tn.fit(looped, exact_data(), exact_data(), **options)
    assert equal(state(cached), state(looped))
    assert not equal(state(cached), before)
    for column in ("loss", "accuracy", "val_loss", "val_accuracy"):
        assert history[column] == expected[column]


def test_it_is_the_same_with_convolutions_and_batch_norm_but_for_rounding():
    x, y = inputs((3, 40), 90), torch.arange(90) % 5
    cached, looped = make(ConvNet1d), make(ConvNet1d)
    options = {"epochs": 3, "batch_size": 16, "seed": SEED, "learning_rate": 0.01, "progress": False}
    tn.transfer.feature_extraction(cached, (x, y), head="classifier", **options)
    tn.freeze(looped)
    tn.unfreeze(looped, "classifier")
    tn.fit(looped, (x, y), **options)
    for name, tensor in state(cached).items():
        # Features differ by float32 rounding, 1e-7; AdamW steps are 0.01, whatever the size of a gradient.
        torch.testing.assert_close(tensor, looped.state_dict()[name], rtol=0, atol=1e-5)
    moved = (cached.classifier.weight - make(ConvNet1d).classifier.weight).abs().max()
    assert moved > 0.05


@pytest.mark.parametrize("epochs", [1, 6])
def test_the_frozen_part_runs_once_over_the_data_however_many_epochs(epochs):
    model = network()
    counting = Counting()
    model.backbone.append(counting)
    x, y = data()
    tn.transfer.feature_extraction(
        model, (x, y), (x[:30], y[:30]), head="head", epochs=epochs, batch_size=20, progress=False
    )
    # 96 and 30 samples in batches of 20.
    assert (counting.calls, counting.samples) == (5 + 2, 96 + 30)


def test_an_epoch_without_the_backbone_takes_a_fraction_of_the_time():
    """The backbone has all but 192 of 17 million multiplications per sample."""
    x, y = torch.randn(128, 8, 24, 24, generator=torch.Generator().manual_seed(SEED)), torch.arange(128) % 3
    model = nn.Sequential(
        nn.Sequential(
            nn.Conv2d(8, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
        ),
        nn.Flatten(),
        nn.Linear(64, 3),
    )
    cached = tn.transfer.feature_extraction(model, (x, y), head="2", epochs=4, progress=False)
    looped = tn.fit(model, (x, y), epochs=4, progress=False)
    # Far from the measured 1/40, so that a busy machine does not matter.
    assert min(cached["seconds"]) < min(looped["seconds"]) / 5


def test_only_the_head_changes_and_only_it_is_not_frozen_then():
    model = network().train()
    before = state(model)
    tn.transfer.feature_extraction(model, data(), head="head", epochs=2, progress=False)
    changed = {name for name, tensor in state(model).items() if not torch.equal(tensor, before[name])}
    assert changed == {"head.weight", "head.bias"}
    assert tn.frozen(model) == ["backbone", *(f"backbone.{index}" for index in range(4))]
    assert [name for name, p in model.named_parameters() if p.requires_grad] == ["head.weight", "head.bias"]
    nano = tn.to_nano(model.eval(), data()[0][:1], calibrate=data()[0])
    assert (nano.head.features, nano.head.classes) == (16, 3)


def test_it_learns():
    model = network()
    tn.fit(model, data(), epochs=10, learning_rate=0.02, seed=SEED, progress=False)
    nn.init.zeros_(model.head.weight)
    history = tn.transfer.feature_extraction(
        model,
        data(),
        data(300, SEED + 1),
        head="head",
        epochs=15,
        learning_rate=0.05,
        seed=SEED,
        progress=False,
    )
    # A third of the labels are of each class.
    assert history["val_accuracy"][-1] > 0.8, f"seed {SEED}"


def test_features_are_those_of_evaluation_mode_in_the_order_of_the_data():
    model = network().train()
    x, y = data()
    cached = tn.transfer.extract_features(model, (x, y), "head", batch_size=20)
    model.backbone.eval()
    features, targets = cached.tensors
    # Batches of 20 and of 96 may sum in another order.
    torch.testing.assert_close(features, model.backbone(x).detach(), rtol=1e-5, atol=1e-6)
    assert torch.equal(targets, y) and not features.requires_grad
    assert model.training and hooks_of(model) == []


@pytest.mark.parametrize("kind", ["dataset", "loader", "list"])
def test_it_takes_every_kind_of_data(kind):
    x, y = data()
    dataset = TensorDataset(x, y)
    given = {
        "dataset": dataset,
        "loader": DataLoader(dataset, batch_size=20),
        "list": list(zip(x.split(20), y.split(20), strict=True)),
    }[kind]
    cached = tn.transfer.extract_features(network(), given, "head", batch_size=20)
    expected = tn.transfer.extract_features(network(), (x, y), "head", batch_size=20)
    assert all(torch.equal(a, b) for a, b in zip(cached.tensors, expected.tensors, strict=True))


def test_a_head_that_works_in_place_does_not_change_the_features():
    model = nn.Sequential(nn.Linear(6, 8), nn.Sequential(nn.ReLU(inplace=True), nn.Linear(8, 3)))
    features = tn.transfer.extract_features(model, data(), "1").tensors[0]
    assert torch.equal(features, torch.cat([model[0](x) for x in data()[0].split(64)])) and features.min() < 0


class GoesOn(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.backbone, self.head, self.unused = (
            how,
            nn.Linear(6, 6),
            nn.Linear(6, 6),
            nn.Linear(6, 3),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.backbone(x)
        if self.how == "after":
            return self.head(x) * 2
        if self.how == "in place":
            return self.head(x).relu_()
        if self.how == "twice":
            return self.head(self.head(x))
        if self.how == "keyword":
            return self.head(input=x)
        return x


@pytest.mark.parametrize(
    ("how", "head", "error", "message"),
    [
        ("after", "head", tn.errors.InputError, "goes on after 'head'"),
        ("in place", "head", tn.errors.InputError, "goes on after 'head'"),
        ("twice", "head", tn.errors.InputError, "calls 'head' 2 times"),
        ("keyword", "head", tn.errors.InputError, "more than one tensor"),
        ("never", "unused", tn.errors.ModuleNameError, "'unused' but does not call it"),
        ("after", "haed", tn.errors.ModuleNameError, r"'haed'.*did you mean.*'head'"),
        ("after", "", tn.errors.InputError, "nothing would be frozen"),
    ],
)
def test_a_head_that_cannot_be_trained_alone_is_explained_and_nothing_changes(how, head, error, message):
    model = GoesOn(how).train()
    tn.freeze(model, "backbone")
    before = state(model)
    with pytest.raises(error, match=message):
        tn.transfer.feature_extraction(model, data(), head=head, epochs=1, progress=False)
    assert tn.frozen(model) == ["backbone"] and model.head.weight.requires_grad and model.head.training
    assert equal(state(model), before) and not model.head._forward_hooks and not model.head._forward_pre_hooks


def test_a_quantized_model_whose_children_do_not_run_is_explained():
    model = network().eval()
    qat = tn.prepare_qat(model, data()[0], calibrate=data()[0])
    with pytest.raises(tn.errors.ModuleNameError, match="with the float model, before prepare_qat"):
        tn.transfer.feature_extraction(qat, data(), head="head", epochs=1, progress=False)


def test_a_head_that_shares_a_weight_with_the_frozen_part_is_explained():
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
    model[1].weight = model[0].weight
    with pytest.raises(tn.errors.FreezeError, match="one parameter cannot be both"):
        tn.transfer.feature_extraction(model, data(), head="1", epochs=1, progress=False)
    assert tn.frozen(model) == [] and model[0].weight.requires_grad


def test_what_fit_refuses_leaves_the_model_as_it_was():
    model = network()
    x, y = data()
    with pytest.raises(tn.errors.InputError, match="label 3"):
        tn.transfer.feature_extraction(model, (x, y + 1), head="head", epochs=1, progress=False)
    assert tn.frozen(model) == [] and all(p.requires_grad for p in model.parameters())
    with pytest.raises(tn.errors.InputError, match="no batches"):
        tn.transfer.extract_features(copy.deepcopy(model), [], "head")

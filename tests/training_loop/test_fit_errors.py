"""Errors of fit before the first epoch; everything is left unchanged."""

import random

import numpy as np
import pytest
import torch
import torch_nano as tn
from torch import nn
from torch.nn import functional
from torch.optim.lr_scheduler import ReduceLROnPlateau, StepLR
from torch.utils.data import DataLoader, Dataset, TensorDataset
from transfer.hooks import hooks_of
from transfer.task import data, equal, network, state

X, Y = data()


class Late(Dataset):
    """Whose last sample has a label that is no class; draws random numbers, as augmentations do."""

    def __len__(self):
        return 40

    def __getitem__(self, index):
        noise = torch.rand(1) + random.random() + np.random.rand()
        return X[index] + noise, 3 if index == 39 else int(Y[index])


class Backbone(nn.Module):
    def __init__(self, head):
        super().__init__()
        self.features = nn.Sequential(nn.Conv1d(2, 8, 3, padding=1), nn.BatchNorm1d(8), nn.ReLU())
        self.pool = nn.AdaptiveAvgPool1d(4)
        self.head = head

    def forward(self, x):
        return self.head(self.pool(self.features(x)).flatten(1))


def late_labels():
    labels = Y.clone()
    labels[90] = 3
    return X, labels


def negative_labels():
    return X, Y - 1


def series(samples=8):
    return torch.randn(samples, 2, 12, generator=torch.Generator().manual_seed(0)), torch.zeros(
        samples
    ).long()


DATA = {
    "empty tensors": (lambda: (X[:0], Y[:0]), "train has no batches"),
    "empty loader": (
        lambda: DataLoader(TensorDataset(X, Y), batch_size=200, drop_last=True),
        "drop_last=True",
    ),
    "empty list": (lambda: [], "train has no batches"),
    "empty dataset": (lambda: torch.utils.data.Subset(Late(), []), "a dataset without samples"),
    "empty batch": (lambda: [(X, Y), (X[:0], Y[:0])], "batch 1 of train has no samples"),
    "late label": (late_labels, "of train has the label 3; expected 0 to 2, since the model has 3 outputs"),
    "negative label": (negative_labels, "has the label -1; expected 0 to 2"),
    "late label in a loader": (lambda: DataLoader(Late(), batch_size=16), "batch 2 of train has the label 3"),
    "late label in a shuffled loader": (
        lambda: DataLoader(Late(), batch_size=16, shuffle=True, generator=torch.Generator()),
        "of train has the label 3",
    ),
    "generator": (lambda: (batch for batch in [(X, Y)]), "can be gone through only once"),
    "lengths": (lambda: (X, Y[1:]), r"tensors of \[96, 95\] samples"),
    "one tensor": (lambda: X, "train is a Tensor; expected a DataLoader"),
    "list": (lambda: (X, [{}] * len(X)), r"train is \(Tensor, list\); expected two tensors or arrays"),
    "no pair": (lambda: [X], "batch 0 of train is a Tensor; expected a pair"),
    "three": (lambda: [(X, Y, Y)], "batch 0 of train is a tuple of 3; expected a pair"),
    "float labels": (lambda: (X, Y.float()), r"shape \(64, 3\), the float targets \(64,\).*targets.long\(\)"),
    "column of labels": (lambda: (X, Y[:, None]), r"labels of shape \(64, 1\) and int64.*squeeze\(1\)"),
    "one-hot labels": (lambda: (X, functional.one_hot(Y)), r"of one-hot labels argmax\(1\)"),
    "width": (lambda: (X[:, :5], Y), r"'backbone.0' \(Linear\) gets \(64, 5\), but expects in_features=6"),
    "dtype": (
        lambda: (X.double(), Y),
        r"'backbone.0' \(Linear\) gets \(64, 6\) of float64, but its parameters are float32",
    ),
}


def refused(model, *arguments, error, match, **options):
    """Asserts that fit raises, and changes neither the model nor any random state."""
    before, random_before = state(model), torch.get_rng_state()
    python, numpy = random.getstate(), np.random.get_state()[1].copy()
    modes = [module.training for module in model.modules()]
    gradients = [parameter.requires_grad for parameter in model.parameters()]
    hooks = hooks_of(model)
    epochs = []
    options = {
        "epochs": 1,
        "progress": False,
        "callbacks": [lambda epoch, history: epochs.append(epoch)],
    } | options
    with pytest.raises(error, match=match) as raised:
        tn.fit(model, *arguments, **options)
    assert isinstance(raised.value, tn.TorchNanoError)
    assert epochs == [] and equal(before, state(model))
    assert torch.equal(random_before, torch.get_rng_state())
    assert python == random.getstate() and (numpy == np.random.get_state()[1]).all()
    assert modes == [module.training for module in model.modules()]
    assert gradients == [parameter.requires_grad for parameter in model.parameters()]
    assert hooks == hooks_of(model)


@pytest.mark.parametrize("kind", DATA)
def test_wrong_training_data_are_refused(kind):
    make, message = DATA[kind]
    refused(network(), make(), error=tn.errors.InputError, match=message)


@pytest.mark.parametrize("kind", [kind for kind in DATA if kind not in ("dtype", "float labels")])
def test_wrong_validation_data_are_refused(kind):
    make, message = DATA[kind]
    refused(network(), (X, Y), make(), error=tn.errors.InputError, match=message.replace("train", "val"))


def test_a_loaders_own_generator_stays():
    loader = DataLoader(Late(), batch_size=16, shuffle=True, generator=torch.Generator().manual_seed(3))
    before = loader.generator.get_state()
    refused(network(), loader, error=tn.errors.InputError, match="label 3")
    assert torch.equal(before, loader.generator.get_state())


def test_a_head_that_does_not_fit_its_backbone_is_explained():
    refused(
        Backbone(nn.Linear(16, 5)),
        series(),
        error=tn.errors.InputError,
        match=r"'head' \(Linear\) gets \(8, 32\) from 'pool' \(AdaptiveAvgPool1d\), but expects "
        "in_features=16; make it in_features=32",
    )


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (nn.Conv1d(3, 8, 3), r"\(Conv1d\) gets \(8, 2, 12\), but expects in_channels=3"),
        (nn.BatchNorm1d(5), r"\(BatchNorm1d\) gets \(8, 2, 12\), but expects num_features=5"),
        (
            nn.Conv2d(2, 8, 3),
            r"\(Conv2d\) gets \(8, 2, 12\), but expects in_channels=2|\(Conv2d\) gets .*fails",
        ),
    ],
)
def test_layers_that_do_not_fit_are_explained(layer, message):
    model = nn.Sequential(layer, nn.Flatten(), nn.Linear(80, 3))
    refused(model, series(), error=tn.errors.InputError, match=message)


def test_a_last_batch_of_one_sample_is_refused_for_a_batch_norm():
    message = r"batch 2 of train: .*'backbone.1' .*gets \(1, 16\).*: one value per channel.*drop_last"
    refused(network(), (X[:33], Y[:33]), batch_size=16, error=tn.errors.InputError, match=message)


def test_batches_of_one_sample_are_refused_for_a_batch_norm():
    refused(
        network(),
        [(X[:1], Y[:1])],
        error=tn.errors.InputError,
        match=r"'backbone.1' .*: one value per channel.*drop_last",
    )


@pytest.mark.parametrize(
    ("loss", "target", "message"),
    [
        (functional.cross_entropy, Y.float(), r"float targets of shape \(64,\) for cross entropy"),
        (nn.CrossEntropyLoss(), Y + 1, "has the label 3; expected 0 to 2"),
        (nn.CrossEntropyLoss(reduction="none"), Y, r"the loss has the shape \(64,\); expected one number"),
        (nn.BCEWithLogitsLoss(), Y.float(), "the loss BCEWithLogitsLoss fails: Target size"),
        (lambda output, target: 1.0, Y, "the loss has type float"),
    ],
)
def test_wrong_losses_are_refused(loss, target, message):
    refused(network(), (X, target), loss=loss, error=tn.errors.InputError, match=message)


def test_probabilities_are_targets_of_cross_entropy():
    history = tn.fit(
        network(), (X, X[:, :3].softmax(1)), epochs=1, loss=functional.cross_entropy, progress=False
    )
    assert history[0].accuracy is None


def test_lazy_modules_are_refused():
    model = nn.Sequential(nn.LazyLinear(3))
    with pytest.raises(
        tn.errors.InputError, match=r"'0.weight' \(and 1 more\) is not known yet.*with one batch first"
    ):
        tn.fit(model, (X, Y), epochs=1, progress=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs is 0; expected a whole number, 1 or more"),
        ({"epochs": 1.5}, "epochs is 1.5"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": "a"}, "seed is 'a'"),
        ({"learning_rate": 0.0}, "learning_rate=0.0; expected a positive number"),
        ({"learning_rate": float("nan")}, "learning_rate=nan"),
        ({"learning_rates": {"head": -1.0}}, r"learning_rates\['head'\]=-1.0"),
        ({"learning_rates": {"*": 0.1, "head": 0.2}}, "'head' comes after globs that match all it matches"),
        ({"optimizer": "adam"}, "optimizer is 'adam'; expected an instance"),
        ({"optimizer": torch.optim.Adam}, "expected an instance"),
        ({"scheduler": "step"}, "scheduler is a str"),
        ({"scheduler": lambda optimizer: None}, "scheduler made a NoneType"),
        (
            {"early_stopping": tn.EarlyStopping()},
            "monitors 'val_loss', but there are no validation data.*'loss'",
        ),
        ({"early_stopping": 3}, "early_stopping is 3; expected an EarlyStopping"),
        ({"loss": "mse"}, "loss is 'mse'; expected a callable"),
        ({"callbacks": [3]}, "callbacks has 3; expected callables"),
        ({"device": "nowhere"}, "device='nowhere'; the model cannot go there"),
        (
            {"scheduler": lambda optimizer: ReduceLROnPlateau(optimizer, mode="max")},
            "mode='max', but gets loss, which is better when lower; give it mode='min'",
        ),
    ],
)
def test_wrong_arguments_are_refused(options, message):
    refused(network(), (X, Y), error=tn.errors.FitError, match=message, **options)


def test_a_glob_that_matches_nothing_lists_near_names():
    refused(
        network(),
        (X, Y),
        learning_rates={"haed": 0.1},
        error=tn.errors.ModuleNameError,
        match="no parameter of Sequential matches 'haed'; did you mean 'head'",
    )


def test_a_learning_rate_for_a_frozen_part_is_refused():
    model = network()
    tn.freeze(model, "backbone")
    refused(
        model,
        (X, Y),
        learning_rates={"backbone.*": 0.1},
        error=tn.errors.FitError,
        match="all that 'backbone.*' matches",
    )


def test_a_learning_rate_beside_an_optimizer_is_refused():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for options in ({"learning_rate": 0.1}, {"learning_rates": {"head": 0.1}}):
        refused(
            model,
            (X, Y),
            optimizer=optimizer,
            error=tn.errors.FitError,
            match="but one was given too",
            **options,
        )


def test_a_scheduler_of_another_optimizer_is_refused():
    model = network()
    scheduler = StepLR(torch.optim.SGD(model.parameters(), lr=0.1), 1)
    refused(model, (X, Y), scheduler=scheduler, error=tn.errors.FitError, match="is another optimizer's")


def test_monitoring_an_accuracy_without_labels_is_refused():
    refused(
        nn.Linear(6, 1),
        (X, X[:, :1]),
        early_stopping=tn.EarlyStopping("accuracy"),
        error=tn.errors.FitError,
        match="accuracy is counted for integer class labels only; give monitor='loss'",
    )


@pytest.mark.parametrize(
    "options", [{"monitor": "val_acc"}, {"patience": 0}, {"min_delta": -1.0}, {"patience": 1.5}]
)
def test_wrong_early_stopping_is_refused(options):
    with pytest.raises(tn.errors.FitError, match=next(iter(options))):
        tn.EarlyStopping(**options)


def test_a_model_without_trainable_parameters_is_refused():
    model = network()
    tn.freeze(model)
    refused(model, (X, Y), error=tn.errors.FreezeError, match="nothing to train")


def test_a_trainable_parameter_in_a_frozen_module_is_refused():
    model = network()
    tn.freeze(model, "backbone")
    model.backbone[0].weight.requires_grad_(True)
    refused(
        model,
        (X, Y),
        error=tn.errors.FreezeError,
        match=r"'backbone.0.weight' requires gradients, but its module 'backbone.0' is frozen",
    )


def test_an_optimizer_of_frozen_parameters_only_is_refused():
    model = network()
    optimizer = torch.optim.SGD(model.backbone.parameters(), lr=0.1)
    tn.freeze(model, "backbone")
    refused(
        model, (X, Y), optimizer=optimizer, error=tn.errors.FreezeError, match="all parameters .* are frozen"
    )


def test_an_optimizer_of_another_model_is_refused():
    optimizer = torch.optim.SGD(network().parameters(), lr=0.1)
    refused(
        network(),
        (X, Y),
        optimizer=optimizer,
        error=tn.errors.FreezeError,
        match="no parameter of this Sequential",
    )


def test_an_optimizer_that_lacks_unfrozen_parameters_is_refused():
    model = network()
    optimizer = torch.optim.SGD(model.head.parameters(), lr=0.1)
    refused(
        model,
        (X, Y),
        optimizer=optimizer,
        error=tn.errors.FreezeError,
        match="'backbone.0.weight', .* require gradients, but the optimizer does not have them",
    )


def test_foreign_errors_get_a_note_with_their_position():
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 3)
            self.calls = 0

        def forward(self, x):
            self.calls += 1
            if self.calls == 3:
                raise KeyError("the model's own error")
            return self.layer(x)

    with pytest.raises(KeyError) as raised:
        tn.fit(Broken(), (X, Y), epochs=2, progress=False)
    assert raised.value.__notes__ == ["in fit: epoch 0, batch 1 of train"]


def test_labels_that_turn_wrong_later_are_refused():
    class Changing:
        passes = 0

        def __iter__(self):
            self.passes += 1
            return iter([(X, Y + (self.passes > 2))])

    with pytest.raises(tn.errors.InputError, match="batch 0 of train in epoch 1 has the label 3"):
        tn.fit(network(), Changing(), epochs=3, progress=False)

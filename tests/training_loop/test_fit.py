"""Training: results, history, and the state of the model afterwards."""

import random

import numpy as np
import pytest
import torch
import torch_nano as tn
from networks import ConvNet1d, inputs, make
from torch import nn
from torch.nn import functional
from torch.optim.lr_scheduler import ExponentialLR, ReduceLROnPlateau, StepLR
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset
from transfer.task import data, equal, network, state


class Points(Dataset):
    """A dataset of samples that is not made of tensors."""

    def __init__(self, samples: int = 96) -> None:
        self.x, self.y = data(samples)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.x[index], int(self.y[index])


class Stream(IterableDataset):
    def __iter__(self):
        return iter(zip(*data(), strict=True))


def global_random_state() -> tuple[object, ...]:
    return torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()


def test_fit_learns_and_returns_its_history():
    model = network()
    train, val = data(400), data(200, seed=21)
    history = tn.fit(model, train, val, epochs=12, learning_rate=0.02, seed=0, progress=False)
    assert len(history) == 12 and history["epoch"] == list(range(12)) and history.stopped == ""
    assert history[-1].loss < 0.5 * history[0].loss
    assert history[-1].val_accuracy > 0.9
    assert all(record.seconds > 0 and record.learning_rates == {"all": 0.02} for record in history)
    # Recorded is what the model gives: the last validation can be repeated.
    x, y = val
    output = model.eval()(x)
    assert history[-1].val_accuracy == int((output.argmax(1) == y).sum()) / len(y)
    # A mean of means over batches, in double: float32 rounding of about 1e-7 per batch.
    assert history[-1].val_loss == pytest.approx(functional.cross_entropy(output, y).item(), rel=1e-5)


def test_a_step_is_that_of_plain_pytorch():
    x, y = data(40)
    batches = [(x[:16], y[:16]), (x[16:], y[16:])]
    ours, plain = network(), network()
    tn.freeze(ours, "backbone.3")
    tn.freeze(plain, "backbone.3")
    tn.fit(ours, batches, epochs=3, optimizer=torch.optim.SGD(ours.parameters(), 0.1, 0.9), progress=False)
    optimizer = torch.optim.SGD(plain.parameters(), 0.1, 0.9)
    plain.train()
    for _ in range(3):
        for x, y in batches:
            optimizer.zero_grad()
            functional.cross_entropy(plain(x), y).backward()
            optimizer.step()
    assert equal(state(ours), state(plain))


@pytest.mark.parametrize(
    "train",
    [
        data(),
        TensorDataset(*data()),
        Points(),
        Stream(),
        DataLoader(Points(), batch_size=32, shuffle=True),
        [(data()[0][:48], data()[1][:48]), (data()[0][48:], data()[1][48:])],
        [[data()[0], data()[1].int()]],
    ],
    ids=["tensors", "tensor dataset", "dataset", "stream", "loader", "batches", "int32 labels"],
)
def test_fit_takes_all_kinds_of_data(train):
    model = network()
    history = tn.fit(model, train, train, epochs=8, learning_rate=0.03, seed=1, progress=False)
    assert history[-1].val_accuracy > 0.8


class Augmented(Points):
    """Draws from every random state there is."""

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        x, y = super().__getitem__(index)
        return x + torch.rand(1) + random.random() + np.random.rand(), y


@pytest.mark.parametrize("train", [data(), Augmented()], ids=["tensors", "augmented"])
def test_seeds_repeat_everything_and_leave_the_callers_random_state(train):
    runs = []
    for seed in (3, 3, 4):
        # Whatever was drawn before.
        random.random(), np.random.rand(), torch.rand(1)
        before = global_random_state()
        model = network()
        tn.fit(model, train, data(), epochs=2, seed=seed, progress=False)
        runs.append(state(model))
        assert global_random_state() == before
    assert equal(runs[0], runs[1]) and not equal(runs[0], runs[2])


def test_without_a_seed_the_global_random_state_decides():
    runs = []
    with torch.random.fork_rng(devices=[]):
        for seed in (3, 3, 4):
            torch.manual_seed(seed)
            model = network()
            tn.fit(model, data(), epochs=2, progress=False)
            runs.append(state(model))
    assert equal(runs[0], runs[1]) and not equal(runs[0], runs[2])


def test_frozen_parts_stay_and_modes_come_back():
    model = network()
    tn.freeze(model, "backbone")
    model.eval()
    model.head.train()
    modes = {name: module.training for name, module in model.named_modules()}
    before = state(model)
    tn.fit(model, data(), data(), epochs=2, learning_rate=0.1, seed=0, progress=False)
    after = state(model)
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert changed == ["head.weight", "head.bias"]
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert not any(module._forward_hooks for module in model.modules())


def test_a_head_learns_on_cached_features():
    x, y = data()
    head = nn.Linear(6, 3)
    history = tn.fit(head, (x, y), epochs=20, learning_rate=0.1, seed=0, progress=False)
    assert history[-1].accuracy > 0.9


def test_a_qat_module_learns():
    x, y = data(200)
    qat = tn.prepare_qat(network(), x[:8], calibrate=x)
    names = dict(qat.named_parameters()).keys()
    assert {"backbone.0.weight", "head.bias"} <= names
    history = tn.fit(qat, (x, y), (x, y), epochs=8, learning_rates={"head": 0.03}, learning_rate=0.02, seed=0,
                     early_stopping=tn.EarlyStopping(patience=8), progress=False)  # fmt: skip
    assert history[-1].val_accuracy > 0.85
    nano = qat.to_nano()
    right = int((nano(x).argmax(1) == y).sum())
    assert history[history.best_epoch].val_accuracy == right / len(y)


def test_a_qat_module_takes_its_ranges_from_the_first_batch():
    x, y = data()
    qat = tn.prepare_qat(network(), x[:8])
    history = tn.fit(qat, (x, y), (x, y), epochs=2, seed=0, progress=False)
    assert len(history) == 2 and qat.to_nano()(x).shape == (96, 3)


def test_a_convolutional_network_learns():
    x = inputs((3, 40), 60)
    y = (x.mean((1, 2)) > 0).long()
    model = make(ConvNet1d)
    history = tn.fit(model, (x, y), epochs=6, learning_rate=0.01, seed=0, progress=False)
    assert history[-1].accuracy > 0.8


def test_float_targets_default_to_regression():
    x, _ = data()
    y = x @ torch.arange(6.0).unsqueeze(1)
    model = nn.Linear(6, 1)
    history = tn.fit(model, (x, y), (x, y), epochs=60, learning_rate=0.5, seed=0, progress=False)
    assert history[-1].val_loss < 0.01
    assert history[-1].accuracy is None and history[-1].val_accuracy is None
    assert history[-1].val_loss == pytest.approx(functional.mse_loss(model(x), y).item(), rel=1e-5)


def test_a_custom_loss_may_have_several_targets():
    x, y = data()
    soft = torch.softmax(x[:, :3], 1)
    loader = DataLoader(
        [(x[i], (y[i], soft[i])) for i in range(len(x))],
        batch_size=32,
        shuffle=True,
    )

    def loss(output, target):
        labels, probabilities = target
        return functional.cross_entropy(output, labels) + functional.cross_entropy(output, probabilities)

    history = tn.fit(network(), loader, epochs=8, loss=loss, learning_rate=0.03, seed=0, progress=False)
    assert history[-1].accuracy > 0.6


def test_labels_that_the_loss_ignores_do_not_count():
    x, y = data()
    y = y.clone()
    y[::2] = 255
    loss = nn.CrossEntropyLoss(ignore_index=255)
    model = network()
    history = tn.fit(model, (x, y), (x, y), epochs=1, loss=loss, seed=0, progress=False)
    output = model.eval()(x)
    right = (output.argmax(1) == y)[1::2]
    assert history[0].val_accuracy == int(right.sum()) / len(right)


def test_globs_set_learning_rates_of_parts():
    model = network()
    before = state(model)
    history = tn.fit(
        model,
        data(),
        epochs=1,
        learning_rates={"*.bias": 1e-5, "backbone": 1e-4, "head": 1e-1},
        learning_rate=1e-2,
        seed=0,
        progress=False,
    )
    assert history[0].learning_rates == {"*.bias": 1e-5, "backbone": 1e-4, "head": 1e-1}
    after = state(model)
    moved = {name: (after[name] - before[name]).abs().mean().item() for name, _ in model.named_parameters()}
    # AdamW moves each number by about its learning rate in every step; there are two.
    assert 1e-6 < moved["head.bias"] < 3e-5
    assert 1e-5 < moved["backbone.0.weight"] < 3e-4
    assert 1e-2 < moved["head.weight"] < 3e-1


@pytest.mark.parametrize(
    ("make_scheduler", "rates"),
    [
        (lambda optimizer: StepLR(optimizer, 2, gamma=0.1), [1.0, 1.0, 0.1, 0.1]),
        (lambda optimizer: ExponentialLR(optimizer, 0.5), [1.0, 0.5, 0.25, 0.125]),
    ],
)
def test_schedulers_step_after_every_epoch(make_scheduler, rates):
    model = nn.Linear(6, 3)
    history = tn.fit(
        model, data(), epochs=4, learning_rate=0.01, scheduler=make_scheduler, progress=False, seed=0
    )
    expected = [pytest.approx(0.01 * rate) for rate in rates]
    assert [record.learning_rates["all"] for record in history] == expected


def test_a_plateau_scheduler_gets_the_monitored_value():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
    scheduler = ReduceLROnPlateau(optimizer, mode="max", patience=0, threshold=10, factor=0.5)
    stopping = tn.EarlyStopping("val_accuracy", patience=9)
    history = tn.fit(
        model,
        data(),
        data(),
        epochs=4,
        optimizer=optimizer,
        scheduler=scheduler,
        early_stopping=stopping,
        progress=False,
    )
    assert scheduler.best == history[0].val_accuracy
    assert [record.learning_rates["all"] for record in history] == [1e-6, 1e-6, 5e-7, 2.5e-7]


def test_an_optimizer_may_evaluate_a_batch_several_times():
    model = nn.Linear(6, 3)
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=10)
    history = tn.fit(model, [data()], epochs=3, optimizer=optimizer, progress=False)
    assert history[-1].loss < 0.2 < history[0].loss


def test_hooks_before_a_step_see_the_gradients():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    norms = []
    optimizer.register_step_pre_hook(
        lambda *_: norms.append(float(nn.utils.clip_grad_norm_(model.parameters(), 1e-12)))
    )
    before = state(model)
    tn.fit(model, data(), epochs=1, optimizer=optimizer, progress=False, seed=0)
    assert len(norms) == 2 and min(norms) > 1e-3
    # Steps of 0.1 * 1e-12 are below the rounding of the weights.
    assert torch.equal(before["head.weight"], model.head.weight)


def test_early_stopping_restores_the_best_and_callbacks_see_every_epoch():
    model = network()
    seen, states = [], []

    def callback(epoch, history):
        seen.append((epoch, len(history), history.stopped))
        states.append(state(model))

    # Learns the labels of the training data by heart: the validation data have others.
    x, y = data()
    stopping = tn.EarlyStopping("val_loss", patience=2)
    history = tn.fit(
        model,
        (x, y),
        (x, (y + 1) % 3),
        epochs=50,
        learning_rate=0.01,
        early_stopping=stopping,
        callbacks=[callback],
        seed=0,
        progress=False,
    )
    last = len(history) - 1
    assert last == history.best_epoch + 2 < 49
    assert history.stopped == "val_loss has not become better for 2 epochs"
    assert [epoch for epoch, *_ in seen] == list(range(last + 1))
    assert seen[-1] == (last, last + 1, history.stopped)
    assert equal(state(model), states[history.best_epoch])
    assert not equal(state(model), states[last])


def test_the_best_epoch_is_restored_when_all_epochs_were_run_and_not_unless_asked():
    x, y = data()
    for restore in (True, False):
        model = network()
        states = []
        history = tn.fit(
            model,
            (x, y),
            (x, (y + 1) % 3),
            epochs=4,
            learning_rate=0.01,
            early_stopping=tn.EarlyStopping(patience=10, restore_best=restore),
            callbacks=[lambda epoch, history, model=model, states=states: states.append(state(model))],
            seed=0,
            progress=False,
        )
        assert history.best_epoch < 3
        assert equal(state(model), states[history.best_epoch if restore else 3])


def test_early_stopping_by_accuracy_goes_up():
    history = tn.fit(
        network(),
        data(),
        data(),
        epochs=30,
        learning_rate=0.02,
        early_stopping=tn.EarlyStopping("val_accuracy", patience=3),
        seed=0,
        progress=False,
    )
    accuracies = history["val_accuracy"]
    assert accuracies[history.best_epoch] == max(accuracies) > 0.9


def test_min_delta_ignores_small_gains():
    stopping = tn.EarlyStopping("loss", patience=2, min_delta=100.0)
    history = tn.fit(network(), data(), epochs=9, early_stopping=stopping, seed=0, progress=False)
    assert len(history) == 3 and history.best_epoch == 0


def test_a_callback_stops_and_the_others_are_still_called():
    called = []

    def stop(epoch, history):
        if epoch == 1:
            raise tn.training.StopTraining("time is up")

    history = tn.fit(
        network(),
        data(),
        epochs=9,
        callbacks=[stop, lambda epoch, history: called.append((epoch, history.stopped))],
        progress=False,
    )
    assert len(history) == 2 and history.stopped == "time is up"
    assert called == [(0, ""), (1, "time is up")]


def test_a_callback_unfreezes_what_the_next_epoch_then_trains():
    model = network()
    tn.freeze(model, "backbone")
    optimizer = tn.training.make_optimizer(model, learning_rates={"head": 1e-2, "backbone": 1e-3})
    states = [state(model)]

    def unfreeze(epoch, history):
        states.append(state(model))
        if epoch == 1:
            tn.unfreeze(model, "backbone")

    history = tn.fit(
        model, data(), epochs=3, optimizer=optimizer, callbacks=[unfreeze], seed=0, progress=False
    )
    weights = [[epoch[name] for epoch in states] for name in ("backbone.0.weight", "backbone.1.running_mean")]
    for first, second, third, fourth in weights:
        assert torch.equal(first, second) and torch.equal(second, third)
        assert not torch.equal(third, fourth)
    assert [list(record.learning_rates) for record in history] == [["head"], ["head"], ["head", "backbone"]]
    steps = {name: optimizer.state[p]["step"].item() for name, p in model.named_parameters()}
    assert steps["head.weight"] == 6 and steps["backbone.0.weight"] == 2
    assert model.backbone.training


def test_a_callback_may_add_a_parameter_group():
    model = network()
    tn.freeze(model, "backbone")
    optimizer = torch.optim.SGD(model.head.parameters(), lr=0.1)

    def grow(epoch, history):
        if epoch == 0:
            tn.unfreeze(model, "backbone")
            optimizer.add_param_group({"params": list(model.backbone.parameters()), "lr": 0.01})

    history = tn.fit(model, data(), epochs=2, optimizer=optimizer, callbacks=[grow], progress=False)
    assert history["learning_rates"] == [{"all": 0.1}, {"group 0": 0.1, "group 1": 0.01}]

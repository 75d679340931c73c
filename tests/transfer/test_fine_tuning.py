import inspect

import pytest
import torch
import torch_nano as tn
from torch import nn

from .hooks import hooks_of
from .task import SEED, data, equal, network, state


def changed(model: nn.Module, before: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, tensor in state(model).items() if not torch.equal(tensor, before[name])}


def test_the_named_parts_learn_at_their_rates_and_all_else_is_frozen():
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    before = state(model)
    history = tn.transfer.fine_tuning(
        model,
        data(),
        learning_rates={"2": 1e-4, "4": 1e-2},
        epochs=1,
        batch_size=96,
        seed=SEED,
        progress=False,
    )
    assert history[0].learning_rates == {"2": 1e-4, "4": 1e-2}
    assert changed(model, before) == {"2.weight", "2.bias", "4.weight", "4.bias"}
    assert tn.frozen(model) == ["0", "1", "3"]
    for name, rate in (("2", 1e-4), ("4", 1e-2)):
        # The first step of Adam is the learning rate for every weight, but for weight decay of 0.01 * rate.
        step = (state(model)[f"{name}.weight"] - before[f"{name}.weight"]).abs().max()
        assert step == pytest.approx(rate, rel=0.05)


def test_a_glob_includes_what_is_inside_and_the_first_match_wins():
    model = network()
    rates = {"backbone.0": 1e-5, "backbone.*": 1e-4, "head": 1e-3}
    history = tn.transfer.fine_tuning(model, data(), learning_rates=rates, epochs=1, progress=False)
    assert history[0].learning_rates == rates and tn.frozen(model) == []


def test_small_rates_keep_what_was_learnt_before():
    """On a task with other labels, the backbone moves less at a smaller rate."""
    distances = []
    for rate in (1e-4, 1e-2):
        model = network()
        tn.fit(model, data(), epochs=5, learning_rate=0.01, seed=SEED, progress=False)
        before = state(model)["backbone.0.weight"]
        x, y = data()
        rates = {"backbone.*": rate, "head": 1e-2}
        history = tn.transfer.fine_tuning(
            model, (x, (y + 1) % 3), learning_rates=rates, epochs=8, seed=SEED, progress=False
        )
        assert history[-1].loss < history[0].loss
        distances.append(float((state(model)["backbone.0.weight"] - before).norm()))
    assert distances[0] < distances[1] / 10, f"seed {SEED}"


@pytest.mark.parametrize("gradual", [False, True])
def test_a_quantized_model_is_tuned_by_the_same_names(gradual):
    x, y = data()
    qat = tn.prepare_qat(network().eval(), x, calibrate=x)
    before = state(qat)
    rates = {"head": 1e-2, "backbone.0": 1e-3}
    if gradual:
        schedule = {0: ["head"], 3: ["backbone.0"]}
        history = tn.transfer.gradual_unfreezing(
            qat, (x, y), schedule=schedule, epochs=6, learning_rates=rates, seed=SEED, progress=False
        )
        assert history[0].learning_rates == {"head": 1e-2}
    else:
        history = tn.transfer.fine_tuning(
            qat, (x, y), learning_rates=rates, epochs=6, seed=SEED, progress=False
        )
    assert history[-1].learning_rates == rates and history[-1].loss < history[0].loss
    assert {"head.weight", "backbone.0.weight"} <= changed(qat, before)
    assert torch.equal(qat.eval()(x), qat.to_nano()(x))


def test_wrong_rates_are_explained_and_nothing_is_frozen():
    model = network()
    for rates, error, message in (
        ({}, tn.errors.FitError, "learning_rates is empty"),
        ({"haed": 1e-3}, tn.errors.ModuleNameError, "did you mean 'head'"),
        ({"*": 1e-3, "head": 1e-2}, tn.errors.FitError, "give the narrower glob first"),
        ({"head": -1.0}, tn.errors.FitError, "expected a positive number"),
    ):
        with pytest.raises(error, match=message):
            tn.transfer.fine_tuning(model, data(), learning_rates=rates, epochs=1, progress=False)
        assert tn.frozen(model) == [] and all(p.requires_grad for p in model.parameters())


def as_lists(x: torch.Tensor, y: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    return list(x), list(y.unsqueeze(1))


def adam(model: nn.Module) -> torch.optim.Adam:
    return torch.optim.Adam(model.parameters(), lr=0.01)


def test_fine_tune_has_the_promised_signature():
    parameters = inspect.signature(tn.transfer.fine_tune).parameters
    assert [(name, parameter.default) for name, parameter in parameters.items()] == [
        ("model", inspect.Parameter.empty),
        ("optimizer", inspect.Parameter.empty),
        ("train_data", inspect.Parameter.empty),
        ("train_labels", inspect.Parameter.empty),
        ("val_data", None),
        ("val_labels", None),
        ("epochs", 10),
        ("batch_size", 32),
        ("loss_fn", None),
        ("callbacks", None),
        ("early_stopping", False),
        ("patience", 3),
    ]


def test_fine_tune_is_fit_for_lists_and_tensors():
    states, histories = [], []
    for samples, labels in (as_lists(*data()), data()):
        model = network()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            histories.append(
                tn.transfer.fine_tune(model, adam(model), samples, labels, samples, labels, epochs=4)
            )
        states.append(state(model))
    assert equal(*states) and histories[0] == histories[1]
    fitted = network()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        history = tn.fit(
            fitted, data(), data(), epochs=4, optimizer=adam(fitted), batch_size=32, progress=False
        )
    assert equal(states[0], state(fitted)) and not equal(states[0], state(network()))
    assert histories[0] == {
        "train_loss": history["loss"],
        "val_loss": history["val_loss"],
        "train_accuracy": history["accuracy"],
        "val_accuracy": history["val_accuracy"],
    }
    assert histories[0]["train_loss"][-1] < histories[0]["train_loss"][0]


def test_fine_tune_trains_what_a_transfer_model_leaves_trainable():
    base = network().backbone
    model = tn.transfer.TransferModel(base, nn.Linear(16, 3), fine_tune_layers=["1"])
    before = state(model)
    tn.transfer.fine_tune(model, adam(model), *as_lists(*data()), epochs=1)
    names = {name.rpartition(".")[0] for name in changed(model, before)}
    assert names == {"base_model.1", "new_layers"}


def test_without_validation_data_and_without_classes_columns_are_empty():
    model = nn.Linear(6, 1)
    x = data()[0]
    history = tn.transfer.fine_tune(model, adam(model), list(x), list(x[:, :1]), epochs=5)
    assert [len(history[name]) for name in ("val_loss", "train_accuracy", "val_accuracy")] == [0, 0, 0]
    assert history["train_loss"][-1] < history["train_loss"][0]


def test_early_stopping_restores_the_best_weights_and_calls_every_callback_of_every_epoch():
    x, y = data(64)
    x_val, y_val = data(64, SEED + 1)
    model = network()
    calls, best = [], []

    def callback(epoch: int, history: dict[str, list[float]]) -> None:
        calls.append((epoch, len(history["val_loss"])))
        if history["val_loss"][-1] == min(history["val_loss"]):
            best[:] = [state(model)]

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        history = tn.transfer.fine_tune(
            model,
            optimizer,
            x,
            y,
            x_val,
            y_val,
            epochs=80,
            callbacks=[callback],
            early_stopping=True,
            patience=2,
        )
    losses = history["val_loss"]
    assert len(losses) < 80, "it never stopped early"
    assert losses.index(min(losses)) == len(losses) - 3
    assert calls == [(epoch, epoch + 1) for epoch in range(len(losses))]
    assert equal(state(model), best[0])
    assert hooks_of(model) == []


def test_early_stopping_without_validation_data_watches_the_training_loss():
    model = nn.Linear(6, 3)
    # One sample many times: whatever its order, the loss is the same.
    x, y = (part[:1].repeat_interleave(32, 0) for part in data())
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-30)
    history = tn.transfer.fine_tune(model, optimizer, x, y, epochs=9, early_stopping=True, patience=2)
    assert len(history["train_loss"]) == 3


def test_a_callback_can_stop_the_training():
    def enough(epoch: int, history: dict[str, list[float]]) -> None:
        if epoch == 1:
            raise tn.training.StopTraining("enough")

    model = network()
    history = tn.transfer.fine_tune(model, adam(model), *data(), epochs=9, callbacks=[enough])
    assert len(history["train_loss"]) == 2


def test_a_custom_loss_is_used():
    model = network()
    history = tn.transfer.fine_tune(
        model, adam(model), *data(), epochs=1, loss_fn=lambda output, target: output.square().mean() + 100
    )
    assert history["train_loss"][0] > 100


def test_wrong_data_is_explained():
    model = network()
    x, y = data()
    for arguments, message in (
        (([x[0], x[1, :5]], [y[0], y[1]]), r"train_data\[1\] has the shape \[5\].*\[6\]"),
        (([], []), "train_data is empty"),
        ((x, y, x), "val_labels is missing"),
        ((x, y, None, y), "val_data is missing"),
        ((x, y[:-1]), "as many targets as inputs"),
        ((x, y + 1), "label 3"),
    ):
        with pytest.raises(tn.errors.InputError, match=message):
            tn.transfer.fine_tune(model, adam(model), *arguments, epochs=1)

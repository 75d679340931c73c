import pytest
import torch
import torch_nano as tn
from torch import nn
from torch.nn import functional

from .hooks import hooks_of
from .task import SEED, data, equal, state

RATES = {"4": 1e-2, "2": 1e-3, "0": 1e-4}
SCHEDULE = {0: ["4"], 2: ["2"], 4: ["0"]}


def three_layers() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))


def unfreeze_gradually(model: nn.Module, **options) -> tn.training.History:
    given = {"schedule": SCHEDULE, "epochs": 6, "learning_rates": RATES, "seed": SEED, "progress": False}
    return tn.transfer.gradual_unfreezing(model, data(), **(given | options))


def test_every_layer_begins_to_change_in_its_epoch():
    model = three_layers()
    states = [state(model)]
    history = unfreeze_gradually(model, callbacks=[lambda epoch, history: states.append(state(model))])
    for epoch in range(6):
        changed = {
            name[0]
            for name, tensor in states[epoch + 1].items()
            if not torch.equal(tensor, states[epoch][name])
        }
        assert changed == {"4"} | ({"2"} if epoch >= 2 else set()) | ({"0"} if epoch >= 4 else set()), epoch
    assert [list(record.learning_rates) for record in history] == [["4"]] * 2 + [["4", "2"]] * 2 + [
        ["4", "2", "0"]
    ] * 2
    assert tn.frozen(model) == ["1", "3"]


def test_it_is_an_optimizer_whose_groups_grow():
    """By hand: a group is added in its epoch, and the state of the others stays."""
    x, y = data()
    model, by_hand = three_layers(), three_layers()
    batch = [(x, y)]
    tn.transfer.gradual_unfreezing(
        model, batch, schedule=SCHEDULE, epochs=6, learning_rates=RATES, seed=SEED, progress=False
    )
    by_hand.requires_grad_(False)
    optimizer = None
    for epoch in range(6):
        for name in SCHEDULE.get(epoch, []):
            layer = by_hand[int(name)].requires_grad_(True)
            group = {"params": list(layer.parameters()), "lr": RATES[name]}
            if optimizer is None:
                optimizer = torch.optim.AdamW([group])
            else:
                optimizer.add_param_group(group)
        optimizer.zero_grad()
        functional.cross_entropy(by_hand(x), y).backward()
        optimizer.step()
    assert equal(state(model), state(by_hand))


def test_the_optimizer_counts_each_layer_from_its_epoch():
    model = three_layers()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    unfreeze_gradually(model, optimizer=optimizer, learning_rates=None, batch_size=32)
    # 96 samples: 3 steps an epoch.
    steps = {
        name: int(optimizer.state[p]["step"]) for name, p in model.named_parameters() if "weight" in name
    }
    assert steps == {"4.weight": 18, "2.weight": 12, "0.weight": 6}


def test_it_goes_through_schedulers_early_stopping_and_modules_as_patterns():
    model = three_layers()
    history = unfreeze_gradually(
        model,
        schedule={0: [model[4]], 1: [model[2], "0"]},
        scheduler=lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 3),
        val=data(),
        early_stopping=tn.EarlyStopping(patience=5),
    )
    rates = [record.learning_rates for record in history]
    assert list(rates[0]) == ["4"] and list(rates[1]) == ["4", "2", "0"]
    assert rates[5] == pytest.approx({name: rate / 10 for name, rate in RATES.items()})
    assert history["val_loss"][-1] < history["val_loss"][0]


@pytest.mark.parametrize("interrupted", [1, 2, 4])
def test_an_interrupted_training_resumes_exactly(tmp_path, interrupted):
    expected = three_layers()
    unfreeze_gradually(expected)

    def interrupt(epoch: int, history: tn.training.History) -> None:
        if epoch == interrupted:
            raise RuntimeError("power failure")

    model = three_layers()
    with pytest.raises(RuntimeError, match="power failure"):
        unfreeze_gradually(model, callbacks=[interrupt], checkpoint=tmp_path / "phases.pt")
    assert tn.frozen(model) == []
    resumed = three_layers()
    history = unfreeze_gradually(resumed, checkpoint=tmp_path / "phases.pt")
    assert equal(state(resumed), state(expected)) and len(history) == 6
    assert not equal(state(model), state(expected))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"schedule": {1: ["4"]}}, tn.errors.FitError, "has no epoch 0"),
        ({"schedule": {}}, tn.errors.FitError, "has no epoch 0"),
        (
            {"schedule": {0: ["4"], 6: ["2"]}},
            tn.errors.FitError,
            "the epoch 6; expected whole numbers from 0 to 5",
        ),
        ({"schedule": {0: "4"}}, tn.errors.FitError, "expected a list of names"),
        ({"schedule": {0: []}}, tn.errors.FitError, "expected a list of names"),
        ({"schedule": {0: ["4"], 2: ["7"]}}, tn.errors.ModuleNameError, "matches '7'"),
        ({"schedule": {0: ["4"], 2: ["2"]}}, tn.errors.FitError, "unfreezes nothing that '0' matches"),
        ({"learning_rate": 0.0}, tn.errors.FitError, "expected a positive number"),
    ],
)
def test_wrong_schedules_are_explained_before_anything_changes(options, error, message):
    model = three_layers()
    before = state(model)
    with pytest.raises(error, match=message):
        unfreeze_gradually(model, **options)
    assert equal(state(model), before) and tn.frozen(model) == [] and hooks_of(model) == []
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_an_optimizer_without_what_is_unfrozen_later_is_refused_at_the_start():
    model = three_layers()
    optimizer = torch.optim.SGD(model[4].parameters(), lr=0.1)
    with pytest.raises(tn.errors.FitError, match=r"has not got '0.weight' and 3 more.*model.parameters\(\)"):
        unfreeze_gradually(model, optimizer=optimizer, learning_rates=None)
    with pytest.raises(tn.errors.FitError, match="for the optimizer that fit makes"):
        unfreeze_gradually(model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
    assert tn.frozen(model) == []

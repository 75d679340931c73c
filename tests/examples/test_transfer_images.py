"""The images example, with narrow networks: what each way of transfer keeps, and that the board is exact."""

import doctest
import io
import sys
from dataclasses import replace

import image_models
import image_tasks
import image_ways
import pytest
import torch
import transfer_images as example
from rich.console import Console

from .terminal import printed


@pytest.fixture(scope="module")
def result() -> example.Result:
    return example.run(example.QUICK, Console(file=io.StringIO()))


@pytest.mark.parametrize("module", [image_models, image_tasks])
def test_the_docstrings_hold(module: object) -> None:
    tried = doctest.testmod(module)
    assert tried.attempted and not tried.failed


def test_scored_images_are_not_trained_on() -> None:
    settings = example.Settings()
    sizes = settings.old_images, settings.new_images, settings.test_images
    for task in image_tasks.load_tasks(*sizes, seed=settings.seed):
        trained = {image.numpy().tobytes() for image in task.x[:, 0]}
        scored = {image.numpy().tobytes() for image in task.x_test[:, 0]}
        assert len(scored) == settings.test_images and not trained & scored


def test_every_way_learns_the_new_digits(result: example.Result) -> None:
    assert result.pre_trained >= 0.85
    bars = {
        "feature extraction": 0.65,
        "gradual unfreezing": 0.7,
        "fine-tuning, a rate per layer": 0.7,
        "fine-tuning with rehearsal": 0.72,
    }
    for name, bar in bars.items():
        assert result.outcomes[name].new >= bar, (name, result.outcomes)
    start, trained = result.five_channels
    assert start >= 0.6 and trained >= 0.68


def test_only_careful_ways_keep_the_old_digits(result: example.Result) -> None:
    old = {name: own.old for name, own in result.outcomes.items() if own.old is not None}
    assert old["feature extraction"] == result.pre_trained  # frozen with its batch norms
    assert old["head alone, by requires_grad"] <= result.pre_trained - 0.02
    assert old["fine-tuning, one rate"] <= result.pre_trained - 0.08
    assert old["fine-tuning with rehearsal"] >= result.pre_trained - 0.03


def test_cached_features_save_the_frozen_part(result: example.Result) -> None:
    assert result.cached_epoch_seconds < result.epoch_seconds / 3


def test_phases_show_their_learning_rates(result: example.Result) -> None:
    assert [list(record.learning_rates) for record in result.gradual] == (
        [["fc"]] * 6 + [["fc", "layer4"]] * 4 + [["fc", "layer4", "*"]] * 5
    )
    rates = [record.learning_rates["fc"] for record in result.stepped]
    assert rates == pytest.approx([1e-3] * 4 + [3e-4] * 2)
    assert list(result.stepped[0].learning_rates) == ["fc", "layer[34]", "*"]


def test_five_channels_start_from_three() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = image_models.resnet18(10, width=8).eval()
        x = torch.rand(4, 3, 28, 28)
        wide = image_models.with_five_channels(model).eval()
    with torch.no_grad():
        # Sums over more terms, some of them zero, may be rounded otherwise.
        torch.testing.assert_close(wide(torch.cat([x, torch.zeros(4, 2, 28, 28)], 1)), model(x))
        torch.testing.assert_close(wide.conv1.weight[:, 3], model.conv1.weight.mean(1))
        torch.testing.assert_close(wide.conv1.weight[:, 4], model.conv1.weight.mean(1))


def test_own_digits_ignores_the_other_task() -> None:
    output, target = torch.zeros(2, 20), torch.tensor([3, 13])
    expected = torch.log(torch.tensor(10.0))
    torch.testing.assert_close(image_ways.own_digits(output, target), expected)
    output[0, 13] = output[1, 3] = 50.0  # each at a digit of the other task
    torch.testing.assert_close(image_ways.own_digits(output, target), expected)


def test_the_board_gives_the_same_bytes(result: example.Result) -> None:
    assert result.differing_predictions == 0
    for name, board in result.on_board.items():
        assert board.verified.target == "rv32imc" and board.verified.differing_bytes == 0, name
        assert board.verified.compared_bytes == board.verified.inputs * 20 > 0, name
        for real, integer in zip(board.float_accuracy, board.accuracy, strict=True):
            assert integer >= real - 0.04, (name, board)
    small = result.on_board["small"]
    assert min(small.accuracy) >= 0.7 and small.nano.flash_bytes < 200_000


def test_costs_say_what_fits() -> None:
    made, x = image_models.candidates(10), torch.rand(2, 3, 28, 28)
    full = image_models.cost("resnet18", made["resnet18"](), x)
    # A byte per parameter, and biases and multipliers, without the taps that see the padding only: in the
    # last stage 5 of 9 of the filters that make one pixel of four, 8 of 9 of those that make one of one.
    assert full.parameters == 11_181_642
    seen = full.parameters - 5 * 256 * 512 - 8 * 3 * 512 * 512
    assert seen < full.flash_bytes < 1.02 * seen and not full.fits and not full.refused
    narrow = image_models.cost("narrow", made["resnet18, 1/4 wide"](), x)
    assert narrow.fits and narrow.macs < full.macs / 10

    class Sums(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cumsum(x, dim=1)

    refused = image_models.cost("sums", Sums(), x)
    assert refused.refused == "1 call, such as aten.cumsum.default" and not refused.fits


def test_tables_fit_a_terminal(result: example.Result) -> None:
    text = printed(example.print_result, result)
    for name in result.outcomes:
        assert f" {name} " in text


def test_training_starts_from_the_given_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    downloaded = image_models.models.resnet18().state_dict()
    monkeypatch.setattr(image_models.models.ResNet18_Weights, "get_state_dict", lambda *_, **__: downloaded)
    model = image_models.resnet18(10, weights="DEFAULT")
    assert torch.equal(model.conv1.weight, downloaded["conv1.weight"]) and model.fc.out_features == 10


def test_main_fails_if_a_byte_differs(
    result: example.Result, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["transfer_images", "--quick"])
    monkeypatch.setattr(example, "run", lambda *_: result)
    assert example.main() == 0
    monkeypatch.setattr(example, "run", lambda *_: replace(result, differing_predictions=1))
    assert example.main() == 1
    assert "differ in 1 predictions" in capsys.readouterr().out


def test_weights_are_not_for_narrow_networks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["transfer_images", "--quick", "--weights", "DEFAULT"])
    with pytest.raises(SystemExit):
        example.main()
    assert "leave one out" in capsys.readouterr().err
    with pytest.raises(ValueError, match="of width 64, not of 16"):
        image_models.resnet18(10, width=16, weights="DEFAULT")


def test_the_device_learns_more_by_the_layers_that_fit(result: example.Result) -> None:
    own = result.on_device
    parts = own.nano.fits("esp32c3").ram.parts
    assert parts["head"] + parts["head's copy"] + parts["ring"] <= example.LEARNING_RAM
    assert [layer.learns for layer in own.nano.summary().choice] == [False, True, True]
    assert own.layers >= own.head + 0.02
    assert "What learns, within budget['training']" in printed(example.print_result, result)

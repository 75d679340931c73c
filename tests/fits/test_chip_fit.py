"""Whether a model fits a chip: what it says, what it refuses, and what it takes for weights."""

from __future__ import annotations

import itertools
import warnings

import pytest
import torch
import torch_nano as tn
from painted_stack import PaintedBoard
from torch import nn
from torch_nano.chips import chip, chips
from torch_nano.fits.variant import Variant

C3 = chip("esp32c3")


def _nano(model: nn.Module, *shape: int, **options: object) -> tn.NanoModule:
    x = torch.randn(32, *shape, generator=torch.Generator().manual_seed(0))
    return tn.to_nano(model, x, calibrate=x, check=False, **options)  # type: ignore[arg-type]


def _small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv1d(3, 8, 5), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 3))


def _autoencoder() -> nn.Module:
    torch.manual_seed(0)
    widths = [640, 128, 128, 8, 128, 128, 640]
    pairs = itertools.pairwise(widths)
    return nn.Sequential(*[layer for pair in pairs for layer in (nn.Linear(*pair), nn.ReLU())])


def test_a_small_model_fits_and_its_parts_add_up() -> None:
    nano = _nano(_small(), 3, 20, head="3")
    fit = nano.fits("ESP32-C3", period=0.5)
    assert fit and fit.fits and not fit.problem and not fit.advice
    assert fit.flash.parts["image"] == nano.flash_bytes
    assert fit.ram.parts["arena"] == nano.arena_bytes and fit.ram.parts["weights"] == 0
    # The head and the names of its classes; the ring of 128 samples and one more.
    assert fit.ram.parts["head"] > len(nano.head.state()) if nano.head else False
    assert fit.ram.parts["ring"] == 129 * (8 * 16 + 4)
    assert (fit.ram.available, fit.flash.available) == (C3.model_ram, C3.app_flash)
    assert fit.peak.module_path == "0"
    text = str(fit)
    assert "fits an ESP32-C3" in text and text.count("█") + text.count("░") == 4 * 24
    assert repr(fit) == text
    assert "program: --as server; `just firmware-size esp32c3 MODEL --as server` links it" in text
    other = str(nano.fits_without_time(chip("esp32c6")))
    assert (
        "--as server, of the size on an ESP32-C3: this chip's differs; `just firmware-size esp32c6" in other
    )


def test_each_firmware_has_its_size() -> None:
    nano = _nano(_small(), 3, 20, head="3")
    fits = {variant: nano.fits_without_time(C3, variant) for variant in Variant}
    code = {variant: fit.flash.parts["program"] for variant, fit in fits.items()}
    assert (
        code[Variant.CLASSIFIER]
        < code[Variant.SERVER]
        < min(code[variant] for variant in Variant if variant.senses)
    )
    # The window, what the model made of it, and the latest sample of six numbers.
    sensing, server = fits[Variant.LSM6DSO].ram.parts, fits[Variant.SERVER].ram.parts
    assert sensing == {**server, "window": 60 + 128, "sample": 24}
    only = fits[Variant.CLASSIFIER].ram.parts
    assert (
        "frames" not in only
        and only["arena"] == server["arena"]
        and 8 * 16 + 4 <= only["ring"] < 8 * 16 + 4 + 16
    )
    assert "program: --as classifier; `just firmware-size esp32c3 MODEL --as classifier`" in str(
        fits[Variant.CLASSIFIER]
    )
    assert nano.fits("esp32c3", firmware="classifier").flash == fits[Variant.CLASSIFIER].flash


def test_a_model_that_fits_as_a_classifier_only_is_refused_as_a_server() -> None:
    # The ring of 128 samples, which a classifier does not have, is too much.
    model = nn.Sequential(nn.Linear(8, 2200), nn.ReLU(), nn.Linear(2200, 3))
    with pytest.raises(
        tn.errors.TooLargeError, match="- RAM: the ring of recent samples is the largest part"
    ):
        _nano(model, 8, head="2", target="esp32c3")
    assert _nano(model, 8, head="2", target="esp32c3", firmware="classifier").head is not None


def test_an_image_too_large_for_an_update_is_warned_of() -> None:
    room = C3.update_room
    model = nn.Sequential(nn.Linear(8, 1000), nn.ReLU(), nn.Linear(1000, 1000), nn.ReLU(), nn.Linear(1000, 2))
    with pytest.warns(
        tn.errors.SizeWarning, match=f"a slot for updates {room:,} B: the model can be flashed, but"
    ):
        nano = _nano(model, 8, target="esp32c3")
    assert nano.flash_bytes > room
    with warnings.catch_warnings():
        warnings.simplefilter("error", tn.errors.SizeWarning)
        # What takes no updates needs no slot.
        _nano(model, 8, target="esp32c3", firmware="classifier")
        _nano(model, 8, target="esp32p4")
    assert chip("esp32p4").update_room == 0


def test_the_time_is_that_of_the_profile() -> None:
    nano = _nano(_small(), 3, 20)
    profile = nano.profile("esp32c3")
    fit = nano.fits("esp32c3", period=0.25)
    assert fit.time is not None and fit.time.used == profile.milliseconds(profile.total)
    assert fit.time.available == 250 and fit.time.fits
    slow = nano.fits("esp32c3", period=0.001)
    assert slow.time is not None and slow.time.fits == (slow.time.used <= 1)


def test_an_unknown_time_says_why() -> None:
    unknown = next(name for name in chips() if chip(name).builds and not chip(name).costs)
    fit = _nano(_small(), 3, 20).fits(unknown)
    assert fit and fit.time is None and fit.time_unknown
    assert f"time  unknown: {fit.time_unknown}" in str(fit)


def test_too_much_arena_is_refused_with_the_layer_at_the_peak() -> None:
    model = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(1, 2, 3))
    with pytest.raises(tn.errors.TooLargeError, match="does not fit an ESP32-C3") as raised:
        _nano(model, 1, 800, 800, target="esp32c3")
    message = str(raised.value)
    assert "RAM: it needs " in message and f"and there are {C3.model_ram:,}" in message
    assert "- RAM: layer '0' (max_pool2d) is at the peak of the arena with 800,000 B" in message
    assert "NanoModule.stream" in message
    # What is refused can be looked at.
    assert not _nano(model, 1, 800, 800).fits("esp32c3")


def test_too_much_flash_is_refused_with_the_largest_layer() -> None:
    model = nn.Sequential(nn.Linear(8, 2050), nn.ReLU(), nn.Linear(2050, 2050), nn.ReLU(), nn.Linear(2050, 2))
    with pytest.raises(tn.errors.TooLargeError, match=r"- flash: layer '2.*' \(fully_connected\w*\) has 4,2"):
        _nano(model, 8, target="esp32c3")


def test_too_many_weights_in_ram_are_refused_with_the_excess() -> None:
    with pytest.raises(tn.errors.TooLargeError, match=r"- RAM: make weights_in_ram smaller by \d") as raised:
        _nano(_autoencoder(), 640, target="esp32c2", weights_in_ram=300_000)
    assert "ESP32-C2" in str(raised.value)


def test_a_head_that_is_too_large_is_named() -> None:
    model = nn.Sequential(nn.Linear(8, 1200), nn.ReLU(), nn.Linear(1200, 100))
    with pytest.raises(
        tn.errors.TooLargeError, match="- RAM: the head, with a spare copy, is the largest part"
    ):
        _nano(model, 8, head="2", target="esp32c3")


@pytest.mark.parametrize("name", ["esp32c3", "esp32c2", "esp32c6"])
def test_auto_takes_the_ram_that_is_left(name: str) -> None:
    facts = chip(name)
    flash = _nano(_autoencoder(), 640)
    nano = _nano(_autoencoder(), 640, target=name, weights_in_ram="auto")
    fit = nano.fits_without_time(facts)
    assert fit and 0 < nano.weights_in_ram == fit.ram.parts["weights"] and not fit.tight and not fit.advice
    left = [layer.weight_bytes for layer in nano.summary().layers if layer.memory == "flash"]
    # No layer that still reads flash would have had room.
    assert all(size > fit.ram.available - fit.ram.used - 64 for size in left if size)
    x = torch.randn(4, 640)
    assert torch.equal(nano(x), flash(x))


def test_auto_leaves_the_ram_alone_that_the_model_needs() -> None:
    model = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3))
    nano = _nano(model, 1, 150, 150, target="esp32c3", weights_in_ram="auto")
    assert nano.fits_without_time(C3).ram.share > 0.8


def test_what_fits_only_just_is_warned_of() -> None:
    room = C3.model_ram - _nano(_autoencoder(), 640).fits_without_time(C3).ram.used
    model = nn.Sequential(nn.ConstantPad1d((0, 300), 0.0), nn.Conv1d(1, 1, 3))
    with pytest.warns(tn.errors.SizeWarning, match="is at the peak of the arena"):
        _nano(model, 1, int(room) // 2 - 700, target="esp32c3")


def test_a_chip_without_firmware_is_warned_of() -> None:
    with pytest.warns(tn.errors.SizeWarning, match="the firmware is not built for this chip: Xtensa"):
        _nano(_small(), 3, 20, target="esp32s3")


@pytest.mark.parametrize("name", [name for name in chips() if chip(name).builds])
def test_a_small_model_fits_every_chip_without_a_warning(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", tn.errors.SizeWarning)
        assert _nano(_small(), 3, 20, target=name).fits_without_time(chip(name))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"weights_in_ram": "auto"}, tn.errors.InputError, "say which, target='esp32c3'"),
        (
            {"weights_in_ram": "all"},
            tn.errors.InputError,
            "weights_in_ram is 'all'; expected a number of bytes",
        ),
        ({"target": "esp8266"}, tn.errors.ChipError, "there is no chip 'esp8266'"),
        ({"target": 3}, tn.errors.ChipError, "chip is 3"),
        (
            {"firmware": "sensing"},
            tn.errors.InputError,
            "firmware is 'sensing'; expected one of server, mpu6050, ",
        ),
    ],
)
def test_wrong_arguments_are_refused(
    options: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        _nano(_small(), 3, 20, **options)


def test_a_wrong_period_is_refused() -> None:
    with pytest.raises(tn.errors.InputError, match="period is -1"):
        _nano(_small(), 3, 20).fits("esp32c3", period=-1)


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.LSTM(3, 8, batch_first=True)
        self.again = nn.GRU(8, 8, batch_first=True)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.again(self.rows(x.transpose(1, 2))[0])[0]
        return torch.softmax(self.attention(x, x, x, need_weights=False)[0][:, -1], 1)


def _dense() -> nn.Module:
    return nn.Sequential(nn.Linear(480, 16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))


def test_the_stack_is_the_painted_one() -> None:
    used = {}
    for make, shape in ((_small, (3, 20)), (_Attention, (3, 20)), (_dense, (480,))):
        torch.manual_seed(0)
        nano = _nano(make().eval(), *shape)
        predicted = nano.fits_without_time(C3).stack.parts["stack"]
        board = PaintedBoard(nano.image)
        with tn.Device(board, nano=nano) as device:
            device.predict(torch.randn(shape))
            if nano.head is not None:
                device.fit(torch.randn(3, *shape), torch.arange(3), epochs=2)
                device.save()
            used[make.__name__] = board.high_water()
    # The prediction is of the deepest; another model may need less.
    assert 0.97 * predicted <= max(used.values()) <= predicted, (used, predicted)


def test_a_head_too_wide_for_lda_is_not_sent_there_without_a_condition() -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(6, 4000), nn.ReLU(), nn.Linear(4000, 3)), torch.randn(64, 6)
    tn.freeze(model, "0")
    fit = tn.to_nano(model, x, calibrate=x, head=tn.heads.SGD(), check=False).fits_without_time(
        chip("esp32c3")
    )
    assert any("heads.Prototype; heads.LDA for few features" in each for each in fit.advice)

"""What `fits` predicts is what is linked: the model's flash and RAM to the byte, the code within 3 %."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch_nano as tn
from program_sizes import build, linked_code_bytes, linked_model_ram_bytes, linked_ram_bytes
from torch import nn
from torch_nano.chips import chip
from torch_nano.fits.variant import Variant

C3 = chip("esp32c3")


def _recurrent() -> tn.NanoModule:
    """A classifier without a head, with kernels that share code and kernels that do not."""

    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.steps = nn.LSTM(3, 8, batch_first=True)
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x, _ = self.steps(x)
            return torch.softmax(self.attention(x, x, x, need_weights=False)[0][:, -1], 1)

    torch.manual_seed(0)
    x = torch.randn(32, 12, 3)
    return tn.to_nano(Recurrent().eval(), x, calibrate=x, check=False, weights_in_ram=500)


def _learning() -> tn.NanoModule:
    """Convolutions, with a head."""
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.MaxPool2d(2), nn.Flatten()),
        nn.Linear(8 * 4 * 4, 3),
    )
    x = torch.randn(32, 1, 12, 12)
    return tn.to_nano(model, x, calibrate=x, check=False, head=tn.heads.LDA(capacity=5))


def _sensing() -> tn.NanoModule:
    """A window of whole samples of each sensor, with a head."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(6, 8, 5), nn.ReLU(), nn.MaxPool1d(4), nn.Flatten(), nn.Linear(8 * 19, 3))
    x = torch.randn(32, 6, 80)
    return tn.to_nano(model, x, calibrate=x, check=False, head=tn.heads.SGD())


@pytest.mark.parametrize(
    ("variant", "make"),
    [
        (Variant.SERVER, _recurrent),
        (Variant.SERVER, _learning),
        (Variant.MPU6050, _sensing),
        (Variant.LSM6DSO, _sensing),
        (Variant.VOLTAGE, _sensing),
        (Variant.MICROPHONE, _sensing),
        (Variant.CLASSIFIER, _recurrent),
        (Variant.CLASSIFIER, _learning),
    ],
)
def test_the_prediction_is_what_is_linked(
    variant: Variant, make: Callable[[], tn.NanoModule], firmware_build: None, tmp_path: Path
) -> None:
    nano = make()
    fit = nano.fits_without_time(C3, variant)
    nano.export(tmp_path)
    program = build(tmp_path, variant)
    assert fit.flash.parts["image"] == (tmp_path / "model.nano").stat().st_size
    assert nano.image in program.read_bytes()
    assert fit.ram.used == linked_model_ram_bytes(program)
    assert (fit.ram.parts["weights"] > 0) == (make is _recurrent)
    code, ram = linked_code_bytes(program, nano.flash_bytes), linked_ram_bytes(program)
    table = "`just program-sizes` writes the table of what is linked now"
    assert fit.flash.parts["program"] == pytest.approx(code, rel=0.03), table
    # Which code has a table of a switch, in RAM, depends on what is inlined: the prediction may be too high.
    assert 0 <= fit.stack.parts["program"] - ram <= 400, table
    assert fit.ram.used + fit.stack.used <= C3.ram

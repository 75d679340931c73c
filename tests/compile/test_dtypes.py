"""Models with values of 16 and 32 bits: inputs, outputs and what lies between, on host and board."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torch_nano as tn
from torch import Tensor, nn
from torch_nano.arithmetic.quantization import Dtype
from torch_nano.arithmetic.tensors import quantize_tensor
from torch_nano.calibration.calibrate import calibrate
from torch_nano.calibration.quantize import quantize
from torch_nano.calibration.ranges import calibrated
from torch_nano.capture.capture import capture
from torch_nano.capture.passes import optimize
from torch_nano.compile.image import write_image
from torch_nano.compile.nano_module import NanoModule
from torch_nano.compile.saved_model import SavedModel


class Mixed(nn.Module):
    """A wide input is moved, joined with a narrow one, and convolved in int8."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(5, 4, 3)

    def forward(self, wide: Tensor, narrow: Tensor) -> dict[str, Tensor]:
        turned = wide.flip(2)[:, :, 1:]
        joined = torch.cat([turned, narrow[:, :, 1:]], 1)
        return {"joined": joined, "turned": turned[:, :1], "classes": torch.relu(self.conv(joined))}


SHAPES = {"wide": (3, 8), "narrow": (2, 8)}


def to_nano(model: nn.Module, data: dict[str, Tensor], dtypes: dict[str, Dtype]) -> NanoModule:
    """The model with inputs of these dtypes."""
    graph = capture(model, data)
    graph.dtypes.update(dtypes)
    graph = optimize(graph)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", tn.errors.ChannelRangeWarning)
        quantized = quantize(graph, calibrated(calibrate(graph, data)))
    return NanoModule(SavedModel(write_image(quantized, None, "mixed", []), quantized, None))


@pytest.fixture(scope="module")
def data() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {name: torch.randn(32, *shape, generator=generator) for name, shape in SHAPES.items()}


@pytest.fixture(scope="module", params=["int16", "int32"])
def nano(request: pytest.FixtureRequest, data: dict[str, Tensor]) -> NanoModule:
    torch.manual_seed(4)
    return to_nano(Mixed().eval(), data, {"wide": request.param})


def test_each_value_has_its_dtype(nano: NanoModule) -> None:
    given = nano.input_quantizations["wide"].dtype
    assert nano.input_quantizations["narrow"].dtype == "int8"
    made = {name: quantization.dtype for name, quantization in nano.output_quantizations.items()}
    assert made == {"joined": "int16", "turned": given, "classes": "int8"}


def test_outputs_are_near_and_wide_ones_nearer(nano: NanoModule, data: dict[str, Tensor]) -> None:
    torch.manual_seed(4)
    with torch.no_grad():
        expected, found = Mixed().eval()(**data), nano(**data)
    for name, bound in {"joined": 0.02, "turned": 1e-4, "classes": 0.1}.items():
        assert float((found[name] - expected[name]).abs().max()) < bound, name


def test_floats_and_integers_give_the_same_outputs(nano: NanoModule, data: dict[str, Tensor]) -> None:
    integers = nano.quantize_inputs(**data)
    assert [x.dtype for x in integers] == [each.torch_dtype for each in nano.input_quantizations.values()]
    outputs, reals = nano.forward_int8(*integers), nano(**data)
    for name, quantization in nano.output_quantizations.items():
        meaning = (outputs[name].double() - quantization.zero_point) * quantization.scale
        assert torch.equal(meaning.float(), reals[name]), name
    double = nano(**{name: x.double() for name, x in data.items()})
    assert all(torch.equal(double[name], reals[name]) for name in reals)


def test_integers_of_another_dtype_are_refused(nano: NanoModule, data: dict[str, Tensor]) -> None:
    wide, narrow = nano.quantize_inputs(**data)
    dtype = nano.input_quantizations["wide"].dtype
    with pytest.raises(tn.errors.InputError, match=f"'wide' has shape .* torch.int8; expected .* of {dtype}"):
        nano.forward_int8(wide.to(torch.int8), narrow)


@pytest.mark.parametrize("target", ["host", "rv32imc"])
def test_no_byte_differs(nano: NanoModule, target: str) -> None:
    report = nano.verify(target)  # type: ignore[arg-type]
    assert report and report.differing_bytes == 0
    # Of each sample at least the outputs: 5 x 7 int16, a row of the wide input, 4 x 5 int8.
    size = nano.input_quantizations["wide"].torch_dtype.itemsize
    assert report.compared_bytes >= report.inputs * (35 * 2 + 7 * size + 20)


def test_a_saved_model_is_the_same(nano: NanoModule, data: dict[str, Tensor], tmp_path: Path) -> None:
    nano.save(tmp_path / "mixed.nano")
    loaded = tn.load(tmp_path / "mixed.nano")
    assert loaded.id == nano.id
    assert all(torch.equal(y, z) for y, z in zip(loaded(**data).values(), nano(**data).values(), strict=True))


@pytest.mark.parametrize("connection", ["sim", "qemu"])
def test_a_device_quantizes_each_input_by_its_dtype(
    nano: NanoModule, data: dict[str, Tensor], connection: str
) -> None:
    with tn.Device(connection, nano=nano) as device:
        prediction = device.predict({name: x[5] for name, x in data.items()})
    expected = nano.forward_int8(*nano.quantize_inputs(**{name: x[5:6] for name, x in data.items()}))
    for name, quantization in nano.output_quantizations.items():
        output = prediction.outputs[name]
        assert output.dtype == quantization.dtype
        assert np.array_equal(output, expected[name].movedim(1, -1).flatten().numpy()), name


class Causal(nn.Module):
    """A causal network whose input is kept in 16 bits."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)[:, :, -1]
        return y


def test_a_stream_of_int16_gives_the_bytes_of_the_window() -> None:
    torch.manual_seed(5)
    series = torch.randn(1, 2, 60)
    windows = series.unfold(2, 9, 1)[0].movedim(1, 0)
    nano = to_nano(Causal().eval(), {"x": windows}, {"x": "int16"})
    stream = nano.stream()
    quantization = nano.input_quantization
    assert quantization.dtype == "int16"
    integers = quantize_tensor(series, quantization)
    for end in range(integers.shape[2]):
        y = stream.step_int8(integers[0, :, end])
        if end >= 8:
            window = integers[:, :, end - 8 : end + 1]
            assert torch.equal(y, nano.forward_int8(window)[0]), f"step {end}"

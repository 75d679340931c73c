"""Layers in 16 bits by the names of modules: which values get them, and the same bytes everywhere."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
import torch_nano as tn
from torch import Tensor, nn
from torch_nano.ir.precision import LayerDtype

from .exported import run_exported

X = torch.randn(64, 6, generator=torch.Generator().manual_seed(0))
IMAGES = torch.randn(48, 4, 8, 8, generator=torch.Generator().manual_seed(1))
Precision = Mapping[str, LayerDtype]


def chain() -> nn.Module:
    """Three linear layers."""
    return nn.Sequential(
        nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 10), nn.ReLU(), nn.Sequential(nn.Linear(10, 4))
    )


class Branches(nn.Module):
    """A value with three readers, and two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(6, 8)
        self.first, self.second, self.third = (nn.Linear(8, 5) for _ in range(3))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.relu(self.stem(x))
        return torch.cat([self.first(x), self.second(x)], 1), self.third(x)


class Turned(nn.Module):
    """Data movement at both ends and between two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x.flip(1)).roll(3, 1)).flip(1)


def converted(
    make: Callable[[], nn.Module], precision: Precision, x: Tensor = X, check: bool = True
) -> tn.NanoModule:
    torch.manual_seed(2)
    return tn.to_nano(make().eval(), x[:2], calibrate=x, precision=precision, check=check)


def layers(nano: tn.NanoModule) -> list[str]:
    """The layers' operators and the dtypes of their outputs, in order."""
    return [f"{layer.operator} {layer.dtype}" for layer in nano.summary().layers]


FC8, FC16 = "fully_connected int8", "fully_connected int16"
WIDER, NARROWER = "requantize int16", "requantize int8"


@pytest.mark.parametrize(
    ("precision", "expected"),
    [
        ({}, [FC8, FC8, FC8]),
        ({"2": "int16"}, [FC8, WIDER, FC16, NARROWER, FC8]),
        ({"0": "int16"}, [FC16, NARROWER, FC8, FC8]),
        ({"4": "int16"}, [FC8, FC8, WIDER, FC16]),
        ({"0": "int16", "2": "int16"}, [FC16, FC16, NARROWER, FC8]),
        ({"": "int16"}, [FC16, FC16, FC16]),
        ({"": "int16", "2": "int8"}, [FC16, NARROWER, FC8, WIDER, FC16]),
        ({"?": "int16", "0": "int8"}, [FC8, WIDER, FC16, FC16]),
    ],
)
def test_requantize_stands_only_where_dtypes_meet(precision: Precision, expected: list[str]) -> None:
    nano = converted(chain, precision)
    assert layers(nano) == expected
    assert nano.input_quantization.dtype == expected[0].split()[1]
    assert nano.output_quantization.dtype == expected[-1].split()[1]
    assert all(
        value.quantization is not None
        and (value.quantization.dtype == "int8" or not value.quantization.zero_point)
        for value in nano.graph.graph.values.values()
    )


@pytest.mark.parametrize("target", ["host", "rv32imc"])
@pytest.mark.parametrize("precision", [{"2": "int16"}, {"": "int16"}])
def test_no_byte_differs(precision: Precision, target: str) -> None:
    report = converted(chain, precision).verify(target)  # type: ignore[arg-type]
    assert report and report.differing_bytes == 0 and report.compared_bytes > 0


def test_16_bits_are_nearer_to_float() -> None:
    torch.manual_seed(2)
    model = chain().eval()
    errors = {}
    for name, precision in {"int8": {}, "middle": {"2": "int16"}, "all": {"": "int16"}}.items():
        nano = tn.to_nano(model, X[:2], calibrate=X, precision=precision)  # type: ignore[arg-type]
        with torch.no_grad():
            errors[name] = float((nano(X) - model(X)).square().mean())
    # The weights stay in 8 bits.
    assert errors["all"] < 0.5 * errors["int8"]


def test_readers_share_one_requantize() -> None:
    nano = converted(Branches, {"first": "int16", "third": "int16"})
    assert layers(nano).count(WIDER) == 2
    graph = nano.graph.graph
    (stem,) = [
        node.output
        for node in graph.nodes
        if graph.module_path(node) == "stem"
        and node.parameters == {}
        and node.operator.name == "fully_connected"
    ]
    (shared,) = [node for node in graph.consumers(stem) if node.operator.name == "requantize"]
    assert len(graph.consumers(shared.output)) == 2
    assert nano.verify("host") and nano.verify("rv32imc")


def test_outputs_have_their_own_dtypes() -> None:
    nano = converted(Branches, {"third": "int16"})
    assert [q.dtype for q in nano.output_quantizations.values()] == ["int8", "int16"]
    joined = converted(Branches, {"first": "int16", "second": "int16"})
    assert [q.dtype for q in joined.output_quantizations.values()] == ["int16", "int8"]
    assert "concat int16" in layers(joined) and nano.verify("rv32imc") and joined.verify("rv32imc")


def test_data_movement_takes_the_dtype_of_its_input() -> None:
    nano = converted(Turned, {"first": "int16", "second": "int16"})
    assert {layer.dtype for layer in nano.summary().layers} == {"int16"} and not layers(nano).count(WIDER)
    assert nano.input_quantization.dtype == "int16"
    assert nano.verify("host") and nano.verify("rv32imc")
    mixed = converted(Turned, {"second": "int16"})
    assert mixed.input_quantization.dtype == "int8" and mixed.output_quantization.dtype == "int16"


@pytest.mark.parametrize(
    ("make", "precision"),
    [
        (chain, {"2": "int16"}),
        (chain, {"": "int16", "2": "int8"}),
        (Branches, {"first": "int16", "third": "int16"}),
        (Turned, {"": "int16"}),
    ],
)
def test_the_precision_of_a_model_makes_the_same_model(
    make: Callable[[], nn.Module], precision: Precision, tmp_path: Path
) -> None:
    nano = converted(make, precision)
    assert converted(make, nano.precision).id == nano.id
    nano.save(tmp_path / "model.nano")
    loaded = tn.load(tmp_path / "model.nano")
    assert loaded.id == nano.id and loaded.precision == nano.precision
    torch.manual_seed(2)
    report = loaded.compare(make().eval(), X)
    assert all(output.sqnr > 15 for output in report.outputs)


def test_the_summary_has_dtypes_where_they_differ() -> None:
    assert "int16" in str(converted(chain, {"0": "int16"}).summary())
    assert "dtype" not in str(converted(chain, {}).summary())


@pytest.mark.parametrize(
    ("precision", "error", "message"),
    [
        ({"2": "int32"}, tn.errors.InputError, "precision of '2' is 'int32'; expected 'int8' or 'int16'"),
        ({"2": 16}, tn.errors.InputError, "precision of '2' is 16; expected 'int8' or 'int16'"),
        ({"5": "int16"}, tn.errors.ModuleNameError, "no module of Sequential matches '5'"),
        ({5: "int16"}, tn.errors.ModuleNameError, "a pattern is 5"),
        (
            "int16",
            tn.errors.InputError,
            "precision is 'int16'; expected a dict of dtypes by the names of modules",
        ),
        ({"1": "int16"}, tn.errors.InputError, "precision of '1': no layer of the device is made of it"),
    ],
)
def test_a_wrong_precision_is_refused(precision: Precision, error: type[Exception], message: str) -> None:
    for prepare in (tn.to_nano, tn.prepare_qat):
        with pytest.raises(error, match=message):
            prepare(chain(), X[:2], calibrate=X, precision=precision)


class Scores(nn.Module):
    """The model itself computes a softmax, between two layers of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 5), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(self.first(x).softmax(1))
        return y


@pytest.mark.parametrize(
    ("make", "precision", "refused", "expected"),
    [
        (
            lambda: nn.Sequential(nn.Linear(6, 5), nn.Softmax(1)),
            {"": "int16"},
            "1",
            [FC16, NARROWER, "softmax int8"],
        ),
        (Scores, {"": "int16"}, "", [FC16, NARROWER, "softmax int8", WIDER, FC16]),
        (Scores, {"": "int16", "second": "int8"}, "", [FC16, NARROWER, "softmax int8", FC8]),
    ],
)
def test_an_operator_without_such_a_kernel_is_refused_with_a_way_out(
    make: Callable[[], nn.Module], precision: Precision, refused: str, expected: list[str]
) -> None:
    with pytest.raises(tn.errors.QuantizationError, match=r"softmax of .* computes in int8 only") as found:
        converted(make, precision)
    assert found.value.module_path == refused
    nano = converted(make, ast.literal_eval(str(found.value).split("precision=")[1]))
    assert layers(nano) == expected and nano.verify("rv32imc")


def test_a_module_without_such_a_kernel_is_asked_for_alone() -> None:
    with pytest.raises(tn.errors.QuantizationError, match=r"softmax of module '1' .*; leave precision out$"):
        converted(lambda: nn.Sequential(nn.Linear(6, 5), nn.Softmax(1)), {"1": "int16"})


class Category(nn.Module):
    """The largest of the scores of a row of a table."""

    def __init__(self) -> None:
        super().__init__()
        self.rows, self.scores = nn.Embedding(40, 8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.scores(self.rows(x).tanh().mean(1)).argmax(1)


def test_indices_have_no_precision() -> None:
    ids = torch.randint(40, (64, 3), generator=torch.Generator().manual_seed(0))

    def made(precision: Precision) -> tn.NanoModule:
        return converted(Category, precision, ids, check=False)

    nano = made({})
    assert nano.precision == {} and made({"": "int8"}).id == nano.id
    with pytest.raises(tn.errors.QuantizationError, match=r"^embedding of .* computes in int8 only") as found:
        made({"": "int16"})
    wide = made(ast.literal_eval(str(found.value).split("precision=")[1]))
    assert wide.precision == {"": "int16", "rows": "int8"} and wide.verify("rv32imc")
    assert made(wide.precision).id == wide.id


def test_a_head_takes_features_in_int8() -> None:
    torch.manual_seed(2)
    model = chain()
    tn.freeze(model, "0", "2")
    with pytest.raises(tn.errors.HeadError, match=r"end precision with '4.0': 'int8'"):
        tn.to_nano(model, X[:2], calibrate=X, precision={"": "int16"})
    nano = tn.to_nano(model, X[:2], calibrate=X, precision={"": "int16", "4.0": "int8"})
    assert layers(nano)[:3] == [FC16, FC16, NARROWER] and nano.output_quantization.dtype == "int8"
    assert nano.features_int8(X).dtype == torch.int8
    assert nano.verify("host") and nano.verify("rv32imc")
    y = torch.arange(64) % 4
    with tn.Device("sim", nano=nano) as device:
        device.fit(X, y)
    assert nano.compare(model, X).outputs[0].sqnr > 15


def test_a_qat_module_has_its_precision() -> None:
    qat = tn.prepare_qat(chain(), X[:2], calibrate=X, precision={"2": "int16"})
    with pytest.raises(tn.errors.InputError, match="leave out example, calibrate and precision"):
        qat.to_nano(precision={"2": "int16"})
    with pytest.raises(tn.errors.InputError, match="leave out example, calibrate and precision"):
        qat.to_nano(precision="auto")


@pytest.mark.parametrize("connection", ["sim", "qemu"])
def test_a_device_takes_and_returns_16_bits(connection: str) -> None:
    nano = converted(chain, {"": "int16"})
    with tn.Device(connection, nano=nano) as device:
        output = device.predict(X[3]).outputs["output"]
    assert output.dtype == "int16"
    assert output.tolist() == nano.forward_int8(*nano.quantize_inputs(X[3:4]))[0].tolist()


def test_the_exported_module_quantizes_to_16_bits(tmp_path: Path) -> None:
    nano = converted(chain, {"": "int16"})
    main = """#[allow(dead_code)]
mod model;

fn main() {
    use std::io::{Read, Write};
    let mut bytes = Vec::new();
    std::io::stdin().read_to_end(&mut bytes).unwrap();
    let mut reals = [0.0; 6];
    for (real, bytes) in reals.iter_mut().zip(bytes.chunks(4)) {
        *real = f32::from_le_bytes(bytes.try_into().unwrap());
    }
    let integers: [i16; 6] = model::quantize(&reals);
    let outputs: [f32; 4] = model::dequantize(&[1, -2, 300, i16::MIN]);
    let mut found = std::io::stdout();
    for integer in integers {
        found.write_all(&integer.to_le_bytes()).unwrap();
    }
    for output in outputs {
        found.write_all(&output.to_le_bytes()).unwrap();
    }
}
"""
    found = run_exported(nano, tmp_path / "program", main, X[7].numpy().tobytes())
    assert torch.equal(
        torch.frombuffer(bytearray(found[:12]), dtype=torch.int16), nano.quantize_inputs(X[7:8])[0][0]
    )
    scale = nano.output_quantization.scale
    expected = torch.tensor([1, -2, 300, -32768], dtype=torch.float64) * scale
    assert torch.equal(torch.frombuffer(bytearray(found[12:]), dtype=torch.float32), expected.float())

"""Every structure in which a model returns tensors: the same in QAT, in a NanoModule and in files."""

from __future__ import annotations

from collections import OrderedDict, defaultdict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch_nano as tn
from torch import Tensor, nn
from torch_nano.capture.capture import capture
from torch_nano.compile.saved_model import _VERSION
from torch_nano.files import archive

X = torch.randn(32, 4, generator=torch.Generator().manual_seed(0))


class Pair(namedtuple("Pair", ["scores", "level"])):
    pass


@dataclass
class Result:
    scores: Tensor
    level: Tensor
    loss: Tensor | None = None


class ModelOutput(OrderedDict[str, Any]):
    """Fields by attributes and by keys, as the outputs of transformers."""

    def __getattr__(self, name: str) -> Any:
        return self[name]


class Model(nn.Module):
    def __init__(self, returns: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.scores, self.level, self.returns = nn.Linear(4, 3), nn.Linear(4, 1), returns

    def forward(self, x: Tensor) -> Any:
        return self.returns(self.scores(x), self.level(x))


#: What a model returns, what its conversions return for two numbers in place of tensors, and the names.
STRUCTURES: list[tuple[Callable[[Tensor, Tensor], Any], Any, list[str]]] = [
    (lambda a, b: OrderedDict(scores=a, level=b), {"scores": 0, "level": 1}, ["scores", "level"]),
    (lambda a, b: defaultdict(list, scores=a, level=b), {"scores": 0, "level": 1}, ["scores", "level"]),
    (lambda a, b: ModelOutput(scores=a, level=b), {"scores": 0, "level": 1}, ["scores", "level"]),
    (lambda a, b: Result(a, b), {"scores": 0, "level": 1}, ["scores", "level"]),
    (lambda a, b: Pair(a, b), (0, 1), ["scores", "level"]),
    (lambda a, b: (a, (b,)), (0, (1,)), ["output0", "output1.0"]),
    (lambda a, b: [a, {"level": b}], [0, {"level": 1}], ["output0", "output1.level"]),
    (
        lambda a, b: {"result": Result(a, b), "none": ()},
        {"result": {"scores": 0, "level": 1}, "none": ()},
        ["result.scores", "result.level"],
    ),
]


@pytest.mark.parametrize(("returns", "packed", "names"), STRUCTURES)
def test_a_structure_is_kept(
    returns: Callable[[Tensor, Tensor], Any], packed: Any, names: list[str], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = Model(returns).eval()
    graph = capture(model, X)
    assert graph.returned.pack([0, 1]) == packed and type(graph.returned.pack([0, 1])).__name__ in (
        type(packed).__name__,
        "Outputs",
    )
    nano = tn.to_nano(model, X, calibrate=X)
    assert list(nano.output_quantizations) == names
    assert nano.verify("host", X)
    nano.save(tmp_path / "model")
    loaded = tn.load(tmp_path / "model")
    assert loaded.graph.graph.returned == nano.graph.graph.returned == graph.returned
    trained = tn.prepare_qat(model, X, calibrate=X).eval()
    assert str(loaded(X)) == str(nano(X)) and type(trained(X)) is type(nano(X))


def test_a_named_tuple_has_its_fields() -> None:
    nano = tn.to_nano(Model(Pair), X, calibrate=X)
    assert nano(X)._fields == ("scores", "level") and torch.equal(nano(X).level, nano(X)[1])


def test_the_maximum_and_its_index_are_two_outputs() -> None:
    model = nn.Sequential(nn.Linear(4, 3))
    model.forward = lambda x: model[0](x).max(-1)  # type: ignore[method-assign,assignment]
    nano = tn.to_nano(model, X, calibrate=X, check=False)
    values, indices = nano(X)
    assert nano(X)._fields == ("values", "indices") and indices.dtype == torch.int64
    scores = tn.to_nano(model[0], X, calibrate=X, head=None, check=False)(X)
    assert torch.equal(values, scores.amax(-1)) and torch.equal(indices, scores.argmax(-1))


def test_a_model_keeps_its_hooks() -> None:
    model = Model(Result)
    before = dict(model._forward_hooks)
    capture(model, X)
    assert model._forward_hooks == before and isinstance(model(X), Result)


@pytest.mark.parametrize(
    ("returns", "reason"),
    [
        (lambda a, b: {a, b}, "returns a set; expected a tensor, or tuples, lists, dicts, named tuples or"),
        (lambda a, b: {0: a, 1: b}, r"a dict with the key 0; name its outputs by texts, .*'output0'"),
        (lambda a, b: {"a.b": a, "a": {"b": b}}, "cannot be told apart: two outputs have one name"),
        (lambda a, b: (a, {"b": None}), r"returns None as output1\.b; expected one tensor"),
    ],
)
def test_other_structures_are_refused(returns: Callable[[Tensor, Tensor], Any], reason: str) -> None:
    with pytest.raises(tn.errors.CaptureError, match=reason) as caught:
        capture(Model(returns), X)
    assert "http" not in str(caught.value)


LEAF = {"kind": "tensor", "keys": (), "parts": ()}


@pytest.mark.parametrize(
    ("returns", "reason"),
    [
        (LEAF, "it returns 1 tensors, and has outputs"),
        ({**LEAF, "kind": "set"}, "it returns a 'set'; expected one of tensor, tuple"),
        ({"kind": "dict", "keys": ("a",), "parts": (LEAF, LEAF)}, "a dict of 2 parts with the keys"),
        ({"kind": "dict", "keys": ("a", "a"), "parts": (LEAF, LEAF)}, "two outputs have one name"),
        ({"kind": "namedtuple", "keys": ("a", "x y"), "parts": (LEAF, LEAF)}, "valid identifiers"),
        ({"kind": "tuple", "keys": (), "parts": (LEAF, 3)}, "what the model returns: it is 3"),
        ({"kind": "tensor", "keys": (), "parts": (LEAF, LEAF)}, "a tensor of 2 parts"),
    ],
)
def test_files_with_other_structures_are_refused(returns: object, reason: str, tmp_path: Path) -> None:
    tn.to_nano(Model(Pair), X, calibrate=X).save(tmp_path / "model")
    tree = archive.unpack("model", _VERSION, (tmp_path / "model").read_bytes())
    (tmp_path / "model").write_bytes(archive.pack("model", _VERSION, {**tree, "returns": returns}))
    with pytest.raises(tn.errors.FileFormatError, match=reason):
        tn.load(tmp_path / "model")

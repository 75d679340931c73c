"""Damaged and hostile saved models: a consistent model, or FileFormatError."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import torch_nano as tn
from mutations import body_of, bytes_of, memory_for, packed, sealed, trees_of
from networks import NETWORKS, ConvNet1d, ResidualNet, inputs, make
from torch import nn
from torch_nano.compile.saved_model import _VERSION as VERSION
from torch_nano.files import archive

SEED = 3
#: Bytes of address space that a load of a small file may take, threads and libraries included.
ROOM = 1 << 30


def conv_net() -> tn.NanoModule:
    x = inputs((3, 40), 32)
    return tn.to_nano(make(ConvNet1d), x, calibrate=x, labels=list("abcde"))


def residual_net() -> tn.NanoModule:
    x = inputs(dict(NETWORKS)[ResidualNet], 32)
    return tn.to_nano(make(ResidualNet), x, calibrate=x)


def with_head(head: Any = None, train_last: int = 1) -> tn.NanoModule:
    torch.manual_seed(SEED)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    x = inputs((4,), 32)
    nano = tn.to_nano(model, x, calibrate=x, head=head or "auto", train_last=train_last)
    if nano.head is not None:
        nano.head.fit(nano.features_int8(x), torch.arange(32) % 3)
    return nano


MODELS: dict[str, Callable[[], tn.NanoModule]] = {
    "convolutions": conv_net,
    "residual": residual_net,
    "SGD": lambda: with_head(tn.heads.SGD()),
    "LDA": lambda: with_head(tn.heads.LDA(capacity=5)),
    "layers": lambda: with_head(tn.heads.SGD(0.05), 2),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("saved")
    for name, make_model in MODELS.items():
        make_model().save(folder / name)
    return {name: (folder / name).read_bytes() for name in MODELS}


def outcome(path: Path, content: bytes) -> bool:
    """Whether a file is a model, which is then right in itself."""
    path.write_bytes(content)
    try:
        nano = tn.load(path)
    except tn.errors.FileFormatError as error:
        assert str(error).startswith(f"{path}: ") and len(str(error)) < 2000
        return False
    assert nano.verify("host") and str(nano.summary()) and str(nano.graph.graph)
    assert nano(torch.zeros(1, *nano.input_shape)).shape[0] == 1
    nano.save(path)
    assert tn.load(path).image == nano.image
    return True


@pytest.mark.parametrize("name", MODELS)
def test_models_with_changed_bytes_are_refused(name: str, saved: dict[str, bytes], tmp_path: Path) -> None:
    content, other = saved[name], saved["residual" if name == "convolutions" else "convolutions"]
    with memory_for(ROOM):
        for number, changed in enumerate(bytes_of(content, other, count=60, seed=SEED)):
            assert changed == content or not outcome(tmp_path / "model", changed), f"file {number}"
        accepted = 0
        for changed in bytes_of(body_of(content), body_of(other), count=60, seed=SEED + 1):
            accepted += outcome(tmp_path / "model", sealed(content, changed))
    # Names of modules and of the model may be any.
    assert accepted < 30


@pytest.mark.parametrize("name", ["convolutions", "SGD", "LDA", "layers"])
def test_models_with_changed_values_are_refused_or_right(
    name: str, saved: dict[str, bytes], tmp_path: Path
) -> None:
    tree = archive.unpack("model", VERSION, saved[name])
    other = archive.unpack("model", VERSION, saved["residual" if name == "convolutions" else "convolutions"])
    accepted, tried = [], 0
    with memory_for(ROOM):
        for where, changed in trees_of(tree, other, SEED):
            content = packed("model", VERSION, changed)
            if content is None or content == saved[name]:
                continue
            tried += 1
            if outcome(tmp_path / "model", content):
                accepted.append(where)
    assert tried > 200
    # Texts may be any, and numbers that only comparisons read; and what makes the same image, such as clamps
    # beyond int8, a budget that is kept anyway, or defaults left out. A network without states computes the
    # same as a stream of one step.
    free = (
        *("module_path", "source", "path", "name", "labels", "factors", "streams"),
        *("attributes", "tensors", "description", "state", "optimization"),
    )
    assert [where for where in accepted if not any(f"'{one}'" in where for one in free)] == []


@pytest.mark.parametrize("part", ["values", "nodes", "head", "id", "inputs", "outputs"])
def test_models_mixed_from_two_are_refused_or_right(
    part: str, saved: dict[str, bytes], tmp_path: Path
) -> None:
    trees = {name: archive.unpack("model", VERSION, content) for name, content in saved.items()}
    for name, tree in trees.items():
        for other, donor in trees.items():
            if name != other and part in tree and tree[part] is not donor[part]:
                mixed = packed("model", VERSION, {**tree, part: donor[part]})
                assert mixed is not None
                if mixed != saved[name]:
                    assert not outcome(tmp_path / "model", mixed), f"{part} of {other} in {name}"


def test_scales_and_shapes_that_contradict_each_other_are_named(
    saved: dict[str, bytes], tmp_path: Path
) -> None:
    for change, message in (
        (
            lambda tree: tree["values"][0]["quantization"].update(scale=0.5),
            "of image [0-9a-f]{8}; of its layers",
        ),
        (
            lambda tree: tree["values"][1]["quantization"].update(scale=0.5),
            "its scale and zero point are not",
        ),
        (
            lambda tree: tree["nodes"][4]["attributes"].update(flattened=(4, 4)),
            r"it flattens \(4, 4\); its input",
        ),
        (lambda tree: tree["values"][1].update(shape=(9, 40)), "contradicts itself"),
        (lambda tree: tree["values"][0]["quantization"].update(zero_point=300), "zero point 300"),
        (
            lambda tree: tree["nodes"][0]["attributes"].update(stride="1"),
            r"stride is '1'; expected tuple\[int",
        ),
        (lambda tree: tree["nodes"][0].update(operator="Convolution"), "there is no operator 'Convolution'"),
        (lambda tree: tree["nodes"].reverse(), "are not made before"),
        (lambda tree: tree.update(name="another"), "model of image"),
        (lambda tree: tree["nodes"][0]["tensors"]["weights"].add_(1), "model of image|contradicts itself"),
    ):
        tree = archive.unpack("model", VERSION, saved["convolutions"])
        change(tree)
        (tmp_path / "model").write_bytes(archive.pack("model", VERSION, tree))
        with pytest.raises(tn.errors.FileFormatError, match=message):
            tn.load(tmp_path / "model")


def archive_of(text: bytes) -> bytes:
    """An archive with this JSON and no tensors."""
    body = safetensors.torch.save({"data": torch.frombuffer(bytearray(text), dtype=torch.uint8)})
    return sealed(b"torch-nano model 4\n", body)


@pytest.mark.parametrize("unit", [b"[]", b'{"tuple":[]}', b'{"dict":[]}', b'{"set":[]}', b"1.5", b'"a"'])
def test_many_small_values_take_memory_in_proportion(unit: bytes, tmp_path: Path) -> None:
    content = archive_of(b"[" + b",".join([unit] * (1_000_000 // len(unit))) + b"]")
    with memory_for(ROOM):
        assert not outcome(tmp_path / "model", content)


def test_archives_that_unpack_to_much_memory_are_refused(saved: dict[str, bytes], tmp_path: Path) -> None:
    zeros = io.BytesIO()
    np.savez_compressed(zeros, image=np.zeros(1 << 28, np.uint8), graph=np.zeros(1 << 28, np.uint8))
    lengths = {"data": {"dtype": "U8", "shape": [1 << 40], "data_offsets": [0, 1 << 40]}}
    header = json.dumps(lengths).encode()
    tree = archive.unpack("model", VERSION, saved["convolutions"])
    tree["values"][0]["shape"] = (1 << 14, 1 << 14)
    with memory_for(ROOM):
        for content in (
            archive_of(b"[" * 500_000 + b"]" * 500_000),
            archive_of(b'{"tuple":' * 100_000 + b"[]" + b"}" * 100_000),
            archive_of(b"1" * 1_000_000),
            archive_of(b'{"tensor": 10}'),
            archive_of(b"null"),
            sealed(b"torch-nano model 4\n", len(header).to_bytes(8, "little") + header),
            sealed(b"torch-nano model 4\n", b"\xff" * 8),
            sealed(b"torch-nano model 4\n", zeros.getvalue()),
            b"torch-nano model 1\n" + zeros.getvalue(),
            archive.pack("model", VERSION, tree),
        ):
            assert not outcome(tmp_path / "model", content)


def test_code_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "run",))

    pickled = io.BytesIO()
    torch.save({"a": Evil()}, pickled)
    with zipfile.ZipFile(tmp_path / "objects.zip", "w") as file:
        file.writestr("data.pkl", pickled.getvalue())
    for content in (pickled.getvalue(), (tmp_path / "objects.zip").read_bytes()):
        assert not outcome(tmp_path / "model", content)
        assert not outcome(tmp_path / "model", sealed(b"torch-nano model 4\n", content))
    assert not (tmp_path / "run").exists()


def test_a_file_without_an_end_is_not_read_for_ever() -> None:
    with pytest.raises(tn.errors.FileFormatError, match=r"/dev/zero has \d+ bytes or more; expected at most"):
        tn.load("/dev/zero")


def test_a_tensor_that_nothing_names_is_refused() -> None:
    """Fields that only a newer version saves are refused, not dropped."""
    content = archive.pack("example", 1, {"a": torch.ones(2)})
    tensors = safetensors.torch.load(body_of(content))
    same, more = (
        sealed(content, safetensors.torch.save(tensors | extra)) for extra in ({}, {"7": torch.ones(1)})
    )
    assert torch.equal(archive.unpack("example", 1, same)["a"], torch.ones(2))
    with pytest.raises(tn.errors.FileFormatError, match="nothing names its tensor '7'"):
        archive.unpack("example", 1, more)

"""The file format of models and checkpoints: plain data and tensors, no code.

A line with the file's kind and version, the SHA-256 of the rest, and a safetensors archive. The archive's
tensor `data` is JSON: None, bools, numbers, strings and lists as they are, everything else as an object with
one key (`{"tuple": [...]}`, `{"dict": [[key, value], ...]}`, `{"tensor": index}`). The memory for reading is
bounded by the file's size: a copy of its tensors, and 100 times its JSON.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from ..arguments import shown
from ..errors import FileFormatError, TorchNanoError
from .reading import parse_json, refusing

_DIGEST_LENGTH = hashlib.sha256().digest_size
_DATA = "data"
_PLAIN = (type(None), bool, int, float, str)
_SEQUENCES: dict[str, Callable[[list[Any]], Any]] = {"tuple": tuple, "set": set}
_MAPPINGS: dict[str, Callable[[list[tuple[Any, Any]]], Any]] = {
    "dict": dict,
    "ordered": OrderedDict,
    "counter": lambda pairs: Counter(dict(pairs)),
}


class NotPlainError(TorchNanoError, TypeError):
    """A value is not plain data: loading it would have to run code."""


def pack(kind: str, version: int, data: Any) -> bytes:
    """Encodes plain data and tensors as the bytes of a file.

    >>> content = pack("example", 1, {"weights": torch.ones(2), "shape": (2,)})
    >>> unpack("example", 1, content)
    {'weights': tensor([1., 1.]), 'shape': (2,)}

    Raises:
        NotPlainError: the data hold something else than plain data and dense tensors.
    """
    tensors: list[Tensor] = []
    try:
        text = json.dumps(_encoded(data, tensors)).encode()
    except (RecursionError, ValueError) as error:
        raise NotPlainError(f"the data are nested too deeply: {error}") from error
    archive = {str(index): tensor for index, tensor in enumerate(tensors)}
    archive[_DATA] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    try:
        body = safetensors.torch.save(archive)
    except (KeyError, ValueError, RuntimeError) as error:
        raise NotPlainError(f"a tensor cannot be saved: {error}") from error
    return _first_line(kind, version) + hashlib.sha256(body).digest() + body


def unpack(kind: str, version: int, content: bytes) -> Any:
    """Decodes the bytes of :func:`pack`.

    Raises:
        FileFormatError: the bytes are not such a file, are damaged, or come from another version.
    """
    name, line = f"torch-nano {kind} ".encode(), _first_line(kind, version)
    if not content.startswith(line):
        if content.startswith(name):
            other = content[len(name) : len(name) + 8].split(b"\n")[0].decode(errors="replace")
            raise FileFormatError(
                f"a {kind} of file format {other}; this version reads format {version}: save it again"
            )
        raise FileFormatError(f"{_opening(content)}; expected a saved {kind}, which begins with {name!r}")
    start = len(line) + _DIGEST_LENGTH
    body = content[start:]
    if hashlib.sha256(body).digest() != content[len(line) : start]:
        raise FileFormatError(
            f"a damaged {kind} ({len(content)} bytes): its checksum is wrong; save or copy it again"
        )
    place = f"a {kind} that this version cannot read"
    with refusing(FileFormatError, place):
        tensors = safetensors.torch.load(body)
        text = tensors.pop(_DATA).numpy().tobytes()
        data = _decoded(parse_json(text, FileFormatError, "its JSON"), tensors)
    if tensors:
        raise FileFormatError(f"{place}: nothing names its tensor {min(tensors)!r}")
    return data


def _opening(content: bytes) -> str:
    """The beginning of another file, for messages."""
    if not content:
        return "an empty file"
    if content.startswith(b"PK"):
        return "a zip archive, as torch.save and numpy.savez write (torch.load and numpy.load read them)"
    if content.startswith(b"NANO"):
        return "an image for a device (tn.device.QemuBoard(Path(...).read_bytes()) runs it)"
    return f"{len(content)} bytes that begin with {content[:12]!r}"


def _first_line(kind: str, version: int) -> bytes:
    return f"torch-nano {kind} {version}\n".encode()


def _encoded(value: Any, tensors: list[Tensor]) -> Any:
    """A value as JSON; its tensors are appended to `tensors`."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, np.generic):
        return _encoded(value.item(), tensors)
    match value:
        case list():
            return [_encoded(item, tensors) for item in value]
        case tuple() if type(value) in (tuple, torch.Size):
            return {"tuple": [_encoded(item, tensors) for item in value]}
        case set() if type(value) is set:
            return {"set": [_encoded(item, tensors) for item in value]}
        case dict() if type(value) in (dict, OrderedDict, Counter):
            kind = {dict: "dict", OrderedDict: "ordered", Counter: "counter"}[type(value)]
            pairs = [[_encoded(key, tensors), _encoded(item, tensors)] for key, item in value.items()]
            # The versions of the modules in a state_dict.
            versions = getattr(value, "_metadata", None)
            return (
                {kind: pairs} if versions is None else {kind: pairs, "versions": _encoded(versions, tensors)}
            )
        case bytes():
            return {"bytes": _added(torch.from_numpy(np.frombuffer(bytearray(value), np.uint8)), tensors)}
        case np.ndarray():
            return {"array": _added(torch.from_numpy(np.ascontiguousarray(value)), tensors)}
        case Tensor() if type(value) in (Tensor, nn.Parameter) and value.layout == torch.strided:
            return {"tensor": _added(value, tensors)}
    raise NotPlainError(f"{shown(value)} is neither plain data nor a dense tensor")


def _added(tensor: Tensor, tensors: list[Tensor]) -> int:
    # A copy: safetensors refuses tensors that share their memory.
    copy = tensor.detach().resolve_conj().resolve_neg().cpu().clone(memory_format=torch.contiguous_format)
    tensors.append(copy)
    return len(tensors) - 1


def _decoded(value: Any, tensors: dict[str, Tensor]) -> Any:
    """The inverse of :func:`_encoded`; removes the tensors that it uses from `tensors`."""
    if not isinstance(value, list | dict):
        return value
    if isinstance(value, list):
        return [_decoded(item, tensors) for item in value]
    versions = value.pop("versions", None)
    if len(value) != 1:
        raise FileFormatError(f"its JSON has {shown(value)}; expected an object with one key")
    ((kind, item),) = value.items()
    if kind in _SEQUENCES:
        return _SEQUENCES[kind]([_decoded(one, tensors) for one in item])
    if kind in _MAPPINGS:
        made = _MAPPINGS[kind]([(_decoded(key, tensors), _decoded(one, tensors)) for key, one in item])
        if versions is not None:
            made._metadata = _decoded(versions, tensors)
        return made
    tensor = tensors.pop(str(item))
    match kind:
        case "tensor":
            return tensor
        case "array":
            return tensor.numpy()
        case "bytes":
            return tensor.numpy().tobytes()
    raise FileFormatError(f"its JSON has a {kind!r}, which this version does not know")

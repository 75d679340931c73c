"""Float models and data that a command line names: `file.py:function`, `.pt2` programs, sample files."""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch_nano.cli.sample_files import read_samples
from torch_nano.errors import InputError, MissingFileError
from torch_nano.files.reading import read_file


def float_model(source: str) -> nn.Module:
    """The module that `file.py:function` returns, or of a program of torch.export in a file `.pt2`.

    Raises:
        InputError: it is neither, there is no such function, or it returns no module.
        MissingFileError: there is no such file.
    """
    if source.endswith(".pt2"):
        return _program(Path(source))
    made = _function(source)()
    if not isinstance(made, nn.Module):
        raise InputError(f"{source} returned {type(made).__name__}; expected an nn.Module")
    return made


def data_of(source: str, names: tuple[str, ...] = ()) -> Any:
    """The data of a sample file, (x, y) or x, as tensors, or what `file.py:function` returns.

    Args:
        names: the inputs of a model of several, each an array of the `.npz` file.

    Raises:
        InputError: it is neither, or there is no such function.
        SampleFileError: the file has another format, or is damaged.
        OSError: it cannot be read.
    """
    if ".py:" in source:
        return _function(source)()
    table = read_samples(Path(source), names)
    inputs = {name: _tensor(array) for name, array in table.inputs.items()}
    x = inputs if names else next(iter(inputs.values()))
    labels = table.labels
    return x if labels is None or labels.dtype == object else (x, torch.as_tensor(labels))


def _tensor(array: Any) -> torch.Tensor:
    tensor = torch.as_tensor(array)
    return tensor.float() if tensor.is_floating_point() else tensor


def _program(path: Path) -> nn.Module:
    read_file(path)  # a typed error that names the file
    # torch.export also logs, with a traceback, what it raises.
    log = logging.getLogger("torch.export")
    log.disabled = True
    try:
        model = torch.export.load(path).module(check_guards=False)
        # A program has no modes, and refuses to be asked for one; conversion asks for evaluation.
        model.train = lambda mode=True: model  # type: ignore[method-assign]
        return model
    except Exception as error:
        raise InputError(
            f"{path} is no program that this torch ({torch.__version__}) reads ({error}); expected a file of "
            "torch.export.save"
        ) from error
    finally:
        log.disabled = False


def _function(source: str) -> Callable[[], Any]:
    """The function of `file.py:function`; its folder is where the file's own imports are found."""
    name, colon, function = source.rpartition(":")
    if not colon or not name.endswith(".py") or not function:
        raise InputError(f"{source!r} is no source; expected file.py:function, or a file .pt2")
    path = Path(name)
    if not path.is_file():
        raise MissingFileError(f"there is no file {path}; expected file.py:function")
    specification = importlib.util.spec_from_file_location(path.stem, path)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[path.stem] = module  # dataclasses and pickles look it up there
    sys.path.insert(0, str(path.parent.resolve()))
    specification.loader.exec_module(module)
    made = getattr(module, function, None)
    if not callable(made):
        names = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise InputError(f"{path} has no function {function!r}; it has {', '.join(names) or 'none'}")
    return made  # type: ignore[no-any-return]

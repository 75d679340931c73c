"""States of all random number generators that a training may use."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Generator
from torch.utils.data import DataLoader


def generators_of(data: Iterable[object] | None) -> list[Generator]:
    """A loader's own generators, which are not part of torch's global state."""
    if not isinstance(data, DataLoader):
        return []
    inner = getattr(data.batch_sampler, "sampler", None)
    owners = (data, data.sampler, data.batch_sampler, inner)
    found = [getattr(owner, "generator", None) for owner in owners]
    return list(
        {id(generator): generator for generator in found if isinstance(generator, Generator)}.values()
    )


def capture(device: torch.device, generators: Sequence[Generator]) -> dict[str, Any]:
    """The states of torch (CPU and device), Python, numpy and these generators, as numbers and tensors."""
    name, keys, *rest = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "device": None if device.type == "cpu" else _module(device).get_rng_state(*_arguments(device)),
        "python": random.getstate(),
        "numpy": (str(name), torch.from_numpy(np.asarray(keys).astype(np.int64)), *map(float, rest)),
        "generators": [generator.get_state() for generator in generators],
    }


def restore(state: dict[str, Any], device: torch.device, generators: Sequence[Generator]) -> None:
    """Restores captured states."""
    torch.set_rng_state(state["torch"])
    if state["device"] is not None:
        _module(device).set_rng_state(state["device"], *_arguments(device))
    random.setstate(state["python"])
    name, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), int(position), int(has_gauss), gauss))
    for generator, own in zip(generators, state["generators"], strict=True):
        generator.set_state(own)


@contextmanager
def unchanged(device: torch.device, generators: Sequence[Generator] = ()) -> Iterator[None]:
    """Restores all generators at the end: numbers drawn inside have no effect outside.

    >>> with unchanged(torch.device("cpu")):
    ...     first = torch.rand(3)
    >>> torch.equal(first, torch.rand(3))
    True
    """
    state = capture(device, generators)
    try:
        yield
    finally:
        restore(state, device, generators)


@contextmanager
def seeded(seed: int | None, device: torch.device) -> Iterator[None]:
    """Seeds all generators inside, and restores them at the end. None: no effect."""
    if seed is None:
        yield
        return
    with unchanged(device):
        torch.default_generator.manual_seed(seed)
        if device.type != "cpu":
            with _module(device).device(*_arguments(device)) if _arguments(device) else nullcontext():
                _module(device).manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        yield


def _module(device: torch.device) -> Any:
    """torch's module for this type of device, such as torch.cuda."""
    return torch.get_device_module(device)


def _arguments(device: torch.device) -> tuple[torch.device, ...]:
    """The device argument of a module's functions; torch.mps, with one device, has none."""
    return () if device.type == "mps" else (device,)

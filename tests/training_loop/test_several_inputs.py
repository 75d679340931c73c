"""`fit` trains models of several inputs, by position and by name."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch_nano as tn
from torch import Tensor, nn
from torch.utils.data import DataLoader

A = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
B = torch.randn(40, 2, generator=torch.Generator().manual_seed(1))
Y = (A[:, 0] + B[:, 1] > 0).long()


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 2), nn.Linear(2, 2)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        y: Tensor = self.first(a) + self.second(b)
        return y


def samples(names: bool) -> list[tuple[Any, Tensor]]:
    return [({"b": b, "a": a} if names else (a, b), y) for a, b, y in zip(A, B, Y, strict=True)]


DATA: dict[str, Any] = {
    "tensors": ((A, B), Y),
    "tensors by name": ({"b": B, "a": A}, Y),
    "loader": DataLoader(samples(names=False), batch_size=10),  # type: ignore[arg-type]
    "loader, by name": DataLoader(samples(names=True), batch_size=10),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("quantized", [False, True])
def test_a_model_of_several_inputs_learns(name: str, quantized: bool) -> None:
    torch.manual_seed(0)
    model: nn.Module = tn.prepare_qat(Two(), (A, B)) if quantized else Two()
    history = tn.fit(model, DATA[name], DATA[name], epochs=30, learning_rate=0.05, progress=False)
    assert history["val_accuracy"][-1] > 0.9


def test_a_model_of_one_argument_gets_the_pair_itself() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.two = Two()

        def forward(self, pair: tuple[Tensor, Tensor]) -> Tensor:
            y: Tensor = self.two(*pair)
            return y

    history = tn.fit(Pair(), ((A, B), Y), epochs=20, learning_rate=0.05, progress=False)
    assert history["loss"][-1] < history["loss"][0]


def test_inputs_of_other_lengths_are_refused() -> None:
    with pytest.raises(tn.errors.InputError, match=r"\[40, 39, 40\] samples"):
        tn.fit(Two(), ((A, B[1:]), Y), epochs=1, progress=False)

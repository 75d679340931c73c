"""An example of the inputs is taken from the data where it is not given."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch_nano as tn
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

GENERATOR = torch.Generator().manual_seed(0)
X, Y = torch.randn(64, 4, generator=GENERATOR), torch.randint(3, (64,), generator=GENERATOR)


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 3)

    def forward(self, motion: Tensor, sound: Tensor) -> Tensor:
        result: Tensor = self.linear(torch.cat([motion, sound], 1))
        return result


ONE: dict[str, Callable[[], Any]] = {
    "tensor": lambda: X,
    "array": X.numpy,
    "pair": lambda: (X, Y),
    "batches": lambda: [X[:32], X[32:]],
    "pairs": lambda: [(X[:32], Y[:32]), (X[32:], Y[32:])],
    "dataset": lambda: TensorDataset(X, Y),
    "loader": lambda: DataLoader(TensorDataset(X, Y), batch_size=16),
    "dict": lambda: {"input": X, "label": Y},
}
SEVERAL: dict[str, Callable[[], Any]] = {
    "tensors": lambda: (X, X + 1),
    "and labels": lambda: (X, X + 1, Y),
    "a group and labels": lambda: ((X, X + 1), Y),
    "dict": lambda: {"sound": X + 1, "motion": X, "label": Y},
    "loader": lambda: DataLoader(TensorDataset(X, X + 1, Y), batch_size=16),
}


@pytest.mark.parametrize("make", ONE.values(), ids=ONE)
def test_of_one_input(make: Callable[[], Any]) -> None:
    model = nn.Linear(4, 3)
    expected = tn.to_nano(model, X, calibrate=X)
    assert torch.equal(tn.to_nano(model, calibrate=make())(X), expected(X))
    trained = tn.prepare_qat(model, X, calibrate=X).eval()
    assert torch.equal(tn.prepare_qat(model, calibrate=make()).eval()(X), trained(X))


@pytest.mark.parametrize("make", SEVERAL.values(), ids=SEVERAL)
def test_of_several_inputs(make: Callable[[], Any]) -> None:
    model = Two()
    expected = tn.to_nano(model, (X, X), calibrate=(X, X + 1))
    assert torch.equal(tn.to_nano(model, calibrate=make())(X, X + 1), expected(X, X + 1))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (iter([X]), "which can be read only once; give an example= beside it"),
        ([], "the data is empty; expected at least one batch"),
        (7, "the data is 7; expected a tensor or an iterable of batches"),
        ({"other": X}, "has no inputs for Linear, whose forward takes input"),
        ([("a", "b")], "has no inputs for Linear"),
    ],
)
def test_data_without_an_example_is_refused(data: Any, says: str) -> None:
    with pytest.raises(tn.errors.InputError, match=says):
        tn.to_nano(nn.Linear(4, 3), calibrate=data)


def test_without_data_there_is_none() -> None:
    with pytest.raises(tn.errors.InputError, match="to_nano needs calibrate="):
        tn.to_nano(nn.Linear(4, 3), X)
    with pytest.raises(tn.errors.InputError, match=r"prepare_qat needs an example of .* or calibrate="):
        tn.prepare_qat(nn.Linear(4, 3))

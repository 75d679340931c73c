"""Data in batches that bound the memory of a run."""

import pytest
import torch
import torch_nano as tn
from networks import ConvNet1d, inputs, make
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torch_nano.calibration import batches
from torch_nano.calibration.batches import Batches
from torch_nano.capture.capture import capture
from torch_nano.ir.graph import Graph

X = inputs((3, 40), 64)


@pytest.fixture(scope="module")
def graph() -> Graph:
    return capture(make(ConvNet1d), X[:2])


def test_batches_are_as_large_as_the_values_of_a_run_allow(
    graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = list(Batches(graph, X))
    monkeypatch.setattr(batches, "_NUMBERS", 10_000)
    parts = list(Batches(graph, X))
    halves = list(Batches(graph, X, runs=2))
    assert [len(batch) for batch in whole] == [64]
    assert 64 > len(parts[0]) > len(halves[0]) > 1
    for found in (parts, halves):
        assert torch.equal(torch.cat([batch.inputs[0] for batch in found]), X)


def test_the_number_of_samples_is_known_where_the_data_knows_it(graph: Graph) -> None:
    labels = torch.zeros(64)
    dataset = TensorDataset(X, labels)
    for data in (X, (X, labels), {"x": X}, dataset, DataLoader(dataset, 7)):
        assert Batches(graph, data).samples == 64
    for data in (((X,), labels), ({"x": X}, labels)):
        assert Batches(graph, data).samples == 64
    for data in (iter([X]), [X, X]):
        assert Batches(graph, data).samples is None


def test_parts_are_verified_like_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(nn.Conv1d(3, 4, 5), nn.ReLU())
    nano = tn.to_nano(model, X[:2], calibrate=X)
    whole = nano.verify("host", X)
    monkeypatch.setattr(batches, "_NUMBERS", 1_000)
    parts = nano.verify("host", X)
    assert whole and parts == whole and whole.inputs == 64

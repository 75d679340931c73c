import random

import pytest
import torch
import torch_nano as tn
from networks import NETWORKS, inputs, make
from torch import nn


@pytest.fixture(scope="module")
def saved(nano, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "model.tnano"
    nano.save(path)
    return path.read_bytes()


@pytest.mark.parametrize(("network", "shape"), NETWORKS)
def test_a_loaded_model_is_the_saved_one(network, shape, tmp_path):
    x = inputs(shape, 32)
    nano = tn.to_nano(make(network), x, calibrate=x)
    nano.save(tmp_path / "model")
    loaded = tn.load(str(tmp_path / "model"))
    assert loaded.image == nano.image and torch.equal(loaded(x), nano(x))
    assert str(loaded.summary()) == str(nano.summary())
    assert str(loaded.graph.graph) == str(nano.graph.graph)
    assert loaded.verify("host", x)
    loaded.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "model").read_bytes()


def test_operators_with_attributes_are_restored(tmp_path):
    model = nn.Sequential(
        nn.Conv1d(3, 4, 3), nn.ELU(0.5), nn.MaxPool1d(3, 2, 1), nn.Hardtanh(-1, 2), nn.Softmax(1)
    )
    x = inputs((3, 20), 32)
    nano = tn.to_nano(model, x, calibrate=x)
    nano.save(tmp_path / "model")
    assert tn.load(tmp_path / "model").verify("host", x)


def test_values_that_a_pass_adds_are_restored(tmp_path):
    """A batch norm without a layer in front of it becomes a convolution between two reshapes."""
    x = inputs((4,), 32)
    nano = tn.to_nano(nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 3)).eval(), x, calibrate=x)
    nano.save(tmp_path / "model")
    assert torch.equal(tn.load(tmp_path / "model")(x), nano(x))


def test_the_heads_state_is_saved_too(tmp_path):
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    x = inputs((4,), 32)
    nano = tn.to_nano(model, x, calibrate=x, head="2")
    nano.head.fit(nano.features_int8(x), torch.arange(32) % 3, epochs=2)
    nano.save(tmp_path / "model")
    loaded = tn.load(tmp_path / "model")
    assert loaded.head.state() == nano.head.state() and loaded.head_path == "2"
    assert torch.equal(loaded(x), nano(x))


def test_a_damaged_file_is_refused(saved, tmp_path):
    path = tmp_path / "model"
    generator = random.Random(0)
    for _ in range(300):
        damaged = bytearray(saved)
        if generator.random() < 0.2:
            damaged = damaged[: generator.randrange(len(damaged))]
        else:
            damaged[generator.randrange(len(damaged))] ^= 1 << generator.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(tn.errors.FileFormatError, match=str(path)):
            tn.load(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "an empty file; expected a saved model"),
        (b"PK\x03\x04", "expected a saved model"),
        (b"torch-nano model 1\n rest", "file format 1; this version reads format 11"),
    ],
)
def test_other_files_are_refused(content, reason, tmp_path):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(tn.errors.FileFormatError, match=reason):
        tn.load(tmp_path / "file")


def test_an_image_is_not_a_saved_model(nano, tmp_path):
    (tmp_path / "model.nano").write_bytes(nano.image)
    with pytest.raises(tn.errors.FileFormatError, match="expected a saved model"):
        tn.load(tmp_path / "model.nano")


def test_saving_replaces_the_file_atomically(nano, tmp_path):
    path = tmp_path / "model"
    path.write_bytes(b"old")
    nano.save(path)
    assert tn.load(path).image == nano.image
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("path", [5, None, b"model", "a\0b"])
def test_a_wrong_path_is_refused(path, nano):
    for act in (tn.load, nano.save):
        with pytest.raises(tn.errors.InputError, match=r"path is .*; expected a path"):
            act(path)


def test_a_missing_file_or_folder_is_named_with_what_to_do(tmp_path):
    with pytest.raises(tn.errors.MissingFileError, match="no/such/file: there is no such file") as caught:
        tn.load("no/such/file")
    assert isinstance(caught.value, FileNotFoundError)
    nano = tn.to_nano(nn.Linear(3, 2), torch.ones(1, 3), calibrate=torch.eye(3), check=False)
    with pytest.raises(
        tn.errors.MissingFileError, match=r"there is no folder .*missing .*mkdir\(parents=True\)"
    ):
        nano.save(tmp_path / "missing" / "model.nano")


def test_another_kind_of_file_is_named(tmp_path):
    torch.save({}, tmp_path / "state.pt")
    with pytest.raises(tn.errors.FileFormatError, match=r"state.pt: a zip archive, as torch\.save"):
        tn.load(tmp_path / "state.pt")

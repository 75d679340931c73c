"""An image is checked once, and what was checked is shared: by heads, devices, copies and threads."""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import torch_nano as tn
from images import one_layer
from torch import Tensor, nn
from torch_nano import _native
from torch_nano.arguments import image_of


@pytest.fixture(scope="module")
def with_head() -> tn.NanoModule:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3))
    return tn.to_nano(model, torch.randn(64, 6), calibrate=torch.randn(64, 6), head=tn.heads.LDA())


def inputs(count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-128, 128, (count, 6), dtype=torch.int8, generator=generator)


def features(nano: tn.NanoModule, x: Tensor) -> bytes:
    return nano.features_int8(x).numpy().tobytes()


def test_all_that_use_an_image_share_it(with_head: tn.NanoModule) -> None:
    head = with_head.head
    assert head is not None and head._model is image_of(with_head)
    with tn.Device("sim", nano=with_head) as device:
        assert device._image is head._model
    again = _native.Model(head._model)
    # The bytes are those that were given: none are copied.
    assert again.image is with_head.image is head._model.image
    assert tn.heads.LdaHead(head._model)._model is head._model
    assert _native.Head(head._model).state() == _native.Head(with_head.image).state()


@pytest.mark.parametrize("make", [copy.copy, copy.deepcopy])
def test_copies_share_it(with_head: tn.NanoModule, make: object) -> None:
    other = make(with_head)  # type: ignore[operator]
    assert image_of(other) is image_of(with_head)
    assert features(other, inputs(5)) == features(with_head, inputs(5))


def test_a_deep_copy_has_a_head_of_its_own(with_head: tn.NanoModule) -> None:
    other = copy.deepcopy(with_head)
    assert isinstance(other.head, tn.heads.LdaHead) and with_head.head is not None
    before = with_head.head.state()
    other.head.fit(other.features_int8(inputs(9)), torch.arange(9) % 3)
    assert with_head.head.state() == before != other.head.state()


@pytest.mark.parametrize("protocol", range(3, pickle.HIGHEST_PROTOCOL + 1))
def test_unpickling_checks_it_again(with_head: tn.NanoModule, protocol: int) -> None:
    content = pickle.dumps(with_head, protocol)
    other = pickle.loads(content)
    assert other.image == with_head.image and other.id == with_head.id
    assert other.head._model is image_of(other)
    assert other.head.state() == with_head.head.state()  # type: ignore[union-attr]
    assert features(other, inputs(5)) == features(with_head, inputs(5))
    # The image is in it once.
    assert content.count(with_head.image[:64]) == 1
    damaged = bytearray(content)
    damaged[content.index(with_head.image) + len(with_head.image) // 2] ^= 1
    with pytest.raises(_native.NanoError, match="its checksum is"):
        pickle.loads(bytes(damaged))


def test_the_state_dict_is_that_of_the_head(with_head: tn.NanoModule) -> None:
    assert list(with_head.state_dict()) == ["head._extra_state"]


def _in_a_process(nano: tn.NanoModule, seed: int) -> tuple[bytes, bytes]:
    assert isinstance(nano.head, tn.heads.LdaHead)
    nano.head.fit(nano.features_int8(inputs(9, seed)), torch.arange(9) % 3)
    return features(nano, inputs(100, seed)), nano.head.state()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_give_the_same_bytes(with_head: tn.NanoModule, method: str) -> None:
    before = with_head.head.state()  # type: ignore[union-attr]
    with multiprocessing.get_context(method).Pool(2) as pool:
        found = pool.starmap(_in_a_process, [(with_head, seed) for seed in range(4)])
    assert with_head.head.state() == before  # type: ignore[union-attr]
    assert found == [_in_a_process(copy.deepcopy(with_head), seed) for seed in range(4)]


def test_a_forked_process_goes_on_with_it(with_head: tn.NanoModule) -> None:
    expected = features(with_head, inputs(100))
    child = os.fork()
    if child == 0:
        os._exit(0 if features(with_head, inputs(100)) == expected else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_threads_run_it_at_once(with_head: tn.NanoModule) -> None:
    """Each with its own samples, in batches that are themselves run on threads; each has its own arena."""
    model, threads, runs = image_of(with_head), 8, 40
    batches = [inputs(1 + 7 * thread, thread).numpy() for thread in range(threads)]
    expected = [[model.run([sample[None]])[0].tobytes() for sample in batch] for batch in batches]
    barrier = threading.Barrier(threads)

    def run(thread: int) -> list[list[bytes]]:
        barrier.wait()
        return [[row.tobytes() for row in model.run([batches[thread]])[0]] for _ in range(runs)]

    with ThreadPoolExecutor(threads) as pool:
        found = list(pool.map(run, range(threads)))
    assert found == [[rows] * runs for rows in expected]


def test_a_sample_does_not_see_the_others(with_head: tn.NanoModule) -> None:
    x = inputs(50)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(1))
    rows = with_head.features_int8(x)
    assert torch.equal(with_head.features_int8(x[order]), rows[order])
    for index in range(50):
        assert torch.equal(with_head.features_int8(x[index : index + 1]), rows[index : index + 1])
    assert with_head.features_int8(x[:0]).shape == (0, rows.shape[1])


def test_bytes_that_are_not_an_image_are_refused() -> None:
    image = one_layer()
    for use in (_native.Model, _native.Head, _native.SimulatedDevice):
        with pytest.raises(_native.NanoError):
            use(image[:-1])
        with pytest.raises(TypeError):
            use(5)
    with pytest.raises(_native.NanoError, match="no trainable head"):
        _native.Head(_native.Model(image))


def test_a_refused_request_leaves_the_head_as_it_was(with_head: tn.NanoModule) -> None:
    head = _native.Head(image_of(with_head))
    head.learn_all(with_head.features_int8(inputs(4)).numpy(), np.array([0, 1, 2, 0]))
    before = head.state()
    with pytest.raises(_native.NanoError, match="label 3 is not below"):
        head.learn_all(with_head.features_int8(inputs(3)).numpy(), np.array([0, 1, 3]))
    assert head.state() == before
    with pytest.raises(_native.NanoError, match="has length"):
        head.aggregate([(before, 1), (before[1:], 1)], leave_out=False)
    assert head.state() == before

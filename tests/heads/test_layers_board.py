"""The last layers on the emulated rv32imc board, through the ordinary client: 10,000 steps to the byte."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch_nano as tn
from reference.layers_head import LayersHead
from torch import nn
from torch_nano import _native

from .random_layers import image, largest_rate, random_layers, random_network, rates, width_of
from .random_samples import random_features


@pytest.mark.parametrize("seed", range(5))
def test_2_000_random_steps_are_those_of_the_reference(seed: int) -> None:
    rng = np.random.default_rng(1000 + seed)
    scale, zero_point = float(np.float32(0.05)), -3
    layers = random_layers(rng, scale, 1.0)
    rate = largest_rate(layers, scale, zero_point) * 2.0 ** -float(rng.integers(0, 10))
    content = image(layers, scale=scale, zero_point=zero_point, lr=rate, halve_every=7)
    twin, width = _native.Head(content), width_of(layers)
    features, labels = [], []
    with tn.Device(tn.device.QemuBoard(content)) as device:
        for count in range(1, 21):
            for _ in range(5):
                features.append(random_features(rng, width, zero_point))
                labels.append(int(rng.integers(len(layers[-1].weight))))
                device.learn(features[-1], labels[-1])
            epochs = 10 if count < 4 else 2
            device.train(epochs)
            twin.train(np.stack(features), np.array(labels), epochs)
            assert device.head_state() == twin.state(), f"seed {seed}, after {count} trainings"
        logits = device.predict(features[-1]).logits.tolist()
        assert logits == twin.logits(features[-1][None])[0].tolist()


@pytest.mark.parametrize("seed", range(8))
def test_convolutions_pools_and_sums_learn_on_the_board_as_on_the_host(seed: int) -> None:
    rng = np.random.default_rng(2000 + seed)
    scale, zero_point = float(np.float32(0.05)), -3
    layers = random_network(rng, scale, 0.7)
    rate = rates(layers, scale, zero_point)[0]
    content = image(layers, scale=scale, zero_point=zero_point, lr=rate, halve_every=3)
    twin = _native.Head(content)
    features = np.stack([random_features(rng, width_of(layers), zero_point) for _ in range(12)])
    labels = rng.integers(len(layers[-1].weight), size=12)
    start = twin.state()
    with tn.Device(tn.device.QemuBoard(content)) as device:
        for sample, label in zip(features, labels.tolist(), strict=True):
            device.learn(sample, label)
        device.train(8)
        twin.train(features, labels, 8)
        assert device.head_state() == twin.state() != start, f"seed {seed}"
        logits = device.predict(features[-1]).logits.tolist()
        assert logits == twin.logits(features[-1][None])[0].tolist(), f"seed {seed}"


def test_the_board_is_the_reference() -> None:
    """Against Python's integers directly, without nano-core on this machine: a ring of one sample."""
    rng = np.random.default_rng(7)
    scale, zero_point = float(np.float32(0.05)), -3
    layers = random_layers(rng, scale, 0.5)
    content = image(layers, scale=scale, zero_point=zero_point, lr=0.01)
    twin = LayersHead(layers, scale=scale, zero_point=zero_point, lr=0.01)
    features = random_features(rng, width_of(layers), zero_point)
    with tn.Device(tn.device.QemuBoard(content)) as device:
        device.learn(features, 0)
        device.train(50)
        for _ in range(50):
            # An epoch draws its order: twice.
            twin.random.next()
            twin.random.next()
            twin.step(features, 0)
        assert device.head_state() == twin.state()


def test_a_head_goes_to_the_board_and_back_into_the_float_model() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    x, labels = torch.randn(60, 4), torch.arange(60) % 3
    x[:, 0] += labels * 3
    nano = tn.to_nano(model, x, calibrate=x, train_last=2, learning_rate=0.05)
    assert nano.head is not None
    with tn.Device(tn.device.QemuBoard(nano.image)) as device:
        for sample, label in zip(nano.device_inputs(x), labels.tolist(), strict=True):
            device.learn(sample, label)
        device.train(10)
        nano.head.load(device.head_state())
        board = [device.predict(sample).logits.tolist() for sample in nano.device_inputs(x[:10])]
    assert nano.forward_int8(nano.quantize_input(x[:10])).tolist() == board
    nano.load_head_into(model)
    with torch.no_grad():
        agreement = (model(x).argmax(1) == nano(x).argmax(1)).float().mean()
    assert agreement > 0.9


@pytest.mark.parametrize("port", ["sim", "qemu"])
def test_a_head_whose_copy_is_in_flash_learns_and_takes_back(port: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 64), nn.ReLU(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    x, labels = torch.randn(20, 12), torch.arange(20) % 10
    nano = tn.to_nano(model, x, calibrate=x, train_last=2, learning_rate=0.02, check=False)
    assert nano.head is not None
    start = nano.head.state()
    with tn.Device(port, nano=nano) as device:
        for sample, label in zip(nano.device_inputs(x), labels.tolist(), strict=True):
            device.learn(sample, label)
        device.train(3)
        nano.head.fit(nano.features_int8(x), labels, epochs=3)
        learnt = nano.head.state()
        assert device.head_state() == learnt != start
        device.undo()
        assert device.head_state() == start
        device.write_head(learnt)
        assert device.head_state() == learnt
        device.undo()
        assert device.head_state() == start

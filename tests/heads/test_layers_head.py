"""nano-core's LayersHead against its definition in Python integers: every byte after every step."""

from __future__ import annotations

import numpy as np
import pytest

from .random_layers import largest_rate, random_layers, random_network, rates, twins, width_of
from .random_samples import random_features, random_target


@pytest.mark.parametrize("seed", range(100))
def test_10_000_random_steps_are_those_of_the_reference(seed: int) -> None:
    """A hundred heads, a hundred steps each; rates up to the largest."""
    rng = np.random.default_rng(seed)
    scale, zero_point = 10 ** rng.uniform(-2.5, 0.5), int(rng.choice([-128, 127, 0, rng.integers(-128, 128)]))
    layers = random_layers(rng, scale, 10 ** rng.uniform(-1, 0.5))
    rate = largest_rate(layers, scale, zero_point) * 2.0 ** -float(rng.integers(0, 14))
    native, twin = twins(layers, scale, zero_point, rate)
    start = native.state()
    assert start == twin.state(), f"seed {seed}"
    classes, width = len(layers[-1].weight), width_of(layers)
    for step in range(100):
        q, label = random_features(rng, width, zero_point), int(rng.integers(classes))
        assert native.logits(q[None])[0].tolist() == twin.scores(q).tolist(), f"seed {seed}, step {step}"
        native.step(q, label)
        twin.step(q, label)
        assert native.state() == twin.state(), f"seed {seed}, step {step}"
    # One class is always right: nothing to learn.
    assert (native.state() != start) == (classes > 1)


@pytest.mark.parametrize("loss", ["cross_entropy", "binary", "squared"])
@pytest.mark.parametrize("seed", range(34))
def test_10_000_steps_with_all_settings_are_those_of_the_reference(loss: str, seed: int) -> None:
    """Of 102 heads two trainings, 100 steps in all: every loss, weights of classes, frozen rows, halvings."""
    rng = np.random.default_rng(seed)
    scale, zero_point = 10 ** rng.uniform(-2.5, 0.5), int(rng.choice([-128, 127, 0, rng.integers(-128, 128)]))
    classes = 1 if loss == "squared" else int(rng.integers(1, 9))
    layers = random_layers(rng, scale, 10 ** rng.uniform(-1, 0.5), classes)
    rate = largest_rate(layers, scale, zero_point, loss) * 2.0 ** -float(rng.integers(0, 14))
    native, twin = twins(
        *(layers, scale, zero_point, rate),
        loss=loss,
        halve_every=[0, 1, 3][seed % 3],
        half_life=[0, 2, 5][seed % 3],
        class_weights=rng.uniform(0.01, 5, classes).tolist() if seed % 2 and loss != "squared" else [],
        frozen=np.flatnonzero(rng.random(classes) < 0.2).tolist(),
    )
    width = width_of(layers)
    for epochs in (3, 7):
        features = np.stack([random_features(rng, width, zero_point) for _ in range(10)])
        targets = [random_target(rng, loss, classes) for _ in features]
        native.train(features, np.array(targets), epochs)
        twin.train(features, targets, epochs)
        assert native.state() == twin.state(), f"seed {seed}, {epochs} epochs"
        logits = native.logits(features).tolist()
        assert logits == [twin.scores(q).tolist() for q in features], f"seed {seed}"


@pytest.mark.parametrize("seed", range(150))
def test_steps_of_convolutions_pools_and_sums_are_those_of_the_reference(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scale, zero_point = 10 ** rng.uniform(-2.5, 0.5), int(rng.choice([-128, 127, 0, rng.integers(-128, 128)]))
    layers = random_network(rng, scale, 10 ** rng.uniform(-0.5, 0.3))
    rate = float(rng.choice(rates(layers, scale, zero_point)))
    native, twin = twins(layers, scale, zero_point, rate)
    assert native.state() == twin.state(), f"seed {seed}"
    for step in range(40):
        q = random_features(rng, width_of(layers), zero_point)
        label = int(rng.integers(len(layers[-1].weight)))
        assert native.logits(q[None])[0].tolist() == twin.scores(q).tolist(), f"seed {seed}, step {step}"
        native.step(q, label)
        twin.step(q, label)
        assert native.state() == twin.state(), f"seed {seed}, step {step}"


def test_the_random_networks_have_every_kind_of_layer() -> None:
    """With errors on both ways around a sum, weights that stay, and layers that learn."""
    seen, learnt = set[str](), 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        layers = random_network(rng, 0.1, 10 ** rng.uniform(-1.7, 0.5))
        found = rates(layers, 0.1, -128)
        if not found:
            continue
        _, twin = twins(layers, 0.1, -128, found[0])
        start = [layer.stored for layer in twin.layers if layer.learns and layer.has_weights]
        for _ in range(10):
            q = random_features(rng, width_of(layers), -128)
            twin.step(q, int(rng.integers(len(layers[-1].weight))))
        after = [layer.stored for layer in twin.layers if layer.learns and layer.has_weights]
        learnt += not any(map(np.array_equal, start, after))
        for layer in twin.layers:
            seen |= {layer.operation, *(["stride"] if layer.stride != (1, 1) else [])}
            seen |= {"padding"} if any(layer.padding) else set()
            seen |= {"kept"} if layer.has_weights and not layer.learns else set()
            seen |= {"halved"} if layer.exponent else set()
            if layer.operation == "add":
                seen.add("sum of features" if layer.other == 0 else f"skip {np.sign(layer.skip)}")
    kinds = {
        "convolution",
        "depthwise",
        "max_pool",
        "average_pool",
        "add",
        "stride",
        "padding",
        "kept",
        "halved",
    }
    assert kinds | {"sum of features", "skip 1", "skip 0", "skip -1"} == seen
    assert learnt > 75


def test_the_random_heads_meet_every_rule() -> None:
    """Halvings, outputs at their upper end, weights at their bound: the steps above see them all."""
    seen = {"halved": 0, "ends": 0, "bound": 0, "several positions": 0}
    for seed in range(30):
        rng = np.random.default_rng(seed)
        layers = random_layers(rng, 0.1, 1.0)
        _, twin = twins(layers, 0.1, -128, largest_rate(layers, 0.1, -128))
        width = width_of(layers)
        for _ in range(60):
            q = random_features(rng, width, -128)
            twin.step(q, int(rng.integers(len(layers[-1].weight))))
            outputs = twin.forward(q)[1]
            seen["ends"] += any(
                (value == layer.ends[1]).any() for value, layer in zip(outputs, twin.layers, strict=False)
            )
        seen["halved"] += any(layer.exponent for layer in twin.layers)
        seen["bound"] += any(np.abs(layer.stored - 128).max() == 32639 for layer in twin.layers)
        seen["several positions"] += layers[0].positions > 1
    assert all(seen.values()), seen

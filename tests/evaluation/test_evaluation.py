"""Evaluations: the same figures as scikit-learn's, and the same predictions of model, head and device."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
import torch_nano as tn
from matplotlib import pyplot
from sklearn import metrics
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

NAMES = ["rest", "walk", "run"]


def samples(count: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(3, (count,), generator=generator)
    return torch.randn(count, 6, generator=generator) + 2 * torch.eye(3).repeat(1, 2)[y], y


X, Y = samples(200, 0)


def make_model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).eval()


@pytest.fixture(scope="module")
def model() -> nn.Sequential:
    made = make_model()
    tn.fit(made, (X, Y), epochs=20, learning_rate=0.02, progress=False, seed=0)
    return made


@pytest.fixture(scope="module")
def nano(model: nn.Sequential) -> tn.NanoModule:
    return tn.to_nano(model, calibrate=X, labels=NAMES, head=None)


@pytest.fixture(scope="module")
def learnt(model: nn.Sequential) -> tn.NanoModule:
    made = tn.to_nano(model, calibrate=X, labels=NAMES, head=tn.heads.LDA())
    made.head.fit(made.features_int8(X[:60]), Y[:60])
    return made


def test_figures_are_those_of_scikit_learn(nano: tn.NanoModule, model: nn.Sequential) -> None:
    made = nano.evaluate((X, Y), model)
    predicted = nano(X).argmax(1)
    assert np.array_equal(made.predicted, predicted) and np.array_equal(made.truth, Y)
    assert made.accuracy == metrics.accuracy_score(Y, predicted)
    assert made.balanced_accuracy == pytest.approx(metrics.balanced_accuracy_score(Y, predicted), abs=1e-12)
    assert np.array_equal(made.confusion, metrics.confusion_matrix(Y, predicted))
    assert made.float_accuracy == metrics.accuracy_score(Y, model(X).argmax(1))
    assert made.agreement == metrics.accuracy_score(predicted, model(X).argmax(1))
    report = metrics.classification_report(Y, predicted, target_names=NAMES, output_dict=True)
    for each in made.classes:
        expected = report[each.name]
        found = [each.precision, each.recall, each.f1, each.samples]
        wanted = [expected[name] for name in ("precision", "recall", "f1-score", "support")]
        assert found == pytest.approx(wanted, abs=1e-12)


def test_worst_samples_are_those_whose_class_is_farthest_behind(
    nano: tn.NanoModule, model: nn.Sequential
) -> None:
    made = nano.evaluate((X, Y), model)
    outputs = nano(X).double()
    own = outputs.gather(1, Y[:, None])[:, 0]
    margins = own - outputs.scatter(1, Y[:, None], -torch.inf).amax(1)
    assert np.array_equal(made.margins, margins)
    order = margins.argsort(stable=True)[:7]
    worst = made.worst(7)
    assert [each.index for each in worst] == order.tolist()
    assert worst[0].truth == NAMES[Y[order[0]]] and worst[0].predicted != worst[0].truth
    assert worst[0].float_predicted == NAMES[model(X)[order[0]].argmax()]


@pytest.mark.parametrize("target", ["sim", "qemu"])
def test_model_head_and_device_predict_the_same(learnt: tn.NanoModule, target: str) -> None:
    x, y = samples(40, 1)
    names = [NAMES[label] for label in y]
    made = learnt.evaluate((x, names))
    of_head = learnt.head.evaluate(learnt.features_int8(x), names)
    with tn.Device(target, nano=learnt) as device:
        device.write_head(learnt.head)
        evaluations = [
            of_head,
            device.evaluate(x, names),
            device.evaluate(DataLoader(TensorDataset(x, y), 16)),
        ]
    for other in evaluations:
        assert np.array_equal(other.truth, made.truth) and other.labels == tuple(NAMES)
        assert np.array_equal(other.predicted, made.predicted) and np.array_equal(other.margins, made.margins)
    assert made.accuracy > 0.7


def test_a_class_that_was_added_is_evaluated(model: nn.Sequential) -> None:
    nano = tn.to_nano(model, calibrate=X, labels=NAMES, head=tn.heads.LDA(capacity=4))
    with tn.Device("sim", nano=nano) as device:
        device.fit(X[:60], Y[:60])
        device.add_class("jump")
        device.fit(X[:20] + 9, ["jump"] * 20)
        made = device.evaluate(X[20:30] + 9, ["jump"] * 10)
        device.head()
    assert made.labels == (*NAMES, "jump") and made.accuracy == 1
    assert made.classes[0].recall is None and made.classes[0].samples == 0
    assert nano.evaluate((X[20:30] + 9, torch.full((10,), 3))).labels == (*NAMES, "3")


def test_rejected_samples_are_counted() -> None:
    y = torch.arange(300) % 3
    x = torch.randn(300, 6, generator=torch.Generator().manual_seed(0)) + 4 * torch.eye(3).repeat(1, 2)[y]
    nano = tn.to_nano(make_model(), calibrate=x, head=tn.heads.LDA(), rejection=tn.heads.Rejection((x, y)))
    nano.head.fit(nano.features_int8(x[:60]), y[:60])
    x[60:100] = 20
    x, y = x[60:140], y[60:140]
    made = nano.evaluate((x, y))
    known = nano.head.certainty(nano.features_int8(x)).known
    assert np.array_equal(made.known, known) and 0.4 < made.rejected < 0.7
    assert f"rejected as of no known class: {made.rejected:.1%}" in str(made)
    with tn.Device("sim", nano=nano) as device:
        device.write_head(nano.head)
        assert np.array_equal(device.evaluate(x, y).known, known)


def test_a_model_that_ends_in_an_argmax_is_evaluated(model: nn.Sequential) -> None:
    class Largest(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x).argmax(1)

    nano = tn.to_nano(Largest(), calibrate=X, labels=NAMES)
    made = nano.evaluate((X, Y), Largest())
    assert made.accuracy == float((nano(X) == Y).double().mean()) and made.float_accuracy is not None
    with tn.Device("sim", nano=nano) as device:
        assert np.array_equal(device.evaluate(X, Y).predicted, made.predicted)


def test_it_prints_and_draws(nano: tn.NanoModule, model: nn.Sequential) -> None:
    made = nano.evaluate((X, Y), model)
    text = str(made)
    assert text.splitlines()[0] == made.headline and repr(made) == text
    assert f"accuracy {made.float_accuracy:.1%} in float, {made.accuracy:.1%} in int8" in text
    for name, row in zip(NAMES, made.confusion, strict=True):
        assert [name, *map(str, row)] in [line.split() for line in text.splitlines()]
    assert max(map(len, text.splitlines())) <= 100
    ax = made.plot()
    assert np.allclose(ax.images[0].get_array(), made.confusion / made.confusion.sum(1, keepdims=True))
    assert [label.get_text() for label in ax.get_xticklabels()] == NAMES
    pyplot.close(ax.figure)


def test_many_classes_print_the_pairs_that_are_confused_most() -> None:
    truth = np.arange(40) % 20
    predicted = truth.copy()
    predicted[:2] = 7
    labels = tuple(f"class {index}" for index in range(20))
    made = tn.results.Evaluation("net", labels, truth, predicted, np.where(truth == predicted, 1.0, -1.0))
    assert "class 0      class 7          1" in str(made) and "confusion matrix" not in str(made)


def nothing() -> Iterator[tuple[Tensor, Tensor]]:
    return iter(())


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (X, "has no labels; expected"),
        ((X, Y + 1), "go from 1 to 3; expected classes from 0 to 2"),
        ((X, Y.float()), "dtype torch.float32; expected classes, as integers or by name"),
        ((X, ["wlak"] * len(X)), "no class is called 'wlak'; did you mean 'walk'"),
        ((X, Y[:5]), "200 samples and 5 labels"),
        (nothing(), "the evaluation data is empty"),
        ({"x": X, "y": Y}, "lacks 'input', an input of the model"),
        (7, "evaluation data is a int"),
    ],
)
def test_wrong_data_are_refused(nano: tn.NanoModule, data: object, reason: str) -> None:
    with pytest.raises(tn.errors.InputError, match=reason):
        nano.evaluate(data)  # type: ignore[arg-type]


def test_models_without_classes_are_refused(nano: tn.NanoModule) -> None:
    binary = tn.to_nano(make_model(), calibrate=X, head=tn.heads.SGD(loss="binary"))
    with pytest.raises(tn.errors.InputError, match="evaluate takes models of one right class"):
        binary.evaluate((X, Y))
    with pytest.raises(tn.errors.HeadError, match="evaluate takes heads of one right class"):
        binary.head.evaluate(binary.features_int8(X), Y)
    with (
        tn.Device("sim", nano=binary) as device,
        pytest.raises(tn.errors.InputError, match="one right class"),
    ):
        device.evaluate(X, Y)
    other = nn.Linear(6, 5)
    with pytest.raises(tn.errors.InputError, match=r"the float model returns shape \(200, 5\)"):
        nano.evaluate((X, Y), other)
    unnamed = tn.to_nano(make_model(), calibrate=X, head=None)
    with pytest.raises(tn.errors.InputError, match="are names, and the classes have none"):
        unnamed.evaluate((X, ["walk"] * len(X)))


def test_learning_is_drawn_before_and_after(model: nn.Sequential) -> None:
    nano = tn.to_nano(model, calibrate=X, labels=NAMES, head=tn.heads.LDA(capacity=4))
    nano.head.fit(nano.features_int8(X[:6]), Y[:6])
    before = nano.evaluate((X, Y))
    nano.head.fit(nano.features_int8(X), Y)
    nano.head.add_class()
    after = nano.evaluate((X, Y))
    ax = after.plot_change(before)
    drawn = [collection.get_offsets()[:, 1] for collection in ax.collections[1:]]
    assert np.allclose(drawn[0][:3], [100 * each.recall for each in before.classes])
    assert np.allclose(drawn[1][:3], [100 * each.recall for each in after.classes[:3]])
    pyplot.close(ax.figure)
    with pytest.raises(tn.errors.InputError, match="expected evaluations of the same samples"):
        after.plot_change(nano.evaluate((X[:5], Y[:5])))


def test_features_are_drawn_by_class(learnt: tn.NanoModule) -> None:
    features = learnt.features_int8(X)
    ax = learnt.head.plot_features(features, [NAMES[label] for label in Y])
    points = np.concatenate([np.asarray(collection.get_offsets()) for collection in ax.collections])
    assert [collection.get_label() for collection in ax.collections] == NAMES
    # The plane has what the covariance's two largest eigenvalues say.
    eigenvalues = np.linalg.eigvalsh(np.cov(features.double().numpy().T, bias=True))
    assert np.allclose((points**2).mean(0), eigenvalues[::-1][:2])
    assert f"{eigenvalues[-1] / eigenvalues.sum():.0%}" in ax.get_xlabel()
    pyplot.close(ax.figure)
    with pytest.raises(tn.errors.HeadError, match="expected two or more to draw"):
        learnt.head.plot_features(features[:1], Y[:1])

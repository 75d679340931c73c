import pytest
import torch
import torch_nano as tn
from torch import Tensor, nn
from torch.nn import functional

from .hooks import hooks_of
from .task import SEED, data, equal, network, state


def two_domains(seed: int) -> tuple[tuple[Tensor, Tensor], Tensor, tuple[Tensor, Tensor]]:
    """Labelled samples of a domain, unlabelled ones of another, in which two of six features are turned by 57
    degrees, and further ones of that with labels, to score.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(samples: int) -> tuple[Tensor, Tensor]:
        y = torch.randint(2, (samples,), generator=generator)
        x = torch.randn(samples, 6, generator=generator)
        x[:, 0] += 3 * (2 * y - 1)
        return x, y

    source, (target, _), (scored, labels) = draw(400), draw(400), draw(1000)
    cosine, sine = torch.tensor(1.0).cos(), torch.tensor(1.0).sin()
    turn = torch.eye(6)
    turn[:2, :2] = torch.tensor([[cosine, -sine], [sine, cosine]])
    return source, target @ turn, (scored @ turn, labels)


def classifier(seed: int, classes: int = 2) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, classes)
        )


def test_alignment_halves_the_errors_on_the_target_without_its_labels():
    errors = {"source only": 0.0, "aligned": 0.0}
    seeds = range(3)
    for seed in seeds:
        source, target, (scored, labels) = two_domains(seed)
        for kind in errors:
            model = classifier(seed)
            options = {"epochs": 12, "learning_rate": 5e-3, "seed": seed, "progress": False}
            if kind == "aligned":
                tn.transfer.coral_alignment(model, source, target, layer="3", **options)
            else:
                tn.fit(model, source, **options)
            with torch.no_grad():
                errors[kind] += float((model(scored).argmax(1) != labels).float().mean()) / len(seeds)
    # Measured: 8.4 % and 1.6 %.
    assert errors["aligned"] < errors["source only"] / 2, f"seeds {seeds}: {errors}"


def test_the_loss_is_that_by_hand():
    generator = torch.Generator().manual_seed(SEED)
    source = torch.randn(9, 4, generator=generator, dtype=torch.float64)
    target = torch.randn(5, 4, generator=generator, dtype=torch.float64) * 2
    total = 0.0
    for i in range(4):
        for j in range(4):
            covariances = []
            for features in (source, target):
                n = len(features)
                mean_i, mean_j = features[:, i].sum() / n, features[:, j].sum() / n
                products = sum((row[i] - mean_i) * (row[j] - mean_j) for row in features)
                covariances.append(products / (n - 1))
            total += float(covariances[0] - covariances[1]) ** 2
    # Float64, sums of 9 terms.
    assert float(tn.transfer.coral_loss(source, target)) == pytest.approx(total / (4 * 16), rel=1e-12)
    assert float(tn.transfer.coral_loss(source, source + 7)) == pytest.approx(0, abs=1e-24)
    inputs = (source.requires_grad_(), target.requires_grad_())
    assert torch.autograd.gradcheck(tn.transfer.coral_loss, inputs)


def test_the_objective_is_that_by_hand():
    """One batch, and as many samples of the target: all are drawn, in an order that does not matter."""
    x, y = data(40)
    target = data(40, SEED + 1)[0] * 2
    model = classifier(SEED, 3)
    features = [nn.Sequential(*model[:4])(inputs).detach() for inputs in (x, target)]
    task = functional.cross_entropy(model(x), y).detach()
    expected = float(task + 5000 * tn.transfer.coral_loss(*features))
    history = tn.transfer.coral_alignment(
        model, [(x, y)], target, [(x, y)], layer="3", weight=5000, epochs=1, progress=False
    )
    # Float32, sums in another order.
    assert history[0].loss == pytest.approx(expected, rel=1e-5) and expected > float(task) * 1.1
    with torch.no_grad():
        # Without the alignment.
        assert history[0].val_loss == pytest.approx(float(functional.cross_entropy(model(x), y)), rel=1e-5)


def test_without_weight_it_is_fit_but_for_rounding():
    x, y = data()
    aligned, fitted = classifier(SEED, 3), classifier(SEED, 3)
    batches = list(zip(x.split(32), y.split(32), strict=True))
    options = {"epochs": 2, "learning_rate": 1e-3, "progress": False}
    tn.transfer.coral_alignment(aligned, batches, x, layer="3", weight=0.0, **options)
    tn.fit(fitted, batches, **options)
    for name, tensor in state(aligned).items():
        # Gradients differ by float32 rounding; 6 steps of Adam of 1e-3 each.
        torch.testing.assert_close(tensor, fitted.state_dict()[name], rtol=0, atol=1e-4)


def test_batch_norms_see_both_domains():
    x, y = data(64)
    model = nn.Sequential(nn.BatchNorm1d(6, momentum=1.0), nn.Linear(6, 3))
    tn.transfer.coral_alignment(model, [(x, y)], x + 10, layer="1", epochs=1, progress=False)
    # Half of the samples are around 0, half around 10.
    torch.testing.assert_close(model[0].running_mean, x.mean(0) + 5, rtol=1e-5, atol=1e-5)


def test_everything_of_fit_works_with_it(tmp_path):
    x, y = data()
    target = x[:20] + 1
    options = {"layer": "head", "seed": SEED, "batch_size": 19, "progress": False, "early_stopping": None}

    def align(model: nn.Module, **more) -> tn.training.History:
        return tn.transfer.coral_alignment(model, (x, y), target, (x, y), **(options | {"epochs": 4} | more))

    expected, resumed = network(), network()
    tn.freeze(expected, "backbone.0")
    tn.freeze(resumed, "backbone.0")
    weight = resumed.backbone[0].weight.clone()
    history = align(expected, learning_rates={"head": 0.01})
    align(resumed, learning_rates={"head": 0.01}, epochs=2, checkpoint=tmp_path / "c.pt")
    align(resumed, learning_rates={"head": 0.01}, checkpoint=tmp_path / "c.pt")
    assert equal(state(expected), state(resumed)) and torch.equal(weight, resumed.backbone[0].weight)
    assert history[-1].learning_rates.keys() == {"head", "other"} and history[-1].val_accuracy is not None
    with pytest.raises(tn.errors.CheckpointError, match="loss"):
        align(resumed, learning_rates={"head": 0.01}, checkpoint=tmp_path / "c.pt", weight=2.0)


def test_a_last_batch_of_one_sample_counts_for_the_loss_alone():
    x, y = data(33)
    model = classifier(SEED, 3)
    history = tn.transfer.coral_alignment(model, (x, y), x, layer="", batch_size=32, epochs=2, progress=False)
    assert len(history) == 2


def test_a_quantized_model_aligns_its_logits():
    x, y = data()
    qat = tn.prepare_qat(classifier(SEED, 3).eval(), x, calibrate=x)
    before = state(qat)
    history = tn.transfer.coral_alignment(
        qat, (x, y), x + 1, layer="", epochs=4, learning_rate=0.01, progress=False
    )
    assert history[-1].loss < history[0].loss and not equal(before, state(qat))
    assert torch.equal(qat.eval()(x), qat.to_nano()(x))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"target": torch.zeros(5, 7)}, tn.errors.InputError, r"source are \[6\], of the target \[7\]"),
        ({"target": torch.zeros(1, 6)}, tn.errors.InputError, "target has 1 samples"),
        ({"target": "images"}, tn.errors.InputError, "type str"),
        ({"layer": "backbone.unused"}, tn.errors.ModuleNameError, "'backbone.unused' but does not call it"),
        ({"layer": "haed"}, tn.errors.ModuleNameError, "did you mean 'head'"),
        ({"weight": -1.0}, tn.errors.FitError, "not negative"),
        ({"source": (data()[0], data()[1] + 1)}, tn.errors.InputError, "label 3"),
        ({"source": []}, tn.errors.InputError, "no batches"),
    ],
)
def test_wrong_arguments_are_explained_before_anything_changes(options, error, message):
    model = network().train()
    model.backbone.forward = lambda x, layers=list(model.backbone): nn.Sequential(*layers)(x)
    model.backbone.unused = nn.ReLU()
    before = state(model)
    arguments = {
        "source": data(),
        "target": data()[0],
        "layer": "head",
        "epochs": 1,
        "progress": False,
    } | options
    with pytest.raises(error, match=message):
        tn.transfer.coral_alignment(model, arguments.pop("source"), arguments.pop("target"), **arguments)
    assert equal(state(model), before) and hooks_of(model) == [] and model.training


def test_no_hook_stays():
    model = network()
    tn.transfer.coral_alignment(model, data(), data()[0], layer="head", epochs=1, progress=False)
    assert hooks_of(model) == []


def test_wrong_features_are_explained():
    with pytest.raises(tn.errors.InputError, match=r"\[3, 4\] and \[3, 5\]; expected \[N, D\] and \[M, D\]"):
        tn.transfer.coral_loss(torch.zeros(3, 4), torch.zeros(3, 5))
    with pytest.raises(tn.errors.InputError, match="at least 2 of each"):
        tn.transfer.coral_loss(torch.zeros(3, 4), torch.zeros(1, 4))

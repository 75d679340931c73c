"""A training that diverges raises an error that says where."""

import math

import pytest
import torch
import torch_nano as tn
from torch import nn
from torch.nn import functional
from transfer.hooks import hooks_of
from transfer.task import data, equal, network, state

X, Y = data()
BATCHES = [(X[:32], Y[:32]), (X[32:64], Y[32:64]), (X[64:], Y[64:])]


class Remember:
    """A data set of batches that remembers the model's state before each."""

    def __init__(self, model, batches=BATCHES):
        self.model, self.batches, self.states = model, batches, []

    def __iter__(self):
        for batch in self.batches:
            self.states.append(state(self.model))
            yield batch


def diverge(model, train, val=None, **options):
    hooks = hooks_of(model)
    options = {"epochs": 3, "seed": 0, "progress": False} | options
    with pytest.raises(tn.errors.TrainingDivergedError) as raised:
        tn.fit(model, train, val, **options)
    assert hooks_of(model) == hooks
    return raised.value


def test_a_batch_with_nan_is_named():
    x = X.clone()
    x[70, 2] = math.nan
    model = network()
    train = Remember(model, [*BATCHES[:2], (x[64:], Y[64:])])
    error = diverge(model, train, learning_rates={"head": 0.25}, learning_rate=0.5)
    assert (error.epoch, error.batch, error.module) == (0, 2, "backbone.0")
    assert error.learning_rates == {"head": 0.25, "other": 0.5}
    assert str(error) == (
        "epoch 0, batch 2 of train: the loss is nan: the output of 'backbone.0' (Linear) is not finite "
        "(the batch's inputs are not finite already). Learning rates: head 0.25, other 0.5. The model "
        "holds what it held before that batch. Try a smaller learning rate first"
    )
    # Batch norm has seen NaN, but its statistics are what they were.
    assert equal(state(model), train.states[-1]) and len(train.states) == 6


def test_the_first_module_in_forward_order_is_named():
    class Divide(nn.Module):
        def forward(self, x):
            return x / 0.0

    model = network()
    model.backbone.append(Divide())
    error = diverge(model, BATCHES)
    assert (error.batch, error.module) == (0, "backbone.4")
    assert "the output of 'backbone.4' (Divide)" in str(error)


def test_a_parameter_that_is_not_finite_is_named():
    model = network()
    with torch.no_grad():
        model.head.bias[1] = math.inf
    error = diverge(model, BATCHES)
    assert error.module == "head" and "the parameter 'bias' of 'head' (Linear)" in str(error)


def test_a_learning_rate_that_is_too_large_is_named():
    model = nn.Sequential(nn.Linear(6, 16), nn.Linear(16, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e30)
    error = diverge(model, BATCHES, optimizer=optimizer)
    assert (
        error.epoch == 0
        and error.learning_rates == {"all": 1e30}
        and "Learning rates: all 1e+30" in str(error)
    )
    assert error.module in ("", "0", "1")


def test_a_step_that_breaks_the_weights_is_noticed_after_the_last_batch():
    model = nn.Linear(6, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e38)
    steep = lambda output, target: 100 * functional.cross_entropy(output, target)  # noqa: E731
    error = diverge(model, [(X, Y)], optimizer=optimizer, loss=steep, epochs=1)
    assert "the steps up to this one have made 'weight' NaN or infinite" in str(error)
    assert "holds these weights" in str(error)


def test_a_gradient_that_is_not_finite_does_not_reach_the_weights():
    class Root(nn.Module):
        """Whose gradient at 0 is infinite, where its value is 0."""

        def forward(self, x):
            return (x - x.detach()).sqrt() + x

    model = network()
    model.add_module("root", Root())
    train = Remember(model)
    error = diverge(model, train)
    assert "the gradient of 'head.bias' is not finite" in str(error)
    assert (error.batch, error.module) == (0, "head")
    assert equal(state(model), train.states[-1])


def test_an_optimizer_that_changes_weights_within_a_batch_is_undone():
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 3))
    train = Remember(model)
    optimizer = torch.optim.LBFGS(model.parameters(), lr=1e25, max_iter=50)
    error = diverge(model, train, optimizer=optimizer, loss=lambda output, target: (output**2).mean())
    assert (error.batch, error.module) == (0, "1")
    assert equal(state(model), train.states[-1])


def test_large_gradients_are_no_error():
    model = nn.Linear(6, 3)
    history = tn.fit(
        model,
        (X, Y),
        epochs=1,
        loss=lambda output, target: 1e25 * functional.cross_entropy(output, target),
        optimizer=torch.optim.SGD(model.parameters(), lr=1e-27),
        progress=False,
    )
    assert math.isfinite(history[0].loss)


def test_a_custom_loss_that_diverges_is_named():
    error = diverge(
        network(), BATCHES, loss=lambda output, target: functional.cross_entropy(output, target) / 0
    )
    assert error.module == "" and "all weights and outputs of modules are finite" in str(error)


def test_validation_data_that_diverge_are_named():
    x = X.clone()
    x[40] = math.inf
    model = network()
    error = diverge(model, (X, Y), [(x[:32], Y[:32]), (x[32:], Y[32:])])
    assert (error.epoch, error.batch, error.module) == (0, 1, "backbone.0")
    assert "epoch 0, batch 1 of val" in str(error)


def test_a_qat_module_that_diverges_is_named():
    qat = tn.prepare_qat(network(), X[:8], calibrate=X)
    x = X.clone()
    x[70] = math.nan
    train = Remember(qat, [*BATCHES[:2], (x[64:], Y[64:])])
    error = diverge(qat, train)
    assert (error.epoch, error.batch) == (0, 2) and "the batch's inputs are not finite" in str(error)
    assert equal(state(qat), train.states[-1])


def test_a_qat_module_with_a_broken_weight_is_named():
    qat = tn.prepare_qat(network(), X[:8], calibrate=X)

    def break_it(epoch, history):
        with torch.no_grad():
            qat.get_parameter("head.weight")[0, 0] = math.nan

    error = diverge(qat, BATCHES, callbacks=[break_it])
    assert (error.epoch, error.batch, error.module) == (1, 0, "head")
    assert "the parameter 'weight' of 'head' (Linear) is not finite" in str(error)


def test_divergence_is_a_non_finite_error():
    assert issubclass(tn.errors.TrainingDivergedError, tn.errors.NonFiniteError)

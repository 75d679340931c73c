import copy

import pytest
import torch
import torch_nano as tn
from networks import ConvNet1d, ResidualNet, inputs, make
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from .hooks import hooks_of
from .task import SEED, data, equal, network, state

#: Networks, with inputs that are not like those that their statistics come from.
CASES = [
    (ConvNet1d, inputs((3, 40), 50, SEED) * 3 + 2),
    (ResidualNet, inputs((2, 8, 8), 50, SEED) * 0.3 - 1),
]
SAMPLES = CASES[0][1]


def inputs_of_batch_norms(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """What each batch norm gets in evaluation mode, all samples at once, as [channels, numbers]."""
    got: dict[str, Tensor] = {}

    def keep(name: str):
        return lambda module, arguments: got.update({name: arguments[0].transpose(0, 1).flatten(1).double()})

    handles = [
        module.register_forward_pre_hook(keep(name))
        for name, module in model.named_modules()
        if hasattr(module, "running_mean")
    ]
    with torch.no_grad():
        model.eval()(x)
    for handle in handles:
        handle.remove()
    return got


@pytest.mark.parametrize(("net", "x"), CASES)
@pytest.mark.parametrize("batch_size", [50, 16, 1])
def test_the_statistics_are_those_of_all_data_at_once(net, x, batch_size):
    model = make(net)
    names = tn.transfer.reestimate_batch_norm(model, x, batch_size=batch_size)
    expected = inputs_of_batch_norms(model, x)
    assert names == list(expected)
    for name, numbers in expected.items():
        norm = model.get_submodule(name)
        # Float32 inputs that are rounded otherwise in other batch sizes, relative to the spread.
        spread = float(numbers.std())
        torch.testing.assert_close(norm.running_mean.double(), numbers.mean(1), rtol=1e-5, atol=1e-6 * spread)
        torch.testing.assert_close(norm.running_var.double(), numbers.var(1), rtol=1e-5, atol=0)
        assert int(norm.num_batches_tracked) == -(-50 // batch_size)


def test_the_first_statistics_are_exact():
    """Nothing is computed in front of it, so only the rounding to float32 is left."""
    norm = nn.Sequential(nn.BatchNorm1d(3))
    tn.transfer.reestimate_batch_norm(norm, SAMPLES, batch_size=7)
    numbers = SAMPLES.transpose(0, 1).flatten(1).double()
    # Half a unit in the last place of float32 is 6e-8.
    torch.testing.assert_close(norm[0].running_mean.double(), numbers.mean(1), rtol=6e-8, atol=0)
    torch.testing.assert_close(norm[0].running_var.double(), numbers.var(1), rtol=6e-8, atol=0)


def test_a_pass_in_train_mode_does_not_give_these_statistics():
    """torch's cumulative mean counts a short last batch as much as a long one, and leaves out what is between
    batches.
    """
    model = nn.Sequential(nn.BatchNorm1d(3, momentum=None)).train()
    for x in SAMPLES.split(7):
        model(x)
    exact = SAMPLES.transpose(0, 1).flatten(1).var(1)
    assert ((model[0].running_var - exact).abs() > 0.01 * exact).any()


def test_it_brings_back_what_a_shift_of_the_inputs_takes():
    x, y = data(300)
    model = network()
    tn.fit(model, (x, y), epochs=10, learning_rate=0.02, seed=SEED, progress=False)
    # Another gain and offset of the sensor; the first statistics are after one Linear.
    shifted_x, shifted_y = data(300, SEED + 1)
    shifted_x = shifted_x * 0.3 + torch.linspace(-2, 2, 6)

    def accuracy() -> float:
        with torch.no_grad():
            return float((model.eval()(shifted_x[150:]).argmax(1) == shifted_y[150:]).float().mean())

    before = accuracy()
    # Labels are not needed, and the scored samples are not seen.
    tn.transfer.reestimate_batch_norm(model, shifted_x[:150])
    assert before < 0.6 and accuracy() > 0.85, f"seed {SEED}"


@pytest.mark.parametrize("kind", ["tuple", "dataset", "unlabelled dataset", "loader", "list of inputs"])
def test_it_takes_every_kind_of_data(kind):
    x, labels = SAMPLES, torch.zeros(50)
    given = {
        "tuple": (x, labels),
        "dataset": TensorDataset(x, labels),
        "unlabelled dataset": TensorDataset(x),
        "loader": DataLoader(TensorDataset(x, labels), batch_size=64),
        "list of inputs": [x],
    }[kind]
    model, expected = make(ConvNet1d), make(ConvNet1d)
    tn.transfer.reestimate_batch_norm(model, given)
    tn.transfer.reestimate_batch_norm(expected, x)
    assert equal(state(model), state(expected)) and not equal(state(model), state(make(ConvNet1d)))


def test_frozen_batch_norms_change_too_and_nothing_else():
    model = make(ConvNet1d).train()
    tn.freeze(model, "features")
    before, modes, hooks = state(model), [module.training for module in model.modules()], hooks_of(model)
    tn.transfer.reestimate_batch_norm(model, SAMPLES)
    changed = {name for name, tensor in state(model).items() if not torch.equal(tensor, before[name])}
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    assert {name.rpartition(".")[2] for name in changed} <= set(buffers)
    assert {name.rpartition(".")[0] for name in changed} == {"features.1", "features.5"}
    assert [module.training for module in model.modules()] == modes and hooks_of(model) == hooks


def test_a_batch_norm_that_is_not_called_stays():
    model = make(ConvNet1d)
    model.unused = nn.BatchNorm1d(3)
    assert tn.transfer.reestimate_batch_norm(model, SAMPLES) == ["features.1", "features.5"]
    assert int(model.unused.num_batches_tracked) == 0


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.norm(x))


def not_finite() -> Tensor:
    x = SAMPLES.clone()
    x[20, 1] = float("inf")
    return x


@pytest.mark.parametrize(
    ("model", "x", "error", "message"),
    [
        (nn.Linear(40, 3), SAMPLES, tn.errors.InputError, "Linear has no batch norm with running statistics"),
        (nn.BatchNorm1d(3, track_running_stats=False), SAMPLES, tn.errors.InputError, "has no batch norm"),
        (Twice(), SAMPLES, tn.errors.InputError, "calls 'norm' 2 times"),
        (make(ConvNet1d), [], tn.errors.InputError, "no batches"),
        (make(ConvNet1d), iter([SAMPLES]), tn.errors.InputError, "only once"),
        (make(ConvNet1d), [["a", "b"]], tn.errors.InputError, "inputs of type str"),
        (nn.Sequential(nn.BatchNorm1d(3)), torch.zeros(1, 3), tn.errors.InputError, "one number per channel"),
        (make(ConvNet1d), not_finite(), tn.errors.NonFiniteError, "'features.1' gets NaN or infinity"),
    ],
)
def test_what_cannot_be_estimated_is_explained_and_changes_nothing(model, x, error, message):
    before = state(model)
    with pytest.raises(error, match=message):
        tn.transfer.reestimate_batch_norm(model, x, batch_size=16)
    assert equal(state(model), before) and hooks_of(model) == []


def test_a_failure_in_a_later_batch_norm_takes_back_the_first():
    model = make(ConvNet1d)
    model.features[2] = nn.Threshold(-1e9, 0)
    with torch.no_grad():
        model.features[4].weight[0] = float("nan")
    before = copy.deepcopy(model.features[1].state_dict())
    with pytest.raises(tn.errors.NonFiniteError, match=r"'features\.5'"):
        tn.transfer.reestimate_batch_norm(model, SAMPLES)
    assert all(torch.equal(model.features[1].state_dict()[name], before[name]) for name in before)


def test_a_quantized_model_that_has_folded_them_is_explained():
    qat = tn.prepare_qat(make(ConvNet1d), SAMPLES, calibrate=SAMPLES)
    with pytest.raises(tn.errors.InputError, match="QatModule calls none of its batch norms"):
        tn.transfer.reestimate_batch_norm(qat, SAMPLES)

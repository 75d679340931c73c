"""Batch norms in training: folded with their running statistics, or with those of the batch first."""

import copy

import pytest
import torch
import torch.nn.functional as F
import torch_nano as tn
from torch import Tensor, nn
from torch_nano.qat import QatModule

from .trained import TASKS, differing_bits, train

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
STATISTICS = ("running_mean", "running_var")


def on_the_grid(qat: QatModule, x: Tensor) -> Tensor:
    """Inputs that int8 holds exactly."""
    quantization = qat.quantization_ranges.quantization(qat._graph.inputs[0])
    return (x / quantization.scale).round() * quantization.scale


@pytest.mark.parametrize(
    ("task", "momentum"),
    [("residual", 0.1), ("residual", None), ("functions", 0.1), ("sequence", 0.3), ("separable", 0.1)],
)
def test_without_rounding_it_is_torch_s_own_batch_norm(task: str, momentum: float | None) -> None:
    """Outputs, gradients and running statistics of train mode, against the float model's."""
    x, y = TASKS[task].data()
    model = TASKS[task].model()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum = momentum
    qat = tn.prepare_qat(model, x[:2], calibrate=x[:200], batch_norm="batch_statistics").train()
    tn.qat.freeze_ranges(qat)
    tn.qat.disable_quantization(qat)
    x, y = on_the_grid(qat, x[:128]), y[:128]
    for module in (model, qat):
        F.cross_entropy(module(x), y).backward()
    with torch.no_grad():
        twin = copy.deepcopy(model)
        # float32: two roundings of each layer are in another order.
        torch.testing.assert_close(copy.deepcopy(qat)(x), twin(x), rtol=1e-4, atol=1e-4)
    for (name, ours), theirs in zip(model.named_buffers(), model.buffers(), strict=True):
        own = qat.get_buffer(name)
        assert own.dtype == theirs.dtype
        torch.testing.assert_close(own, ours, rtol=1e-4, atol=1e-5)
    largest = max(float(p.grad.abs().max()) for p in model.parameters() if p.grad is not None)
    for name, parameter in model.named_parameters():
        own = qat.get_parameter(name).grad
        assert own is not None and parameter.grad is not None
        # float32: 1e-5 was seen. A bias in front of a batch norm has gradient 0; what is there is rounding of
        # sums of thousands: 1.3e-4 of the largest gradient was seen.
        tolerance = 5e-4 if name.endswith("bias") else 5e-5
        torch.testing.assert_close(own, parameter.grad, rtol=1e-4, atol=tolerance * largest, msg=name)


def test_running_statistics_are_those_of_the_same_convolution_outputs() -> None:
    """With rounding: torch's batch norm, given what the convolution makes of the layer's int8 input."""
    x, _ = TASKS["residual"].data()
    model = TASKS["residual"].model()
    qat = tn.prepare_qat(model, x[:2], calibrate=x[:200], batch_norm="batch_statistics")
    x = x[:64]
    twin = copy.deepcopy(model).train()
    input_ = qat.quantization_ranges.quantization(qat._graph.inputs[0])
    steps = (x.double() / input_.scale + input_.zero_point).round().clamp(-128, 127) - input_.zero_point
    real = (steps * input_.scale).float()
    for _ in range(3):
        qat.train()(x)
        twin.stem[1](twin.stem[0](real))
    for name in (*STATISTICS, "num_batches_tracked"):
        # torch moves the statistics by another formula of the same two roundings.
        torch.testing.assert_close(
            qat.get_buffer(f"stem.1.{name}"), getattr(twin.stem[1], name), rtol=1e-5, atol=1e-6
        )
    assert not torch.equal(qat.get_buffer("stem.1.running_mean"), model.stem[1].running_mean)


class FunctionalNorm(nn.Module):
    """A batch norm by its function, on buffers of the module's own."""

    def __init__(self, momentum: float = 0.25) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 3)
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(8))
        self.register_buffer("variance", torch.ones(8))

    def forward(self, x: Tensor) -> Tensor:
        x = F.batch_norm(
            self.first(x), self.mean, self.variance, training=self.training, momentum=self.momentum
        )
        return self.last(F.relu(x))


class ModuleNorm(FunctionalNorm):
    """The same by a module, whose running statistics have the same names."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(8, momentum=0.25, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.norm(self.first(x))))


def test_a_functional_batch_norm_trains_as_the_module() -> None:
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randn(n, 6, generator=generator) * 3 + 2 for n in (16, 2, 7, 16)]
    by_function, by_module = FunctionalNorm(), ModuleNorm()
    by_module.load_state_dict(by_function.state_dict(), strict=False)
    results = []
    for model in (by_function, by_module):
        qat = tn.prepare_qat(model, batches[0], calibrate=batches[0], batch_norm="batch_statistics").train()
        outputs = [qat(x) for x in batches]
        outputs[-1].square().sum().backward()
        results.append([*outputs, qat.get_parameter("first.weight").grad])
        tn.qat.fold_batch_norm(qat)
        assert differing_bits(qat.eval()(batches[0]), qat.to_nano()(batches[0])) == 0
        results[-1].append(qat(batches[0]))
    for mine, other in zip(*results, strict=True):
        assert mine is not None and torch.equal(mine, other)


class RestingNorm(FunctionalNorm):
    """One that keeps to its running statistics in train mode, before one that does not."""

    def __init__(self) -> None:
        super().__init__()
        self.middle = nn.Linear(8, 8)
        self.register_buffer("kept_mean", torch.full((8,), 0.5))
        self.register_buffer("kept_variance", torch.full((8,), 2.0))

    def forward(self, x: Tensor) -> Tensor:
        x = F.batch_norm(self.first(x), self.kept_mean, self.kept_variance, training=False)
        x = F.batch_norm(self.middle(x), self.mean, self.variance, training=self.training)
        return self.last(F.relu(x))


def test_a_functional_batch_norm_that_never_trains_keeps_its_statistics() -> None:
    x = torch.randn(97, 6, generator=torch.Generator().manual_seed(0)) * 3 + 2
    twin = RestingNorm().train()
    qat = tn.prepare_qat(twin, x, calibrate=x, batch_norm="batch_statistics").train()
    tn.qat.freeze_ranges(qat)
    tn.qat.disable_quantization(qat)
    x = on_the_grid(qat, x)
    # float32: two roundings of each layer are in another order.
    torch.testing.assert_close(qat(x), twin(x), rtol=1e-4, atol=1e-4)
    for name, own in twin.named_buffers():
        torch.testing.assert_close(qat.get_buffer(name), own, rtol=1e-5, atol=1e-6)
    assert torch.equal(qat.get_buffer("kept_mean"), torch.full((8,), 0.5))
    assert not torch.equal(qat.get_buffer("mean"), torch.zeros(8))


@pytest.mark.parametrize("model", [FunctionalNorm, ModuleNorm])
def test_running_statistics_are_torch_s_for_batches_of_any_size(model: type[FunctionalNorm]) -> None:
    """Also for the smallest batches that have a variance, where the unbiased one is twice the other."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(97, 6, generator=generator) * 3 + 2
    twin = model().train()
    qat = tn.prepare_qat(twin, x, calibrate=x, batch_norm="batch_statistics").train()
    tn.qat.freeze_ranges(qat)
    tn.qat.disable_quantization(qat)
    for batch in on_the_grid(qat, x).split([2, 16, 3, 16, 60]):
        qat(batch)
        twin(batch)
    for name, own in twin.named_buffers():
        # float32: the sums are in another order.
        torch.testing.assert_close(qat.get_buffer(name), own, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("model", [FunctionalNorm, ModuleNorm])
@pytest.mark.parametrize("frozen_ranges", [False, True])
def test_one_value_per_channel_has_no_variance(model: type[FunctionalNorm], frozen_ranges: bool) -> None:
    x, y = torch.randn(97, 6, generator=torch.Generator().manual_seed(0)), torch.arange(97) % 3
    qat = tn.prepare_qat(model(), x, calibrate=x, batch_norm="batch_statistics").train()
    if frozen_ranges:
        tn.qat.freeze_ranges(qat)
    before = copy.deepcopy(dict(qat.named_buffers()))
    name = "norm" if model is ModuleNorm else ""
    message = rf"module 'first': the batch norm of '{name}' gets \(1, 8\) in training: one value per channel"
    with pytest.raises(tn.errors.InputError, match=message):
        qat(x[:1])
    with pytest.raises(tn.errors.InputError, match=rf"{message}.*drop_last=True") as caught:
        tn.fit(qat, (x, y), epochs=1, batch_size=16, progress=False)
    assert caught.value.__notes__ == ["in batch 6 of train"]
    for buffer, old in before.items():
        if "bounds" not in buffer:
            assert torch.equal(qat.get_buffer(buffer), old)
    # Evaluation and folded statistics need no variance of the batch, and images have many values.
    assert qat.eval()(x[:1]).shape == (1, 3)
    tn.qat.fold_batch_norm(qat.train())
    assert qat(x[:1]).shape == (1, 3)
    image = tn.prepare_qat(
        nn.Sequential(nn.Conv1d(1, 2, 3), nn.BatchNorm1d(2)),
        x[:2, None],
        calibrate=x[:, None],
        batch_norm="batch_statistics",
    )
    assert image.train()(x[:1, None]).shape == (1, 2, 4)


def test_statistics_that_are_no_buffers_cannot_follow() -> None:
    model = FunctionalNorm()
    del model.mean
    model.mean = torch.zeros(8)
    x = torch.randn(8, 6)
    with pytest.raises(tn.errors.InputError, match="the running_mean of the batch norm of '' is no buffer"):
        tn.prepare_qat(model, x, calibrate=x, batch_norm="batch_statistics")
    tn.prepare_qat(model, x, calibrate=x)


def test_folded_statistics_stay_as_they_are() -> None:
    x, y = TASKS["residual"].data()
    model = TASKS["residual"].model()
    qat = tn.prepare_qat(model, x[:2], calibrate=x[:200])
    train(qat.train(), x, y, steps=3)
    for name, buffer in model.named_buffers():
        assert torch.equal(qat.get_buffer(name), buffer), name


def test_after_folding_train_mode_is_evaluation_and_statistics_stay() -> None:
    x, y = TASKS["residual"].data()
    qat = tn.prepare_qat(
        TASKS["residual"].model(), x[:2], calibrate=x[:200], batch_norm="batch_statistics"
    ).train()
    tn.qat.freeze_ranges(qat)
    before = qat(x[:100]).detach()
    expected = copy.deepcopy(qat).eval()(x[:100])
    assert differing_bits(before, expected) > 0
    tn.qat.fold_batch_norm(qat)
    statistics = {name: buffer.clone() for name, buffer in qat.named_buffers()}
    assert differing_bits(qat(x[:100]), expected) == 0
    train(qat, x, y, steps=1)
    for name, buffer in statistics.items():
        assert torch.equal(qat.get_buffer(name), buffer), name


@pytest.mark.parametrize("how", ["eval", "freeze"])
def test_a_batch_norm_that_rests_is_folded(how: str) -> None:
    x, _ = TASKS["residual"].data()
    qat = tn.prepare_qat(
        TASKS["residual"].model(), x[:2], calibrate=x[:200], batch_norm="batch_statistics"
    ).train()
    for module in ("stem.1", "second.1"):
        if how == "eval":
            qat.get_submodule(module).eval()
        else:
            tn.freeze(qat, module)
    before = {name: buffer.clone() for name, buffer in qat.named_buffers() if "running" in name}
    qat(x[:64])
    still = {name for name, buffer in before.items() if torch.equal(qat.get_buffer(name), buffer)}
    assert still == {f"{module}.{name}" for module in ("stem.1", "second.1") for name in STATISTICS}


def test_statistics_of_batches_train_better_than_none_at_all() -> None:
    """A fresh model has no statistics to fold: with those of the batches it learns, and theirs are folded."""
    x, y = TASKS["residual"].data()
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = TASKS["residual"].make().train()
    qat = tn.prepare_qat(model, x[:2], calibrate=x[:200], batch_norm="batch_statistics", momentum=0.2)
    losses = train(qat, x, y, steps=60)
    assert sum(losses[-5:]) < 0.4 * sum(losses[:5])
    tn.qat.fold_batch_norm(qat)
    train(qat, x, y, steps=20, optimizer=torch.optim.SGD(qat.parameters(), 0.02))
    right = (qat.eval()(x[-500:]).argmax(1) == y[-500:]).float().mean()
    assert float(right) > 0.7


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(
        tn.errors.InputError, match="batch_norm is 'sometimes'; expected one of folded, batch_statistics"
    ):
        tn.prepare_qat(nn.Sequential(nn.Linear(4, 3)), torch.zeros(2, 4), batch_norm="sometimes")  # type: ignore[arg-type]

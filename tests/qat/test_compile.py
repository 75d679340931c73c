"""torch.compile around a network in training: one graph, the same bits."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import torch_nano as tn
from torch import Tensor, nn
from torch_nano.qat import QatModule
from torch_nano.qat.training_ranges import RangeMethod

from .trained import TASKS, differing_bits

pytestmark = [
    # torch says that it pads an even kernel unevenly.
    pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths"),
    # The compiler itself reads .grad of what it traces.
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf"),
]


@pytest.fixture(autouse=True)
def fresh_compiler() -> None:
    torch.compiler.reset()


class Small(nn.Module):
    """One layer of each kind that training computes in its own way: the compiler takes its time for each."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(6, 4, 5, stride=4)
        self.norm = nn.BatchNorm1d(4)
        self.depthwise = nn.Conv1d(4, 4, 2, padding="same", groups=4)
        self.pool = nn.AvgPool1d(2)
        self.classifier = nn.Linear(48, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = F.hardswish(self.norm(self.conv(x)))
        x = self.pool(F.relu(self.depthwise(x) + x))
        return torch.softmax(self.classifier(x.flatten(1)), 1)


def small(**options: object) -> tuple[QatModule, Tensor, Tensor]:
    x, y = TASKS["watch"].data()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Small()
    qat = tn.prepare_qat(model, x[:2], calibrate=x[:200], **options)  # type: ignore[arg-type]
    return qat.train(), x[:16], y[:16]


def step(qat: QatModule, run: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> list[Tensor]:
    """The outputs and all gradients of one step."""
    qat.zero_grad()
    output = run(x)
    F.cross_entropy(output, y).backward()
    return [output.detach(), *(p.grad.clone() for p in qat.parameters() if p.grad is not None)]


def assert_equal(got: list[Tensor], expected: list[Tensor]) -> None:
    assert differing_bits(got[0], expected[0]) == 0
    assert len(got) == len(expected) > 1
    for gradient, reference in zip(got[1:], expected[1:], strict=True):
        # The compiler fuses float32 multiplications and sums: other roundings.
        largest = float(expected[1].abs().max())
        torch.testing.assert_close(gradient, reference, rtol=1e-5, atol=1e-6 * largest)


def test_frozen_ranges_compile_into_one_graph() -> None:
    qat, x, y = small()
    tn.qat.freeze_ranges(qat)
    compiled = torch.compile(qat, fullgraph=True)
    assert_equal(step(qat, compiled, x, y), step(qat, qat, x, y))
    with torch.no_grad():
        assert differing_bits(compiled.eval()(x), tn.to_nano(compiled)(x)) == 0


@pytest.mark.parametrize("ranges", ["moving_average", "learned"])
def test_moving_and_learned_ranges_compile_with_breaks(ranges: RangeMethod) -> None:
    """They are numbers of Python: each is a break of the graph."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    x, y = (part[:16] for part in TASKS["residual"].data())
    qat, other = (tn.prepare_qat(model, x[:2], calibrate=x / 2, ranges=ranges).train() for _ in range(2))
    compiled = torch.compile(qat, backend="aot_eager")
    assert_equal(step(qat, compiled, x, y), step(other, other, x, y))
    assert torch.equal(qat.quantization_ranges.bounds, other.quantization_ranges.bounds)


def test_changed_ranges_and_weights_take_effect() -> None:
    qat, x, y = small(momentum=0.5)
    tn.qat.freeze_ranges(qat)
    compiled = torch.compile(qat, backend="aot_eager", fullgraph=True)
    before = compiled(x).detach()
    tn.qat.unfreeze_ranges(qat)
    qat(3 * x)
    tn.qat.freeze_ranges(qat)
    with torch.no_grad():
        qat.get_parameter("classifier.weight").mul_(-2.0)
    after = compiled(x).detach()
    assert differing_bits(after, before) > 0
    assert_equal(step(qat, compiled, x, y), step(qat, qat, x, y))


def test_statistics_of_batches_compile_into_one_graph() -> None:
    qat, x, y = small(batch_norm="batch_statistics")
    other, _, _ = small(batch_norm="batch_statistics")
    for module in (qat, other):
        tn.qat.freeze_ranges(module)
    compiled = torch.compile(qat, backend="aot_eager", fullgraph=True)
    assert_equal(step(qat, compiled, x, y), step(other, other, x, y))
    for name, buffer in other.named_buffers():
        assert torch.equal(qat.get_buffer(name), buffer), name

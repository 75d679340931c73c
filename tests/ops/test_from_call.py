"""ATen calls become operators: the float run equals the module, and what nano-core cannot do is refused."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch_nano.capture.capture import capture
from torch_nano.errors import UnsupportedError
from torch_nano.ir.operator import Operator
from torch_nano.ops import OPERATORS
from torch_nano.ops.activation import Activation
from torch_nano.ops.add import Add
from torch_nano.ops.argmax import Argmax
from torch_nano.ops.average_pool2d import AveragePool2d
from torch_nano.ops.concat import Concat
from torch_nano.ops.conv2d import Conv2d
from torch_nano.ops.conv_transpose2d import ConvTranspose2d
from torch_nano.ops.depthwise_conv2d import DepthwiseConv2d
from torch_nano.ops.embedding import Embedding
from torch_nano.ops.fully_connected import FullyConnected
from torch_nano.ops.gru import Gru
from torch_nano.ops.layer_norm import LayerNorm
from torch_nano.ops.log_softmax import LogSoftmax
from torch_nano.ops.lstm import Lstm
from torch_nano.ops.matmul import Matmul
from torch_nano.ops.max_pool2d import MaxPool2d
from torch_nano.ops.move import Move
from torch_nano.ops.mul import Mul
from torch_nano.ops.prelu import Prelu
from torch_nano.ops.resize_bilinear import ResizeBilinear
from torch_nano.ops.rnn import Rnn
from torch_nano.ops.softmax import Softmax
from torch_nano.ops.sub import Sub
from torch_nano.ops.table import UNARY_FUNCTIONS, Table

VECTOR, SERIES, IMAGE = (10,), (4, 13), (4, 9, 12)


class Lambda(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


MOVES: dict[tuple[int, ...], list[Callable[[Tensor], Tensor]]] = {
    VECTOR: [
        lambda x: x[:, 2:-1:3],
        lambda x: x.flip(1),
        lambda x: x.roll(3, 1),
        lambda x: x.unflatten(1, (2, 5)).mT,
        lambda x: x[:, None].expand(-1, 4, -1),
        lambda x: x[:, None].broadcast_to(x.shape[0], 4, 10),
        lambda x: x.unsqueeze(1).expand_as(x.unsqueeze(1).repeat(1, 3, 1)),
        lambda x: x.repeat_interleave(2, 1),
        lambda x: x.tile(2),
        lambda x: x[:, [3, 1, 1, -1]],
        lambda x: x.unfold(1, 4, 2),
        lambda x: x[:, 0],
        lambda x: x.unflatten(1, (1, 1, 2, 5)),
        lambda x: x.view(x.shape[0], 2, 5).view_as(x.reshape(x.shape[0], 2, 5)),
        lambda x: x.reshape(x.shape[0], 1, 2, 1, 5, 1).squeeze().squeeze((1,)),
    ],
    SERIES: [
        lambda x: x[:, 1],
        lambda x: x.permute(0, 2, 1),
        lambda x: x.movedim(1, -1).moveaxis((1, 2), (2, 1)),
        lambda x: x.swapaxes(1, 2).swapdims(1, 2),
        lambda x: x.narrow(2, 3, 5),
        lambda x: x.split(5, 2)[2],
        lambda x: x.split([4, 9], 2)[1],
        lambda x: x.chunk(2, 1)[0],
        lambda x: x.unbind(1)[3],
        lambda x: x.tensor_split(3, 2)[1],
        lambda x: x.tensor_split((2, 7), 2)[1],
        lambda x: nn.functional.pad(x, (3, 0)),
        lambda x: nn.functional.pad(x, (3, 2), mode="replicate"),
        lambda x: nn.functional.pad(x, (3, 2), mode="reflect"),
        lambda x: torch.constant_pad_nd(x, (1, -2), 0.0),
        lambda x: nn.functional.interpolate(x, scale_factor=1.7),
        lambda x: nn.functional.interpolate(x, 20, mode="nearest-exact"),
        lambda x: torch.fliplr(x),
        lambda x: x.index_select(2, torch.tensor([5, 0, 5])),
    ],
    IMAGE: [
        lambda x: x[:, :, ::2, 1::3],
        lambda x: nn.functional.pad(x, (1, 2, 0, 1, 2, 0)),
        lambda x: nn.functional.pad(x, (1, 2, 3, 1), mode="circular"),
        lambda x: nn.functional.interpolate(x, scale_factor=2),
        lambda x: nn.functional.interpolate(x, (7, 30)),
        lambda x: nn.functional.interpolate(x, (7, 30), mode="nearest-exact"),
        lambda x: torch.pixel_shuffle(x, 2),
        lambda x: torch.pixel_unshuffle(x, 3),
        lambda x: nn.functional.channel_shuffle(x, 2),
        lambda x: nn.functional.unfold(x, 3, padding=1, stride=2),
        lambda x: torch.rot90(x, 1, (2, 3)),
        lambda x: x.diagonal(dim1=2, dim2=3),
        lambda x: x.view(x.shape[0], 2, 2, 9, 12).transpose(1, 2).contiguous().view(x.shape),
    ],
}


class Steps(nn.Module):
    """All steps of a recurrent module."""

    def __init__(self, recurrent: nn.Module) -> None:
        super().__init__()
        self.recurrent = recurrent

    def forward(self, x: Tensor) -> Tensor:
        steps: Tensor = self.recurrent(x)[0]
        return steps


MODULES: list[tuple[nn.Module, tuple[int, ...], type[Operator]]] = [
    (nn.Conv2d(4, 6, 3), IMAGE, Conv2d),
    (nn.Conv2d(4, 6, (3, 2), stride=(1, 2), padding=(2, 1), dilation=(2, 1), bias=False), IMAGE, Conv2d),
    (nn.Conv2d(4, 6, (3, 5), padding="same"), IMAGE, Conv2d),
    (nn.Conv2d(4, 6, (4, 2), padding="same"), IMAGE, Conv2d),
    (nn.Conv2d(4, 6, 3, padding="valid", groups=2), IMAGE, Conv2d),
    (nn.Conv2d(4, 8, 3, groups=4), IMAGE, Conv2d),
    (nn.Conv2d(4, 4, 3, padding=1, groups=4), IMAGE, DepthwiseConv2d),
    (nn.Conv1d(4, 6, 3, stride=2, padding=1, dilation=2), SERIES, Conv2d),
    (nn.Conv1d(4, 6, 5, padding="same"), SERIES, Conv2d),
    (nn.Conv1d(4, 4, 3, groups=4), SERIES, DepthwiseConv2d),
    (nn.ConvTranspose2d(4, 6, 3), IMAGE, ConvTranspose2d),
    (nn.ConvTranspose2d(4, 6, 4, stride=2, padding=1), IMAGE, ConvTranspose2d),
    (
        nn.ConvTranspose2d(4, 6, (3, 2), (3, 2), (1, 0), (2, 1), groups=2, bias=False, dilation=(1, 2)),
        IMAGE,
        ConvTranspose2d,
    ),
    (nn.ConvTranspose2d(4, 6, 1, stride=3, output_padding=2), IMAGE, ConvTranspose2d),
    (nn.ConvTranspose1d(4, 6, 5, stride=2, padding=2, output_padding=1), SERIES, ConvTranspose2d),
    (nn.Linear(10, 3), VECTOR, FullyConnected),
    (nn.Linear(10, 3, bias=False), VECTOR, FullyConnected),
    (Lambda(lambda x: x + x), IMAGE, Add),
    (Lambda(lambda x: x + x.mean((2, 3), keepdim=True)), IMAGE, Add),
    (Lambda(lambda x: x * x), IMAGE, Mul),
    (Lambda(lambda x: x * x.mean((2, 3), keepdim=True).sigmoid()), IMAGE, Mul),
    (Lambda(lambda x: x.mean(2, keepdim=True).tanh() * x), SERIES, Mul),
    (Lambda(lambda x: x.tanh().mul_(x)), VECTOR, Mul),
    (Lambda(lambda x: torch.cat([x, x + x], 1)), VECTOR, Concat),
    (Lambda(lambda x: torch.cat([x, x[...]], -1)), SERIES, Concat),
    (Lambda(lambda x: torch.cat((x, x + x, x), -2)), IMAGE, Concat),
    (Lambda(lambda x: torch.concat([x, x.relu()], 3)), IMAGE, Concat),
    (Lambda(lambda x: torch.concatenate([x, x], 2)), SERIES, Concat),
    (Lambda(lambda x: torch.hstack([x, x + x])), IMAGE, Concat),
    (Lambda(lambda x: torch.dstack([x, x])), SERIES, Concat),
    (Lambda(lambda x: torch.dstack([x, x.relu()])), VECTOR, Concat),
    (Lambda(lambda x: torch.column_stack([x, x.relu()])), IMAGE, Concat),
    (Lambda(lambda x: torch.stack([x, x.relu()], 1)), VECTOR, Concat),
    (Lambda(lambda x: torch.stack([x, x.relu(), x], -1)), VECTOR, Concat),
    (Lambda(lambda x: torch.stack([x, x.relu()], 1)), SERIES, Concat),
    (Lambda(lambda x: torch.stack([x, x.relu()], 2)), SERIES, Concat),
    (Lambda(lambda x: torch.stack([x, x.relu()], -1)), SERIES, Concat),
    (Lambda(lambda x: torch.stack([x[:, 0], x[:, 2]], 1)), SERIES, Concat),
    (Lambda(lambda x: torch.stack([x[:, 0], x[:, 2]], 1)), VECTOR, Concat),
    (Lambda(lambda x: torch.column_stack([x[:, 0], x[:, 2], x[:, 1]])), VECTOR, Concat),
    (Lambda(lambda x: torch.stack([x, x.relu()], 2).flatten(1, 2)), IMAGE, Concat),
    (Lambda(lambda x: torch.stack([x, x.relu()], 4)[..., 1]), IMAGE, Concat),
    (
        Lambda(lambda x: torch.cat([y.unflatten(1, (2, 2)) for y in (x, x.relu())], 2).flatten(1, 2)),
        IMAGE,
        Concat,
    ),
    (Lambda(lambda x: torch.cat([y[:, None] for y in (x, x.relu())], 1).flatten(2, 3)), IMAGE, Concat),
    (nn.Linear(13, 3), SERIES, Conv2d),
    (nn.Linear(12, 3, bias=False), IMAGE, Conv2d),
    (nn.Sequential(nn.Unflatten(1, (2, 2)), nn.Linear(12, 3)), IMAGE, Conv2d),
    (Lambda(lambda x: x @ x.mT), SERIES, Matmul),
    (Lambda(lambda x: torch.matmul(x.mT, x)), IMAGE, Matmul),
    (Lambda(lambda x: torch.bmm(x.transpose(1, 2), x)), SERIES, Matmul),
    (Lambda(lambda x: x[:, :1] @ x.mT), IMAGE, Matmul),
    (Lambda(lambda x: (x.unflatten(1, (2, 2)) @ x.unflatten(1, (2, 2)).mT).flatten(1, 2)), IMAGE, Matmul),
    (nn.LayerNorm(10), VECTOR, LayerNorm),
    (nn.LayerNorm(13, eps=0.1, bias=False), SERIES, LayerNorm),
    (nn.LayerNorm(12), IMAGE, LayerNorm),
    (nn.LayerNorm((9, 12)), IMAGE, LayerNorm),
    (nn.LayerNorm((4, 9, 12), elementwise_affine=False), IMAGE, LayerNorm),
    (nn.RMSNorm(13), SERIES, LayerNorm),
    (nn.RMSNorm(10, eps=0.1, elementwise_affine=False), VECTOR, LayerNorm),
    (nn.Sequential(nn.Unflatten(1, (2, 2)), nn.RMSNorm((9, 12)), nn.Flatten()), IMAGE, LayerNorm),
    (Steps(nn.GRU(13, 5, batch_first=True)), SERIES, Gru),
    (Steps(nn.LSTM(13, 5, batch_first=True)), SERIES, Lstm),
    (Steps(nn.RNN(13, 5, batch_first=True)), SERIES, Rnn),
    (nn.MaxPool2d(2), IMAGE, MaxPool2d),
    (nn.MaxPool2d(3, stride=2, padding=1, dilation=2), IMAGE, MaxPool2d),
    (nn.MaxPool2d(2, ceil_mode=True), IMAGE, MaxPool2d),
    (nn.MaxPool1d(3, stride=2, padding=1, ceil_mode=True), SERIES, MaxPool2d),
    (Lambda(lambda x: x.amax((2, 3))), IMAGE, MaxPool2d),
    (Lambda(lambda x: x.amax(-1)), SERIES, MaxPool2d),
    (nn.AvgPool2d(3), IMAGE, AveragePool2d),
    (nn.AvgPool2d(3, stride=2, padding=1), IMAGE, AveragePool2d),
    (nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False, ceil_mode=True), IMAGE, AveragePool2d),
    (nn.AvgPool2d(2, ceil_mode=True), IMAGE, AveragePool2d),
    (nn.AvgPool1d(3, stride=2, padding=1), SERIES, AveragePool2d),
    (nn.AdaptiveAvgPool2d(1), IMAGE, AveragePool2d),
    (nn.AdaptiveAvgPool2d((3, 4)), IMAGE, AveragePool2d),
    (nn.AdaptiveAvgPool2d((None, 1)), IMAGE, AveragePool2d),
    (nn.AdaptiveAvgPool1d(1), SERIES, AveragePool2d),
    (Lambda(lambda x: x.mean((-1, -2))), IMAGE, AveragePool2d),
    (Lambda(lambda x: x.mean(2)), IMAGE, AveragePool2d),
    (Lambda(lambda x: x.mean(3, keepdim=True)), IMAGE, AveragePool2d),
    (Lambda(lambda x: x.mean(2)), SERIES, AveragePool2d),
    *(
        (Lambda(lambda x, dims=dims, keep=keep: x.mean(dims, keepdim=keep)), IMAGE, AveragePool2d)
        for dims in ((1,), (2,), (3,), (1, 2), (1, 3), (2, 3), (1, 2, 3))
        for keep in (False, True)
    ),
    (Lambda(lambda x: x.amax(1)), IMAGE, MaxPool2d),
    (Lambda(lambda x: x.amax((1, 2), keepdim=True)), SERIES, MaxPool2d),
    (Lambda(lambda x: x.mean(1, keepdim=True)), VECTOR, AveragePool2d),
    (Lambda(lambda x: x.unflatten(1, (2, 2)).mean((1, 3))), IMAGE, AveragePool2d),
    (Lambda(lambda x: x.unflatten(1, (2, 2)).amax(4)), IMAGE, MaxPool2d),
    (nn.Upsample(scale_factor=2, mode="bilinear"), IMAGE, ResizeBilinear),
    (nn.Upsample((5, 31), mode="bilinear", align_corners=True), IMAGE, ResizeBilinear),
    (nn.UpsamplingBilinear2d(scale_factor=3), IMAGE, ResizeBilinear),
    (
        Lambda(lambda x: nn.functional.interpolate(x, scale_factor=(0.7, 1.3), mode="bilinear")),
        IMAGE,
        ResizeBilinear,
    ),
    (
        Lambda(
            lambda x: nn.functional.interpolate(x, None, 1.7, "bilinear", False, recompute_scale_factor=True)
        ),
        IMAGE,
        ResizeBilinear,
    ),
    (nn.Upsample(scale_factor=1.7, mode="linear"), SERIES, ResizeBilinear),
    (nn.Upsample(4, mode="linear", align_corners=True), SERIES, ResizeBilinear),
    (nn.ReLU(), IMAGE, Activation),
    (Lambda(lambda x: x.unflatten(1, (1, 1, 2, 5)).relu()), VECTOR, Activation),
    (nn.ReLU6(), SERIES, Activation),
    (nn.Hardtanh(-0.5, 0.25), VECTOR, Activation),
    (Lambda(lambda x: x.clamp(min=0.1)), VECTOR, Activation),
    (Lambda(lambda x: x.clamp_max(0.1)), VECTOR, Activation),
    (Lambda(lambda x: x.clamp(-1, 0.5)), VECTOR, Activation),
    (Lambda(lambda x: (x + x).relu_()), VECTOR, Activation),
    (nn.Softmax(1), VECTOR, Softmax),
    (nn.LogSoftmax(1), VECTOR, LogSoftmax),
    (nn.LogSoftmax(-1), IMAGE, LogSoftmax),
    (Lambda(lambda x: nn.functional.log_softmax(x, 1)), SERIES, LogSoftmax),
    (Lambda(lambda x: x - x.tanh()), IMAGE, Sub),
    (Lambda(lambda x: x.mean(2, keepdim=True) - x), SERIES, Sub),
    (Lambda(lambda x: torch.rsub(x, x.tanh())), VECTOR, Sub),
    (Lambda(lambda x: x.tanh().sub_(x)), VECTOR, Sub),
    (nn.Softmax(-1), VECTOR, Softmax),
    (nn.Softmax2d(), IMAGE, Softmax),
    (nn.Softmax(2), IMAGE, Softmax),
    (nn.Softmax(-1), SERIES, Softmax),
    (nn.Sequential(nn.Unflatten(1, (2, 2)), nn.Softmax(3), nn.Flatten()), IMAGE, Softmax),
    (nn.Softmax(-1), IMAGE, Softmax),
    (nn.PReLU(), IMAGE, Prelu),
    (Lambda(lambda x: nn.functional.embedding(x.argmax(1), torch.eye(4))), IMAGE, Embedding),
    (nn.PReLU(4), SERIES, Prelu),
    (Lambda(lambda x: x.argmax(1, keepdim=True)), IMAGE, Argmax),
    (Lambda(lambda x: x.unflatten(1, (2, 2)).softmax(-1)), IMAGE, Softmax),
    *((Lambda(move), shape, Move) for shape, moves in MOVES.items() for move in moves),
    (Lambda(lambda x: x**3), VECTOR, Table),
    (Lambda(lambda x: 2**x), SERIES, Table),
    (Lambda(lambda x: torch.remainder(x, 0.5)), IMAGE, Table),
    (Lambda(lambda x: torch.round(x, decimals=1)), VECTOR, Table),
    (nn.GELU(), VECTOR, Table),
    (nn.GELU("tanh"), VECTOR, Table),
    (nn.ELU(0.7), VECTOR, Table),
    (nn.Softplus(2.0, 10.0), VECTOR, Table),
    (nn.Threshold(0.1, -3.0), VECTOR, Table),
    (Lambda(lambda x: nn.functional.silu(x + x, inplace=True)), VECTOR, Table),
    *(
        (Lambda(getattr(torch.ops.aten, name)), IMAGE, Table)
        for name in UNARY_FUNCTIONS
        if name != "threshold"
    ),
]


def name_of(parameter: object) -> str:
    return str(parameter) if isinstance(parameter, nn.Module) else ""


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize(("module", "shape", "operator"), MODULES, ids=name_of)
def test_the_float_run_equals_the_module(
    module: nn.Module, shape: tuple[int, ...], operator: type[Operator]
) -> None:
    x = torch.randn(5, *shape, generator=torch.Generator().manual_seed(0))
    graph = capture(module, x)
    layers = [
        node.operator for node in graph.nodes if operator is Move or not isinstance(node.operator, Move)
    ]
    assert type(layers[-1]) is operator
    with torch.no_grad():
        expected = module(x)
        (y,) = graph.float_run(x)
    assert graph.values[graph.outputs[0]].shape == tuple(y.shape[1:])
    # Sums of up to 108 float32, in another order.
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5, equal_nan=True)


def test_every_operator_of_a_call_is_tested_here() -> None:
    assert {operator for operator in OPERATORS if operator.targets()} <= {
        operator for *_, operator in MODULES
    }


REFUSED: list[tuple[nn.Module, tuple[int, ...], str]] = [
    (Lambda(lambda x: torch.cat([x, x + x])), IMAGE, "the batch is not its first dimension alone"),
    (
        Lambda(lambda x: torch.stack([x, x + x]).flatten(0, 1)),
        VECTOR,
        "the batch is not its first dimension alone",
    ),
    (Lambda(lambda x: torch.cat([x] * 256, 1)), VECTOR, "it has 256 inputs; nano-core takes at most 255"),
    (
        nn.AvgPool2d(2, ceil_mode=True, divisor_override=3),
        IMAGE,
        "it divides by divisor_override, with ceil_mode",
    ),
    (
        nn.AvgPool2d(4, stride=3, padding=1, ceil_mode=True),
        IMAGE,
        "with ceil_mode its padding counts in some windows",
    ),
    (Lambda(lambda x: x.flip(0)), VECTOR, "it mixes the samples of a batch"),
    (Lambda(lambda x: x.roll(1, 0)), VECTOR, "it mixes the samples of a batch"),
    (Lambda(lambda x: x.roll(1)), SERIES, "it mixes the samples of a batch"),
    (Lambda(lambda x: x[:1].expand(x.shape[0], -1)), VECTOR, "without the batch: it takes one sample"),
    (Lambda(lambda x: x.transpose(0, 1)), VECTOR, "the batch is not its first dimension alone"),
    (Lambda(lambda x: nn.functional.pad(x, (1, 1), value=-torch.inf)), SERIES, "it pads with -inf"),
    (Lambda(lambda x: x[:, :0]), VECTOR, "its result has shape (0,) per sample; expected 1 to 2^22 elements"),
    (Lambda(lambda x: x.index_select(1, x.argmax(1))), VECTOR, "the batch is not its first"),
    (nn.Softmax(0), IMAGE, "it goes along the batch"),
]


@pytest.mark.parametrize(
    ("module", "shape", "reason"), REFUSED, ids=lambda p: p if isinstance(p, str) else ""
)
def test_what_nano_core_cannot_do_is_refused(module: nn.Module, shape: tuple[int, ...], reason: str) -> None:
    with pytest.raises(UnsupportedError) as refused:
        capture(module, torch.randn(5, *shape))
    assert reason in str(refused.value)

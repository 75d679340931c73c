import pytest
import torch
import torch.nn.functional as F
from networks import NETWORKS, inputs, make
from torch import Tensor, nn
from torch_nano.capture.capture import capture
from torch_nano.capture.passes import (
    PASSES,
    absorb_moves,
    fold_affines,
    fuse_activations,
    lower_affines,
    moves_into_convolutions,
    optimize,
)
from torch_nano.capture.structural import BatchNorm
from torch_nano.ir.graph import Graph
from torch_nano.ops import Activation, Move


class Net(nn.Module):
    """A model of these modules and this forward."""

    def __init__(self, forward, **modules):
        super().__init__()
        self.steps = forward
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x):
        return self.steps(self, x)


def batch_norm(channels: int, dimensions: int) -> nn.Module:
    """A batch norm with statistics as after some training."""
    module: nn.Module = (nn.BatchNorm1d, nn.BatchNorm2d)[dimensions - 1](channels)
    generator = torch.Generator().manual_seed(channels)
    with torch.no_grad():
        for tensor, low, high in (
            (module.running_mean, -1, 1),
            (module.running_var, 0.2, 3),
            (module.weight, -2, 2),
            (module.bias, -1, 1),
        ):
            tensor.uniform_(low, high, generator=generator)
    return module


def operators(graph: Graph) -> list[str]:
    return [node.operator.name for node in graph.nodes]


def count(graph: Graph, kind: type) -> int:
    return sum(isinstance(node.operator, kind) for node in graph.nodes)


def assert_unchanged(before: Graph, after: Graph, x: Tensor, *, exact: bool) -> None:
    (expected,), (found,) = before.float_run(x), after.float_run(x)
    # Folded weights are rounded to float32 once more: a few units in the last place of the sums, whose terms
    # are of size 1 here.
    tolerance = 0 if exact else 1e-5
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("network", "shape"), NETWORKS)
def test_every_pass_leaves_the_float_run_and_its_argument_as_they_are(network, shape):
    x = inputs(shape, 5)
    graph = capture(make(network), x)
    for run_pass in PASSES:
        text = str(graph)
        parameters = {name: tensor.clone() for name, tensor in graph.parameters.items()}
        after = run_pass(graph)
        assert_unchanged(
            graph, after, x, exact=run_pass in (absorb_moves, moves_into_convolutions, fuse_activations)
        )
        assert str(graph) == text
        assert all(torch.equal(tensor, parameters[name]) for name, tensor in graph.parameters.items())
        graph = after
    assert count(graph, BatchNorm) == count(graph, Activation) == count(graph, Move) == 0


class TestFoldBatchNorm:
    @pytest.mark.parametrize(
        ("layer", "norm", "shape"),
        [
            (nn.Conv2d(3, 4, 3), batch_norm(4, 2), (3, 5, 5)),
            (nn.Conv2d(4, 4, 3, groups=2, bias=False), batch_norm(4, 2), (4, 5, 5)),
            (nn.Conv2d(4, 8, 3, groups=4), batch_norm(8, 2), (4, 5, 5)),
            (nn.Conv2d(4, 4, 3, groups=4, bias=False), batch_norm(4, 2), (4, 5, 5)),
            (nn.Conv1d(3, 4, 3), batch_norm(4, 1), (3, 9)),
            (nn.Linear(6, 4), batch_norm(4, 1), (6,)),
            (nn.Linear(6, 4, bias=False), nn.BatchNorm1d(4, affine=False), (6,)),
        ],
    )
    def test_it_disappears_into_the_layer(self, layer, norm, shape):
        x = inputs(shape, 5)
        graph = capture(nn.Sequential(layer, norm), x)
        folded = fold_affines(graph)
        assert folded.nodes[0].parameters == {"weight": "0.folded_weight", "bias": "0.folded_bias"}
        assert len(folded.nodes) == 1
        assert_unchanged(graph, folded, x, exact=False)

    def test_it_follows_from_the_original_parameters(self):
        """What training changes: the derived parameters come out as if the pass ran again, with gradients."""
        model = nn.Sequential(nn.Conv2d(3, 4, 3), batch_norm(4, 2))
        x = inputs((3, 5, 5), 5)
        folded = fold_affines(capture(model, x))
        live = dict(model.named_parameters()) | dict(model.named_buffers())
        with torch.no_grad():
            model[0].weight.mul_(2.0)
            model[1].running_mean.add_(1.0)
        again = folded.parameters_from(live)
        fresh = fold_affines(capture(model, x))
        for role, name in folded.nodes[0].parameters.items():
            assert torch.equal(again[name], fresh.parameters[fresh.nodes[0].parameters[role]])
        again["0.folded_weight"].sum().backward()
        assert model[0].weight.grad is not None and model[1].weight.grad is not None

    def test_it_stays_where_others_read_the_layer(self):
        def forward(self, x):
            y = self.conv(x)
            return y + self.norm(y)

        x = inputs((2, 5, 5), 3)
        graph = capture(Net(forward, conv=nn.Conv2d(2, 2, 1), norm=batch_norm(2, 2)), x)
        assert operators(fold_affines(graph)) == operators(graph)

    def test_a_layer_that_is_used_twice_keeps_its_own_weights(self):
        def forward(self, x):
            return self.norm(self.conv(x)) + self.conv(x)

        x = inputs((2, 5, 5), 3)
        graph = capture(Net(forward, conv=nn.Conv2d(2, 2, 3), norm=batch_norm(2, 2)), x)
        folded = fold_affines(graph)
        assert operators(folded) == ["conv2d", "conv2d", "add"]
        assert_unchanged(graph, folded, x, exact=False)

    def test_it_is_not_folded_across_an_activation(self):
        x = inputs((2, 5, 5), 3)
        graph = capture(nn.Sequential(nn.Conv2d(2, 2, 1), nn.ReLU(), batch_norm(2, 2)), x)
        assert operators(fold_affines(graph)) == operators(graph)


class TestLowerBatchNorm:
    @pytest.mark.parametrize(
        ("norm", "shape"),
        [(batch_norm(4, 2), (4, 5, 6)), (batch_norm(4, 1), (4, 7)), (batch_norm(4, 1), (4,))],
    )
    def test_it_becomes_a_depthwise_convolution(self, norm, shape):
        x = inputs(shape, 5)
        graph = capture(nn.Sequential(nn.Hardtanh(), norm, nn.ReLU()), x)
        lowered = fuse_activations(absorb_moves(lower_affines(graph)))
        assert [name for name in operators(lowered) if name != "move"] == ["table", "depthwise_conv2d"]
        assert_unchanged(graph, lowered, x, exact=False)


class TestFuseActivations:
    @pytest.mark.parametrize(
        "activation", [nn.ReLU(), nn.ReLU6(), nn.Hardtanh(-0.5, 0.25), nn.ReLU(inplace=True)]
    )
    @pytest.mark.parametrize(
        ("layer", "shape"),
        [
            (nn.Conv2d(3, 4, 3), (3, 5, 5)),
            (nn.Conv1d(4, 4, 3, groups=4), (4, 8)),
            (nn.Linear(6, 4), (6,)),
            (Net(lambda s, x: x + F.hardswish(x)), (6,)),
        ],
    )
    def test_it_disappears_into_the_layer(self, layer, shape, activation):
        x = inputs(shape, 50)
        graph = capture(nn.Sequential(layer, activation), x)
        fused = fuse_activations(graph)
        assert len(fused.nodes) == len(graph.nodes) - 1 and count(fused, Activation) == 0
        assert_unchanged(graph, fused, x, exact=True)

    def test_two_in_a_row_are_fused(self):
        x = inputs((6,), 50)
        graph = capture(nn.Sequential(nn.Linear(6, 4), nn.Hardtanh(-0.1, 0.5), nn.ReLU()), x)
        fused = fuse_activations(graph)
        assert len(fused.nodes) == 1
        assert_unchanged(graph, fused, x, exact=True)

    def test_it_stays_where_the_layer_has_another_reader_or_is_an_output(self):
        def forward(self, x):
            y = self.linear(x)
            return y + F.relu(y)

        x = inputs((6,), 3)
        graph = capture(Net(forward, linear=nn.Linear(6, 4)), x)
        assert operators(fuse_activations(graph)) == operators(graph)


class TestAbsorbMoves:
    @pytest.mark.parametrize(
        ("forward", "expected"),
        [
            (lambda s, x: s.linear(x.flatten(1)), ["fully_connected"]),
            (
                lambda s, x: s.linear(x.reshape(x.shape[0], -1, 4).reshape(x.shape[0], -1)),
                ["fully_connected"],
            ),
            (lambda s, x: s.linear(F.relu(F.hardswish(x.flatten(1)))), ["table", "table", "fully_connected"]),
            (
                lambda s, x: F.relu(s.linear(x.view(-1, 24))).unsqueeze(2),
                ["fully_connected", "table", "move"],
            ),
            (lambda s, x: s.linear(x.flatten(1)) + s.linear(x.flatten(1)), ["fully_connected"] * 2 + ["add"]),
            (lambda s, x: x.mean((2, 3), keepdim=True).flatten(1), ["average_pool2d", "move"]),
            (
                lambda s, x: x.mean((2, 3), keepdim=True).flatten(1).unflatten(1, (2, 1, 1)),
                ["average_pool2d"],
            ),
        ],
    )
    def test_it_disappears_or_is_free(self, forward, expected):
        x = inputs((2, 3, 4), 5)
        graph = capture(Net(forward, linear=nn.Linear(24, 5)), x)
        absorbed = absorb_moves(graph)
        assert operators(absorbed) == expected
        assert_unchanged(graph, absorbed, x, exact=True)

    @pytest.mark.parametrize(
        ("forward", "expected"),
        [
            (lambda s, x: x.flatten(1), ["move"]),
            (lambda s, x: F.softmax(x.flatten(1), 1), ["move", "softmax"]),
            (lambda s, x: s.linear(x.flatten(1)).unflatten(1, (2, 3)), ["fully_connected", "move"]),
            (lambda s, x: F.max_pool1d(F.relu(x).flatten(2), 2), ["table", "move", "max_pool2d"]),
            (lambda s, x: F.hardswish(x.repeat(1, 2, 1, 1)), ["table", "move"]),
            (lambda s, x: F.hardswish(x[:, :1]), ["move", "table"]),
            (lambda s, x: s.linear(x.permute(0, 2, 3, 1).flatten(1)), ["fully_connected"]),
            (
                lambda s, x: s.linear(F.hardswish(x.flip(2)).transpose(1, 3).flatten(1)),
                ["table", "fully_connected"],
            ),
            (lambda s, x: s.linear(x.repeat(1, 2, 1, 1)[:, ::2].flatten(1)), ["move", "fully_connected"]),
            (lambda s, x: x.transpose(1, 2)[:].transpose(1, 2) + x, ["add"]),
            (
                lambda s, x: x.view(x.shape[0], 1, 2, 1, 3, 4).transpose(1, 4).reshape(x.shape[0], 6, 4),
                ["move"],
            ),
        ],
    )
    def test_one_move_is_left_where_bytes_move(self, forward, expected):
        x = inputs((2, 3, 4), 5)
        graph = capture(Net(forward, linear=nn.Linear(24, 6)), x)
        absorbed = absorb_moves(graph)
        assert operators(absorbed) == expected
        assert_unchanged(graph, absorbed, x, exact=True)

    @pytest.mark.parametrize(
        ("drop", "expected"),
        [(nn.Dropout(), ["fully_connected"]), (nn.Dropout2d(), ["move", "fully_connected"])],
    )
    def test_dropouts_keep_their_effect(self, drop, expected):
        """Single numbers can be dropped after a permutation, whole channels cannot."""

        def forward(self, x):
            return self.linear(self.drop(x.transpose(1, 2)).transpose(1, 2).flatten(1))

        graph = capture(Net(forward, linear=nn.Linear(24, 6), drop=drop), inputs((2, 3, 4), 5))
        absorbed = absorb_moves(graph)
        assert operators(absorbed) == expected
        assert [len(value.dropouts) for value in absorbed.values.values()].count(1) == 1

    def test_a_dropout_of_channels_between_moves_keeps_its_channels(self):
        """Of a shape that no device has, the other dimensions are joined."""

        def forward(self, x):
            x = self.drop(x.reshape(x.shape[0], 2, 3, 2, 2).transpose(1, 2))
            return self.linear(x.flatten(1))

        x = inputs((2, 3, 4), 5)
        graph = capture(Net(forward, linear=nn.Linear(24, 6), drop=nn.Dropout3d()), x)
        after = optimize(graph)
        (dropped,) = [value for value in after.values.values() if value.dropouts]
        assert dropped.shape[0] == 3 and len(dropped.shape) <= 3
        assert_unchanged(graph, after, x, exact=False)


class TestMovesIntoConvolutions:
    @pytest.mark.parametrize(
        ("forward", "padding"),
        [
            (lambda s, x: s.conv(F.pad(x, (1, 2, 0, 3))), (0, 3, 1, 2)),
            (lambda s, x: s.conv(F.pad(F.pad(x, (1, 0)), (0, 0, 2, 1))), (2, 1, 1, 0)),
            (lambda s, x: s.padded(F.pad(x, (1, 2))), (1, 1, 2, 3)),
            (lambda s, x: s.padded(x)[:, :, 1:, :-1], (0, 1, 1, 0)),
            (lambda s, x: F.relu(s.padded(x)[:, :, :-1]), (1, 0, 1, 1)),
            (lambda s, x: F.relu(s.norm(s.padded(x)[:, :, :-1])), (1, 0, 1, 1)),
            (lambda s, x: s.strided(x)[:, :, :-1, 1:], (2, 0, 0, 1)),
        ],
    )
    def test_pads_and_crops_become_padding(self, forward, padding):
        x = inputs((2, 7, 6), 5)
        model = Net(
            forward,
            conv=nn.Conv2d(2, 4, 3),
            padded=nn.Conv2d(2, 4, 3, padding=1),
            strided=nn.Conv2d(2, 4, 3, padding=2, stride=2),
            norm=batch_norm(4, 2),
        )
        graph = capture(model, x)
        after = optimize(graph)
        assert operators(after) == ["conv2d"]
        assert after.nodes[0].operator.padding == padding
        assert_unchanged(graph, after, x, exact=False)

    @pytest.mark.parametrize(
        ("forward", "expected"),
        [
            (lambda s, x: s.conv(F.pad(x, (1, 1, 0, 0), mode="reflect")), ["move", "conv2d"]),
            (lambda s, x: s.one(F.pad(x, (0, 0, 0, 0, 1, 0))), ["move", "conv2d"]),
            (lambda s, x: s.conv(x)[:, :, 1:], ["conv2d", "move"]),
            (lambda s, x: s.conv(x)[:, 1:], ["conv2d", "move"]),
            (lambda s, x: s.padded(x)[:, :, ::2], ["conv2d", "move"]),
            (lambda s, x: F.max_pool2d(F.pad(x, (1, 1)), 2), ["move", "max_pool2d"]),
            (lambda s, x: s.norm(s.padded(x))[:, :, 1:], ["conv2d", "move"]),
            (lambda s, x: s.transposed(F.pad(x, (1, 1))), ["move", "conv_transpose2d"]),
            (lambda s, x: s.transposed(x)[:, :, 1:-1, 2:], ["conv_transpose2d", "move"]),
            (lambda s, x: (lambda y: y[:, :, 1:-1] + F.max_pool2d(y, 3, 1, (0, 1)))(s.padded(x)), None),
        ],
    )
    def test_other_moves_stay(self, forward, expected):
        x = inputs((2, 7, 6), 5)
        model = Net(
            forward,
            conv=nn.Conv2d(2, 4, 3),
            one=nn.Conv2d(3, 4, 1),
            padded=nn.Conv2d(2, 4, 3, padding=1),
            transposed=nn.ConvTranspose2d(2, 4, 7, padding=2),
            norm=batch_norm(4, 2),
        )
        graph = capture(model, x)
        after = optimize(graph)
        assert operators(after) == (expected or ["conv2d", "move", "max_pool2d", "add"])
        assert_unchanged(graph, after, x, exact=False)

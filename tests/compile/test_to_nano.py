import copy
import pickle
import time

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torch_nano as tn
from networks import NETWORKS, ConvNet1d, Mlp, inputs, make
from sklearn.datasets import load_digits
from torch import nn
from torch_nano import _native
from torch_nano.compile.verify import verify_host


def test_squeeze_and_excite_by_linear_layers_needs_no_operator_for_its_view():
    class Excited(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 3)

        def forward(self, x):
            return x * torch.sigmoid(self.linear(x.mean((2, 3)))).view(-1, 3, 1, 1)

    x = inputs((3, 5, 4), 64)
    nano = tn.to_nano(Excited(), x, calibrate=x)
    operators = [layer.operator for layer in nano.summary().layers]
    assert operators == ["average_pool2d", "fully_connected", "table", "mul"]
    assert nano.verify("host", x).differing_bytes == 0


@pytest.mark.parametrize("ranges", [{}, {"method": "percentile", "percentile": 99.0}])
@pytest.mark.parametrize(("network", "shape"), NETWORKS)
def test_torch_and_nano_core_give_the_same_bytes(network, shape, ranges):
    model = make(network)
    x = inputs(shape, 64)
    nano = tn.to_nano(model, x[:1], calibrate=x, check=False, **ranges)
    for data in (None, x, x * 5):
        report = nano.verify("host", data)
        assert report and report.differing_bytes == 0 and report.first_difference is None
        assert report.compared_bytes > report.inputs * len(nano.summary().layers)
    (expected,) = nano.graph.integer_run(nano.quantize_input(x))
    assert torch.equal(nano.forward_int8(nano.quantize_input(x)), expected)
    real = (expected.float() - nano.output_quantization.zero_point) * nano.output_quantization.scale
    assert torch.equal(nano(x), real)


@pytest.mark.parametrize(("network", "shape"), NETWORKS)
def test_int8_is_close_to_float(network, shape):
    model = make(network)
    x = inputs(shape, 256)
    nano = tn.to_nano(model, x, calibrate=x)
    with torch.no_grad():
        expected = model(x)
    noise = (nano(x) - expected).square().mean() / (expected - expected.mean(0)).square().mean()
    # 8 bits are 48 dB per tensor; a few layers in a row leave more than 26 dB, and a wrong scale or layout
    # leaves nothing.
    assert noise < 1 / 400


def test_a_trained_classifier_keeps_its_accuracy():
    digits = load_digits()
    x = torch.tensor(digits.images[:, None] / 16, dtype=torch.float32)
    y = torch.tensor(digits.target)
    model = make(Mlp).train()
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    batches = torch.Generator().manual_seed(0)
    for _ in range(300):
        batch = torch.randint(1200, (64,), generator=batches)
        optimizer.zero_grad()
        F.cross_entropy(model(x[batch]), y[batch]).backward()
        optimizer.step()
    nano = tn.to_nano(model.eval(), x, calibrate=x[:1200])
    accuracies = [(run(x[1200:]).argmax(1) == y[1200:]).float().mean().item() for run in (model, nano)]
    # It learnt something, and int8 after training costs at most one point, as in the literature.
    assert accuracies[0] > 0.85 and accuracies[1] > accuracies[0] - 0.01


def test_the_summary_says_why_nothing_learns() -> None:
    model, x = nn.Sequential(nn.Linear(4, 3)), torch.randn(64, 4)
    assert "no head: nothing learns on the device" in str(tn.to_nano(model, x, calibrate=x).summary())
    learning = tn.to_nano(model, x, calibrate=x, head="0")
    assert "no head" not in str(learning.summary())


def test_the_graph_and_the_summary_agree(nano):
    summary = nano.summary()
    assert [(layer.operator, layer.module_path) for layer in summary.layers] == [
        ("conv2d", "features.0"),
        ("max_pool2d", "features.3"),
        ("conv2d", "features.4"),
        ("average_pool2d", "features.7"),
        ("fully_connected", "classifier"),
    ]
    assert [layer.output_shape for layer in summary.layers] == [(8, 40), (8, 20), (16, 20), (16, 1), (5,)]
    assert [layer.macs for layer in summary.layers] == [40 * 8 * 15, 0, 20 * 16 * 24, 0, 16 * 5]
    assert {layer.memory for layer in summary.layers} == {"flash"}
    assert max(layer.arena_bytes for layer in summary.layers) == summary.arena_bytes
    assert summary.flash_bytes == len(nano.image) and summary.arena_bytes == nano.arena_bytes
    assert summary.macs == 40 * 8 * 15 + 20 * 16 * 24 + 80 and summary.head_bytes == 0
    text = str(summary).splitlines()
    notes = [line for line in text if "equalized" in line or "no head" in line]
    text = [line for line in text if line not in notes]
    assert len(text) == 10 and f"flash {len(nano.image):,} B" in text[-1] and "features.0" in text[4]
    assert max(map(len, text)) <= 80


class ResidualBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(4, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x):
        return F.relu(x + self.second(F.relu(self.first(x))))


def test_a_convolution_and_an_addition_are_one_layer():
    torch.manual_seed(0)
    x = inputs((4, 8, 8), 64)
    nano = tn.to_nano(nn.Sequential(ResidualBlock(), nn.MaxPool2d(8)), x, calibrate=x, optimize="ram")
    summary = nano.summary()
    assert [(layer.operator, layer.module_path) for layer in summary.layers] == [
        ("conv2d", "0.first"),
        ("conv2d_add", "0.second + 0"),
        ("max_pool2d", "1"),
    ]
    assert [layer.output_shape for layer in summary.layers] == [(4, 8, 8), (4, 8, 8), (4, 1, 1)]
    # Two values; the columns of four pixels, and what they become.
    assert summary.layers[1].arena_bytes == summary.arena_bytes == 2 * 256 + 4 * 36 + 4 * 4
    assert nano.verify("host") and nano.verify("rv32imc")
    # A difference in the convolution is seen in the sum.
    graph = copy.deepcopy(nano.graph)
    (name,) = [node.name for node in graph.graph.nodes if graph.graph.module_path(node) == "0.second"]
    graph.tensors[name]["bias"] += 1000
    report = verify_host(_native.Model(nano.image), graph, [nano.quantize_input(x)])
    first = report.first_difference
    assert (first.operator, first.module_path) == ("conv2d_add", "0")


def test_a_model_has_its_name_labels_and_shapes(nano):
    assert (nano.name, nano.labels, nano.input_shape) == ("conv net", list("abcde"), (3, 40))
    assert nano.head is None and nano.input_quantization.range[0] < 0 < nano.input_quantization.range[1]


def test_batches_may_have_any_size(nano):
    x = inputs((3, 40), 7)
    every = nano(x)
    assert torch.equal(every, torch.cat([nano(x[i : i + 1]) for i in range(7)]))
    assert nano(x[:0]).shape == (0, 5)
    assert torch.equal(nano(x.double()), every)
    assert torch.equal(nano(x.transpose(1, 2).contiguous().transpose(1, 2)), every)


def test_forward_int8_takes_and_returns_integers(nano):
    q = torch.randint(-128, 128, (4, 3, 40), dtype=torch.int8, generator=torch.Generator().manual_seed(0))
    y = nano.forward_int8(q)
    assert y.dtype == torch.int8 and y.shape == (4, 5)


def test_inputs_outside_the_range_saturate(nano):
    x = torch.full((1, 3, 40), 1e30)
    assert (nano.quantize_input(x) == 127).all() and (nano.quantize_input(-x) == -128).all()


@pytest.mark.parametrize(
    ("x", "reason"),
    [
        (torch.zeros(1, 3, 41), r"shape \(1, 3, 41\).*\[N, 3, 40\] of floats"),
        (torch.zeros(3, 40), r"shape \(3, 40\)"),
        (torch.zeros(()), r"shape \(\)"),
        (torch.zeros(1, 3, 40, dtype=torch.int8), "int8.*of floats"),
        (torch.full((2, 3, 40), torch.nan), r"NaN or infinity in samples \[0, 1\] of 2"),
        (torch.full((1, 3, 40), torch.inf), "NaN or infinity"),
        (np.full((1, 3, 40), "a"), "is a ndarray"),
        (torch.zeros(1, 3, 40).to_sparse(), "of layout torch.sparse_coo; expected a dense one"),
        (torch.zeros(1, 3, 40, device="meta"), "on the meta device; expected a dense one"),
    ],
)
def test_wrong_inputs_are_refused(nano, x, reason):
    with pytest.raises(tn.errors.InputError, match=reason):
        nano(x)


def test_wrong_int8_inputs_are_refused(nano):
    with pytest.raises(tn.errors.InputError, match="of int8"):
        nano.forward_int8(torch.zeros(1, 3, 40))
    with pytest.raises(tn.errors.InputError, match="of floats or int8"):
        nano.verify(data=torch.zeros(1, 3, 40, dtype=torch.int32))
    with pytest.raises(tn.errors.InputError, match=r"'avr'.*host"):
        nano.verify("avr")
    with pytest.raises(tn.errors.HeadError, match="no trainable head"):
        nano.features_int8(torch.zeros(1, 3, 40))


def test_verify_finds_the_layer_that_differs(conv_net):
    x = inputs((3, 40), 8)
    nano = tn.to_nano(conv_net, x, calibrate=x)
    weights = nano.graph.tensors["conv1d_1"]["weights"]
    weights.neg_()
    report = nano.verify("host", x)
    assert not report and report.differing_bytes > 0
    assert report.first_difference.module_path == "features.4"
    assert "first in conv2d of module 'features.4'" in str(report)


def test_copies_run_the_same(nano):
    x = inputs((3, 40), 3)
    for copied in (copy.deepcopy(nano), pickle.loads(pickle.dumps(nano))):
        assert torch.equal(copied(x), nano(x)) and copied.image == nano.image


def test_the_model_itself_is_not_changed():
    model = make(ConvNet1d).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    x = inputs((3, 40), 16)
    tn.to_nano(model, x, calibrate=x)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_the_method_is_the_function_and_unwraps(conv_net, nano):
    x = inputs((3, 40), 64)
    options = {"calibrate": x, "labels": list("abcde"), "name": "conv net"}
    averaged = torch.optim.swa_utils.AveragedModel(conv_net)
    for wrapped in (
        conv_net,
        copy.deepcopy(conv_net),
        torch.compile(conv_net),
        nn.DataParallel(conv_net),
        averaged,
    ):
        assert wrapped.to_nano(x, **options).image == nano.image


def test_the_same_model_gives_the_same_image(conv_net, nano):
    x = inputs((3, 40), 64)
    again = tn.to_nano(conv_net, x[:3], calibrate=[x[:10], x[10:]], labels=list("abcde"), name="conv net")
    assert again.image == nano.image and again.id == nano.id


def test_calibration_takes_all_kinds_of_data(conv_net, nano):
    x = inputs((3, 40), 64)
    dataset = torch.utils.data.TensorDataset(x, torch.zeros(64))
    loader = torch.utils.data.DataLoader(dataset, batch_size=10)
    for data in (loader, (batch for batch in x.split(20)), [(x, 1)], x.double()):
        other = tn.to_nano(conv_net, x, calibrate=data, labels=list("abcde"), name="conv net")
        assert other.image == nano.image


def test_dead_channels_and_constant_layers_stay_exact():
    # The biases of this seed are not too small for the last layer, whose input has scale 1.
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 1), nn.Flatten(), nn.Linear(12, 2))
    with torch.no_grad():
        model[0].weight[1:3] = 0
        model[0].bias[1] = -5
        model[2].weight.zero_()
        model[2].bias.zero_()
    x = inputs((2, 4, 4), 32)
    nano = tn.to_nano(model, x, calibrate=x)
    assert nano.verify("host", x)
    with torch.no_grad():
        # Only the last bias is left of the output; int8 holds it within half a step.
        assert (nano(x) - model(x)).abs().max() <= nano.output_quantization.scale


@pytest.mark.parametrize(
    ("options", "error", "reason"),
    [
        ({"calibrate": torch.zeros(0, 3, 40)}, tn.errors.InputError, "calibration data is empty"),
        ({"calibrate": []}, tn.errors.InputError, "calibration data is empty"),
        ({"calibrate": torch.zeros(4, 3, 41)}, tn.errors.InputError, r"shape \(4, 3, 41\).*\[N, 3, 40\]"),
        ({"calibrate": torch.zeros(4, 3, 40, dtype=torch.int8)}, tn.errors.InputError, "of floats"),
        ({"calibrate": 3}, tn.errors.InputError, "is a int"),
        ({"calibrate": ["a"]}, tn.errors.InputError, "batch is a str"),
        ({"calibrate": torch.full((4, 3, 40), torch.nan)}, tn.errors.NonFiniteError, "the input.*NaN"),
        ({"calibrate": torch.full((4, 3, 40), 3e38)}, tn.errors.NonFiniteError, r"module 'features\."),
        ({"method": "median"}, tn.errors.InputError, "'median'.*minmax, percentile"),
        ({"labels": ["a"]}, tn.errors.InputError, "1 labels for a model of 5 outputs"),
        ({"labels": list("abcda")}, tn.errors.InputError, "labels 0 and 4 are both 'a'"),
        ({"name": 5}, tn.errors.InputError, "name is 5; expected a text"),
        ({"name": "two\nlines"}, tn.errors.InputError, "on one line"),
    ],
)
def test_wrong_arguments_are_refused(conv_net, options, error, reason):
    x = inputs((3, 40), 8)
    with pytest.raises(error, match=reason):
        tn.to_nano(conv_net, x, **({"calibrate": x} | options))


def test_many_labels_are_checked_in_linear_time(conv_net):
    x = inputs((3, 40), 8)
    start = time.process_time()
    with pytest.raises(tn.errors.InputError, match="100000 labels for a model of 5 outputs"):
        tn.to_nano(conv_net, x, calibrate=x, labels=[str(k) for k in range(100_000)])
    # Each with all before it would take minutes.
    assert time.process_time() - start < 10


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize(
    ("name", "place"), [("features.1.running_var", "features.0"), ("classifier.bias", "classifier")]
)
def test_weights_that_are_not_finite_are_refused(name, place, value):
    model = make(ConvNet1d)
    model.state_dict()[name].view(-1)[0] = value if name != "features.1.running_var" else torch.nan
    x = inputs((3, 40), 8)
    with pytest.raises(tn.errors.NonFiniteError, match=f"module '{place}'"):
        tn.to_nano(model, x, calibrate=x)


@pytest.mark.parametrize("path", ["", "1.0"])
def test_a_layer_that_nano_core_refuses_is_named(path):
    torch.manual_seed(0)
    layer = nn.Linear(270_000, 1)
    model = nn.Sequential(nn.ReLU(), nn.Sequential(layer), nn.ReLU()) if path else layer
    x = torch.randn(2, 270_000)
    place = f"module '{path}'" if path else "the model itself"
    message = f"{place}: fully_connected: the largest accumulator of a channel.* must stay below 2\\^31"
    with pytest.raises(tn.errors.QuantizationError, match=message) as caught:
        tn.to_nano(model, x, calibrate=x)
    assert caught.value.module_path == path

import copy
import sys

import numpy as np
import pytest
import torch
import torch_nano as tn
from matplotlib import pyplot
from networks import ConvNet1d, ResidualNet, inputs, make
from torch import Tensor, nn

from .hooks import hooks_of


@pytest.fixture
def net() -> nn.Module:
    return make(ResidualNet)


@pytest.fixture
def x() -> Tensor:
    return inputs((2, 8, 8), 6)


class Failing(nn.Module):
    """Fails after its first layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.unused = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError(f"no way on from {self.first(x).shape}")


def test_outputs_are_those_of_the_layers(net, x):
    outputs = tn.transfer.get_layer_outputs(net, x, ["stem", "projection", "classifier", ""])
    assert list(outputs) == ["stem", "projection", "classifier", ""]
    assert torch.equal(outputs["stem"], net.stem(x))
    assert torch.equal(outputs["classifier"], net(x)) and torch.equal(outputs[""], net(x))
    # The order of the residual sums is the forward's own.
    first = net.relu(net.first(net.stem(x)) + net.stem(x))
    assert torch.equal(outputs["projection"], net.projection(first))


def test_a_later_in_place_operation_does_not_change_a_recorded_output():
    net = make(ConvNet1d)
    x = inputs((3, 40), 4)
    assert net.features[6].inplace
    output = tn.transfer.get_layer_outputs(net, x, ["features.5"])["features.5"]
    assert torch.equal(output, net.features[:6](x)) and output.min() < 0


def test_outputs_are_those_of_evaluation_mode_and_modes_stay():
    net = make(ConvNet1d)
    x = inputs((3, 40), 4)
    expected = tn.transfer.get_layer_outputs(net, x, ["features.1", "dropout"])
    net.train()
    net.features[3].eval()
    modes = [module.training for module in net.modules()]
    statistics = net.features[1].running_mean.clone()
    outputs = tn.transfer.get_layer_outputs(net, x, ["features.1", "dropout"])
    assert all(torch.equal(outputs[name], expected[name]) for name in expected)
    assert torch.equal(net.features[1].running_mean, statistics)
    assert [module.training for module in net.modules()] == modes


def test_gradients_flow_through_recorded_outputs(net, x):
    tn.transfer.get_layer_outputs(net, x, ["stem"])["stem"].sum().backward()
    assert net.stem[0].weight.grad.abs().sum() > 0
    with torch.no_grad():
        assert not tn.transfer.get_layer_outputs(net, x, ["stem"])["stem"].requires_grad


def test_outputs_are_the_last_calls_and_a_tuples_first(net, x):
    relu = tn.transfer.get_layer_outputs(net, x, ["relu", "pool"])
    assert torch.equal(relu["pool"], net.pool(relu["relu"]))
    gru = nn.Sequential(nn.GRU(3, 5, batch_first=True))
    sequence = torch.zeros(2, 7, 3)
    assert torch.equal(tn.transfer.get_layer_outputs(gru, sequence, ["0"])["0"], gru[0](sequence)[0])


def functions_with_hooks(layer):
    return [
        lambda model, x: tn.transfer.get_layer_outputs(model, x, [layer]),
        lambda model, x: tn.transfer.visualize_layer_activations(model, x, layer),
        lambda model, x: tn.transfer.get_model_feature_extractor(model, layer)(x),
        lambda model, x: tn.transfer.compare_model_features(model, model, x, [(layer, layer)]),
    ]


@pytest.mark.parametrize("function", functions_with_hooks("stem.0"))
def test_no_hook_stays(net, x, function):
    tn.freeze(net, "stem")
    before = hooks_of(net)
    assert before
    function(net, x)
    pyplot.close("all")
    assert hooks_of(net) == before


@pytest.mark.parametrize("layer", ["first", "unused"])
@pytest.mark.parametrize("which", range(4))
def test_no_hook_stays_when_the_forward_fails(layer, which):
    model = Failing().train()
    if layer == "first" and which == 2:
        # The extractor ends at the layer: what fails comes after it.
        assert tn.transfer.get_model_feature_extractor(model, layer)(torch.zeros(1, 4)).shape == (1, 4)
    else:
        with pytest.raises((RuntimeError, tn.errors.InputError), match="no way on"):
            functions_with_hooks(layer)[which](model, torch.zeros(1, 4))
    assert hooks_of(model) == [] and all(module.training for module in model.modules())


@pytest.mark.parametrize("function", functions_with_hooks("stemm"))
def test_an_unknown_name_lists_near_ones(net, x, function):
    with pytest.raises(tn.errors.ModuleNameError, match=r"'stemm'.*did you mean.*'stem'"):
        function(net, x)
    assert hooks_of(net) == []


def test_a_layer_that_is_not_called_is_named():
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x)

    for function in functions_with_hooks("unused"):
        with pytest.raises(tn.errors.ModuleNameError, match="'unused' but does not call it"):
            function(Idle(), torch.zeros(1, 4))


def test_one_name_instead_of_a_list_is_refused(net, x):
    with pytest.raises(tn.errors.ModuleNameError, match=r"expected a list of names: \['stem'\]"):
        tn.transfer.get_layer_outputs(net, x, "stem")


def test_a_picture_of_maps_is_a_mosaic_of_the_channels(net, x):
    axes = tn.transfer.visualize_layer_activations(net, x, "second")
    maps = tn.transfer.get_layer_outputs(net, x, ["second"])["second"][0].detach()
    shown = torch.from_numpy(axes.images[0].get_array().filled(float("nan")))
    # 12 channels of 4x4 in a grid of 3 rows and 4 columns, one pixel between two.
    assert shown.shape == (3 * 5 - 1, 4 * 5 - 1)
    for channel in range(12):
        top, left = channel // 4 * 5, channel % 4 * 5
        assert torch.equal(shown[top : top + 4, left : left + 4], maps[channel])
    assert shown[4].isnan().all() and shown[:, 4].isnan().all()
    assert axes.get_title() == "second [12, 4, 4], the first of 6 samples"
    pyplot.close("all")


def test_a_picture_has_the_colours_of_its_activations(net, x):
    figure, axes = pyplot.subplots(dpi=100)
    assert tn.transfer.visualize_layer_activations(net, x, "classifier", ax=axes) is axes
    figure.canvas.draw()
    pixels = torch.from_numpy(np.array(figure.canvas.buffer_rgba())[..., :3])
    output = net(x).detach()
    for value in (output.min(), output.max()):
        sample, feature = (output == value).nonzero()[0].tolist()
        column, row = axes.transData.transform((feature, sample)).astype(int)
        image = axes.images[0]
        expected = image.cmap(image.norm(float(value)), bytes=True)[:3]
        assert tuple(pixels[pixels.shape[0] - 1 - row, column].tolist()) == tuple(int(c) for c in expected)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("feature", "sample")
    pyplot.close("all")


def test_a_picture_of_a_series_has_channels_by_positions():
    net = make(ConvNet1d)
    x = inputs((3, 40), 2)
    axes = tn.transfer.visualize_layer_activations(net, x, "features.0")
    shown = torch.from_numpy(axes.images[0].get_array().data)
    assert torch.equal(shown, net.features[0](x)[0].detach())
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("position", "channel")
    pyplot.close("all")


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(tn.errors.InputError, match=r"'0' gives \[2, 1, 1, 1, 4\]; can draw maps"):
        tn.transfer.visualize_layer_activations(nn.Sequential(nn.ReLU()), torch.zeros(2, 1, 1, 1, 4), "0")
    assert pyplot.get_fignums() == []


def test_without_matplotlib_the_message_says_what_to_install(net, x, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(tn.TorchNanoError, match=r"pip install torch-nano\[plot\]"):
        tn.transfer.visualize_layer_activations(net, x, "stem")


def test_an_extractor_computes_nothing_after_its_layer(net, x):
    calls = []
    net.classifier.register_forward_hook(lambda *_: calls.append("classifier"))
    extractor = tn.transfer.get_model_feature_extractor(net, "stem")
    assert torch.equal(extractor(x), net.stem(x)) and calls == []
    net(x)
    assert calls == ["classifier"]


def test_an_extractor_trains_and_copies(net, x):
    extractor = nn.Sequential(tn.transfer.get_model_feature_extractor(net, "second"), nn.Flatten())
    extractor(x).sum().backward()
    assert net.stem[0].weight.grad is not None and net.classifier.weight.grad is None
    assert torch.equal(copy.deepcopy(extractor)(x), extractor(x))


@pytest.mark.parametrize("layer", ["stem.1", "second", "pool"])
def test_an_extractor_is_exported_without_later_layers(net, x, layer):
    class Unsupported(nn.Module):
        """Has calls after its last layer that no device model can have."""

        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> Tensor:
            return torch.fft.fft(self.net(x)).abs().cumsum(1)

    # Its ReLU works in place on the output that is wanted.
    net.stem[2].inplace = True
    extractor = tn.transfer.get_model_feature_extractor(Unsupported().eval(), f"net.{layer}")
    nano = tn.to_nano(extractor, x[:1], calibrate=x)
    expected = extractor(x)
    # int8: some steps of 1/255 of the range, over three layers.
    assert (nano(x) - expected).abs().max() < 0.05 * expected.abs().max()
    assert len(nano.image) < len(tn.to_nano(net, x[:1], calibrate=x).image)
    assert hooks_of(extractor) == []


def test_cosine_is_that_by_hand():
    first, second = nn.Sequential(nn.Identity()), nn.Sequential(nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        second[0].weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
    x = torch.tensor([[3.0, 4.0], [2.0, 0.0]])
    # cos([3, 4], [3, 0]) = 3/5, cos([2, 0], [2, 0]) = 1.
    similar = tn.transfer.compare_model_features(first, second, x, [("0", "0")])
    # Double sums of a few terms.
    assert similar == {("0", "0"): pytest.approx(0.8, abs=1e-12)}


def test_cka_is_that_of_the_kernel_matrices(net, x):
    def centred_kernel(features: Tensor) -> Tensor:
        features = features.detach().double().flatten(1)
        centring = torch.eye(len(features), dtype=torch.float64) - 1 / len(features)
        return centring @ (features @ features.T) @ centring

    other = make(ResidualNet, seed=5)
    # More samples than features in the classifiers, fewer in the stems: both ways to the same sum.
    x = inputs((2, 8, 8), 40)
    similar = tn.transfer.compare_model_features(
        net, other, x, [("stem", "stem"), ("stem", "classifier"), ("classifier", "classifier")], metric="cka"
    )
    for (name1, name2), value in similar.items():
        kernel1 = centred_kernel(tn.transfer.get_layer_outputs(net, x, [name1])[name1])
        kernel2 = centred_kernel(tn.transfer.get_layer_outputs(other, x, [name2])[name2])
        expected = (kernel1 * kernel2).sum() / (kernel1.square().sum() * kernel2.square().sum()).sqrt()
        # Double, sums of at most 1,600 terms in another order.
        assert value == pytest.approx(float(expected), rel=1e-9)
        assert 0 < value < 0.999


def test_cka_does_not_change_with_a_rotation_and_a_scaling_but_cosine_does():
    generator = torch.Generator().manual_seed(0)
    rotation = torch.linalg.qr(torch.randn(8, 8, generator=generator)).Q
    plain, rotated = nn.Sequential(nn.Identity()), nn.Sequential(nn.Linear(8, 8, bias=False))
    with torch.no_grad():
        rotated[0].weight.copy_(3 * rotation)
    x = torch.randn(50, 8, generator=generator)
    similarity = tn.transfer.compare_model_features(plain, rotated, x, [("0", "0")], metric="cka")["0", "0"]
    # The rotation itself is float32.
    assert similarity == pytest.approx(1, abs=1e-6)
    assert abs(tn.transfer.compare_model_features(plain, rotated, x, [("0", "0")])["0", "0"]) < 0.5


def test_what_cannot_be_compared_is_refused(net, x):
    with pytest.raises(tn.errors.InputError, match='"cosine" or "cka"'):
        tn.transfer.compare_model_features(net, net, x, [("stem", "stem")], metric="euclid")
    with pytest.raises(tn.errors.InputError, match=r"512 features and 'classifier' 4.*metric=\"cka\""):
        tn.transfer.compare_model_features(net, net, x, [("stem", "classifier")])
    with pytest.raises(tn.errors.InputError, match="same features for all of the 1 samples"):
        tn.transfer.compare_model_features(net, net, x[:1], [("stem", "stem")], metric="cka")

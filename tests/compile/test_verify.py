import pytest
import torch
import torch_nano as tn
from fusion import data, fusion
from images import Description
from networks import NETWORKS, inputs, make
from torch_nano import _native
from torch_nano.arithmetic.layout import to_device
from torch_nano.compile.verify import verify_rv32imc


@pytest.mark.parametrize("head", [None, "classifier"])
@pytest.mark.parametrize(("network", "shape"), NETWORKS)
def test_the_emulated_board_gives_the_same_bytes(network, shape, head):
    x = inputs(shape, 64)
    nano = tn.to_nano(make(network), x, calibrate=x, head=head)
    report = nano.verify("rv32imc", x[:8])
    outputs = nano.forward_int8(nano.quantize_input(x[:8]))
    features = nano.features_int8(x[:8]).numel() if nano.head else 0
    assert report and (report.inputs, report.differing_bytes) == (8, 0)
    assert report.compared_bytes == features + outputs.numel() * outputs.element_size()


def test_all_inputs_and_outputs_are_compared_on_the_board():
    batch = data()
    nano = tn.to_nano(fusion(), batch, calibrate=batch)
    report = nano.verify("rv32imc", {name: x[:8] for name, x in batch.items()})
    assert report and (report.inputs, report.compared_bytes, report.differing_bytes) == (8, 8 * (5 + 1), 0)


@pytest.mark.parametrize("dtype", ["int16", "int32"])
def test_outputs_of_every_dtype_are_compared_on_the_board(dtype):
    net = Description()
    net.input((1, 2, 5), zero_point=0)
    net.entries["inputs"][0]["value"]["dtype"] = dtype
    x = torch.arange(-30, 30).reshape(6, 5, 2).to(getattr(torch, dtype))
    report = verify_rv32imc(_native.Model(net.image(0)), [to_device(x * 1000).numpy()])
    assert report and report.compared_bytes == x.numel() * x.element_size()


def test_a_trained_head_does_not_count(tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 2))
    x = inputs((4,), 16)
    nano = tn.to_nano(model, x, calibrate=x, head="1")
    nano.head.fit(nano.features_int8(x), torch.arange(16) % 2)
    assert nano.verify("rv32imc")


@pytest.mark.parametrize("wrong", [5, iter([]), {1: torch.zeros(2, 4)}])
def test_data_of_another_kind_is_refused(wrong):
    x = inputs((4,), 16)
    nano = tn.to_nano(torch.nn.Linear(4, 3), x, calibrate=x)
    with pytest.raises(
        tn.errors.InputError, match=r"^data (is|has the keys) .* expected a tensor, a tuple of"
    ):
        nano.verify("host", wrong)

import pytest
import torch
import torch_nano as tn
from networks import NETWORKS, inputs, make


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


def test_a_trained_head_does_not_count(tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 2))
    x = inputs((4,), 16)
    nano = tn.to_nano(model, x, calibrate=x, head="1")
    nano.head.fit(nano.features_int8(x), torch.arange(16) % 2)
    assert nano.verify("rv32imc")

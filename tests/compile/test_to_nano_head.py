import contextlib
import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
import torch_nano as tn
from networks import NETWORKS, ConvNet1d, Mlp, ResidualNet, inputs, make
from torch import nn
from torch_nano import _native


def with_head(network=ConvNet1d, shape=(3, 40), **options):
    model = make(network)
    tn.freeze(model)
    tn.unfreeze(model, "classifier")
    x = inputs(shape, 64)
    return model, x, tn.to_nano(model, x, calibrate=x, **options)


@pytest.mark.parametrize(("network", "shape"), NETWORKS)
def test_frozen_goes_to_flash_and_the_trainable_linear_to_ram(network, shape):
    model, x, nano = with_head(network, shape)
    *backbone, head = nano.summary().layers
    assert {layer.memory for layer in backbone} == {"flash"}
    assert (head.operator, head.module_path, head.memory) == ("sgd_head", "classifier", "RAM")
    assert nano.summary().head_bytes == head.weight_bytes == len(nano.head.state()) > 0
    assert head.output_shape == (nano.head.classes,) and head.macs == nano.head.classes * nano.head.features
    assert nano.verify("host", x)
    with torch.no_grad():
        expected = model(x)
    noise = (nano(x) - expected).square().mean() / (expected - expected.mean(0)).square().mean()
    # As for a model without a head; the ResidualNet's flatten is permuted, so this sees the columns' order.
    assert noise < 1 / 400


@pytest.mark.parametrize(
    ("frozen", "head", "has_head"),
    [
        ([], "auto", False),
        (["*"], "auto", False),
        (["features"], "auto", True),
        (["features.0"], "auto", True),
        (["features", "classifier"], "auto", False),
        (["features"], None, False),
        ([], "classifier", True),
        (["*"], "classifier", True),
    ],
)
def test_the_trainable_linear_after_a_frozen_part_is_the_head(frozen, head, has_head):
    model = make(ConvNet1d)
    if frozen:
        tn.freeze(model, *frozen)
    x = inputs((3, 40), 8)
    says_why = bool(frozen) and head == "auto" and not has_head
    with pytest.warns(tn.errors.HeadWarning) if says_why else contextlib.nullcontext():
        assert (tn.to_nano(model, x, calibrate=x, head=head).head is not None) == has_head


@pytest.mark.parametrize(
    ("model", "head", "reason"),
    [
        (make(ConvNet1d), "features.0", "ends in 'classifier'"),
        (make(ConvNet1d), "nothing", "ends in 'classifier'"),
        (nn.Sequential(nn.Conv1d(3, 4, 3), nn.ReLU()), "0", "ends in conv2d"),
        (nn.Sequential(nn.Flatten(), nn.Linear(120, 4), nn.ReLU()), "1", "an activation follows it"),
        (nn.Sequential(nn.Flatten(), nn.Linear(120, 4), nn.Softmax(1)), "1", "ends in softmax"),
    ],
)
def test_layers_that_cannot_be_a_head_are_refused(model, head, reason):
    x = inputs((3, 40), 8)
    with pytest.raises(tn.errors.HeadError, match=reason):
        tn.to_nano(model, x, calibrate=x, head=head)


def test_logits_features_and_predictions_agree():
    _, x, nano = with_head()
    features = nano.features_int8(x)
    assert features.dtype == torch.int8 and features.shape == (64, 16)
    assert torch.equal(nano.features_int8(nano.quantize_input(x)), features)
    logits = nano.forward_int8(nano.quantize_input(x))
    assert logits.dtype == torch.int32 and logits.shape == (64, 5)
    assert torch.equal(nano.head.logits(features), logits)
    assert torch.equal(nano.head.predict(features), logits.argmax(1))
    assert torch.equal(nano(x), nano.head(features))
    scale = nano(x)[0, 0] / logits[0, 0]
    torch.testing.assert_close(nano(x), logits * scale, rtol=1e-6, atol=0)


def test_features_are_in_the_devices_order():
    model, x, nano = with_head(ResidualNet, (2, 8, 8))
    (expected,) = nano.graph.integer_run(nano.quantize_input(x))
    assert torch.equal(nano.features_int8(x), expected.permute(0, 2, 3, 1).flatten(1))
    assert expected.shape[1:] == (12, 2, 2) and model.classifier.in_features == 48


def test_predict_takes_the_first_of_equal_logits():
    model = nn.Sequential(nn.Flatten(), nn.Linear(120, 4))
    nn.init.zeros_(model[1].weight)
    nn.init.zeros_(model[1].bias)
    x = inputs((3, 40), 8)
    nano = tn.to_nano(model, x, calibrate=x, head="1")
    assert nano.head.predict(nano.features_int8(x)).tolist() == [0] * 8


def test_the_head_learns():
    _, x, nano = with_head(Mlp, (1, 8, 8))
    features = nano.features_int8(x)
    # Classes that the features decide: which of them is largest among the first ten that are ever active.
    labels = features[:, (features > -128).any(0)][:, :10].argmax(1)
    before = (nano.head.predict(features) == labels).float().mean()
    loss = F.cross_entropy(nano(x), labels)
    nano.head.fit(features, labels, epochs=60)
    after = (nano.head.predict(features) == labels).float().mean()
    assert before < 0.5 and after > 0.8 and F.cross_entropy(nano(x), labels) < loss


def test_learning_is_replayed_to_the_last_byte():
    _, x, nano = with_head()
    features, labels = nano.features_int8(x), torch.arange(64) % 5
    start = nano.head.state()
    other = tn.heads.SgdHead(nano.image)
    assert other.state() == start
    for head in (nano.head, other):
        head.fit(features, labels, epochs=3)
        head.step(features[0], 1)
    assert nano.head.state() == other.state() != start
    other.reset()
    assert other.state() == start
    other.load(nano.head.state())
    assert torch.equal(other.logits(features), nano.head.logits(features))


def test_fit_is_the_native_ring():
    _, x, nano = with_head()
    features, labels = nano.features_int8(x), torch.arange(64) % 5
    native = _native.Head(nano.image)
    native.train(features.numpy(), labels.numpy().astype("int64"), 2)
    nano.head.fit(features, labels, epochs=2)
    assert nano.head.state() == native.state()


def test_copies_and_state_dicts_keep_the_state():
    _, x, nano = with_head()
    features = nano.features_int8(x)
    nano.head.fit(features, torch.arange(64) % 5)
    trained = nano.head.state()
    assert copy.deepcopy(nano).head.state() == trained
    assert pickle.loads(pickle.dumps(nano)).head.state() == trained
    fresh = tn.heads.SgdHead(nano.image)
    assert fresh.state() != trained
    fresh.load_state_dict(nano.head.state_dict())
    assert fresh.state() == trained
    copied = copy.deepcopy(nano.head)
    copied.step(features[0], 4)
    assert nano.head.state() == trained != copied.state()


def test_train_and_eval_leave_the_head_alone():
    _, _, nano = with_head()
    state = nano.head.state()
    assert nano.eval().train().head.state() == state


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda head: head.logits(torch.zeros(2, 16)), "float32; expected int8"),
        (lambda head: head.logits(torch.zeros(2, 15, dtype=torch.int8)), "16 features"),
        (lambda head: head.predict(torch.zeros(16, dtype=torch.int8)), r"int8 \[N, features\]"),
        (lambda head: head.step(torch.zeros(1, 16, dtype=torch.int8), 0), r"int8 \[features\]"),
        (lambda head: head.step(torch.zeros(16, dtype=torch.int8), 5), "label is 5; .*0 to 4"),
        (lambda head: head.step(torch.zeros(16, dtype=torch.int8), -1), "label is -1; .*0 to 4"),
        (lambda head: head.fit(torch.zeros(2, 16, dtype=torch.int8), torch.tensor([0, 5])), "0 to 4"),
        (lambda head: head.fit(torch.zeros(2, 16, dtype=torch.int8), torch.tensor([-1, 0])), "0 to 4"),
        (lambda head: head.fit(torch.zeros(2, 16, dtype=torch.int8), torch.tensor([0])), r"integers \[2\]"),
        (lambda head: head.fit(torch.zeros(1, 16, dtype=torch.int8), torch.tensor([0.0])), "float32"),
        (lambda head: head.fit(torch.zeros(1, 16, dtype=torch.int8), torch.tensor([0]), -1), "epochs is -1"),
        (lambda head: head.load(b""), "0 bytes are no state"),
        (lambda head: head.load(head.state() + b"\0"), "no state"),
        (lambda head: head.load(b"\xff" * len(head.state())), "no state"),
    ],
)
def test_wrong_arguments_leave_the_head_as_it_was(call, reason):
    _, _, nano = with_head()
    state = nano.head.state()
    with pytest.raises(tn.errors.HeadError, match=reason):
        call(nano.head)
    assert nano.head.state() == state


@pytest.mark.parametrize("learning_rate", [0.0, -1.0, float("nan"), 1e30])
def test_learning_rates_out_of_range_are_refused(learning_rate):
    with pytest.raises(tn.errors.HeadError, match=r"learning_rate is .*; expected"):
        with_head(learning_rate=learning_rate)


def test_an_image_without_a_head_gives_no_head(nano):
    with pytest.raises(tn.errors.HeadError, match="no trainable head"):
        tn.heads.SgdHead(nano.image)

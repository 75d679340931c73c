"""Models of several inputs and outputs, on the whole way from an nn.Module to a NanoModule and a file."""

import re

import pytest
import torch
import torch_nano as tn
from fusion import SEED, data, fusion
from torch import Tensor, nn
from torch_nano import _native
from torch_nano.arguments import bind
from torch_nano.capture.capture import capture


def values(result: object) -> list[Tensor]:
    return list(result.values()) if isinstance(result, dict) else list(result)  # type: ignore[call-overload]


def test_inputs_have_the_names_of_forward_and_outputs_those_of_the_dict() -> None:
    batch = data()
    for example in (batch, {"sound": batch["sound"], "motion": batch["motion"]}, tuple(batch.values())):
        graph = capture(fusion(), example)
        assert graph.inputs == ["motion", "sound"]
        text = str(graph)
        assert text.startswith("input motion (3, 9)\ninput sound (6,)\n")
        assert re.search(r"output kind = \w+\noutput level = \w+$", text)


@pytest.mark.parametrize("returns", ["dict", "list", "tuple"])
def test_the_nano_module_takes_and_returns_what_the_model_does(returns: str) -> None:
    model, batch = fusion(returns), data()
    nano = tn.to_nano(model, batch, calibrate=batch)
    by_name, by_position = nano(**batch), nano(*batch.values())
    mixed = nano(batch["motion"], sound=batch["sound"])
    with torch.no_grad():
        expected = model(**batch)
    assert type(by_name) is type(expected)
    if isinstance(expected, dict):
        assert list(by_name) == list(expected)
    for y, other, third, real in zip(*map(values, (by_name, by_position, mixed, expected)), strict=True):
        assert torch.equal(y, other) and torch.equal(y, third)
        assert float((y - real).abs().max()) < 0.1
    assert nano.verify("host") and nano.verify("host", batch)
    assert nano.verify("host", tuple(batch.values())).inputs == 40


def test_both_runs_give_the_same_bytes() -> None:
    batch = data()
    nano = tn.to_nano(fusion(), batch, calibrate=batch)
    integers = nano.quantize_inputs(**batch)
    outputs = nano.forward_int8(*integers)
    for y, plain in zip(values(outputs), nano.graph.integer_run(*integers), strict=True):
        assert y.dtype == torch.int8 and torch.equal(y, plain)
    assert list(nano.input_shapes.items()) == [("motion", (3, 9)), ("sound", (6,))]
    assert list(nano.input_quantizations) == ["motion", "sound"]
    assert list(nano.output_quantizations) == ["kind", "level"]


def test_calibration_takes_tuples_and_dicts_in_batches() -> None:
    batch = data()
    labels = torch.zeros(40)
    expected = tn.to_nano(fusion(), batch, calibrate=batch).id
    halves = [{name: tensor[rows] for name, tensor in batch.items()} for rows in (slice(20), slice(20, 40))]
    dataset = torch.utils.data.TensorDataset(*batch.values(), labels)
    for calibrate in (
        tuple(batch.values()),
        halves,
        [{**half, "label": labels[:20]} for half in halves],
        [tuple(half.values()) for half in halves],
        torch.utils.data.DataLoader(dataset, 8),
    ):
        assert tn.to_nano(fusion(), batch, calibrate=calibrate).id == expected


@pytest.mark.parametrize(
    ("calibrate", "reason"),
    [
        (data()["motion"], "a tuple that begins with tensors for motion, sound, or a dict of them"),
        ([(data()["motion"], 3)], "a tuple that begins with tensors for motion, sound"),
        ({"motion": data()["motion"]}, "is a dict of motion; it lacks 'sound'"),
        ((data()["motion"], data()["sound"][:4]), "different sizes: motion of 40, sound of 4"),
        ((data()["sound"], data()["motion"]), "batch's 'motion' has shape"),
    ],
)
def test_calibration_data_of_another_kind_is_refused(calibrate: object, reason: str) -> None:
    with pytest.raises(tn.errors.InputError, match=reason):
        tn.to_nano(fusion(), data(), calibrate=calibrate)  # type: ignore[arg-type]


def test_a_dict_calibrates_a_model_of_one_input() -> None:
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(SEED))
    expected = tn.to_nano(nn.Linear(4, 2), {"input": x}, calibrate=[{"input": x, "y": x}])
    assert list(expected.input_shapes) == ["input"]
    assert expected(x).shape == expected(input=x).shape == (8, 2)


def test_training_and_evaluation_are_the_image() -> None:
    batch = data()
    qat = tn.prepare_qat(fusion(), batch, calibrate=batch)
    optimizer = torch.optim.SGD(qat.parameters(), 0.01)
    for _ in range(3):
        optimizer.zero_grad()
        outputs = qat(**batch)
        (outputs["kind"].square().mean() + outputs["level"].abs().mean()).backward()
        optimizer.step()
    assert all(parameter.grad is not None for parameter in qat.parameters())
    with torch.no_grad():
        trained = qat.eval()(*batch.values())
    image = qat.to_nano()(**batch)
    assert list(trained) == list(image) == ["kind", "level"]
    assert all(torch.equal(trained[name], image[name]) for name in trained)


def test_a_file_keeps_inputs_and_outputs(tmp_path) -> None:  # type: ignore[no-untyped-def]
    batch = data()
    for returns in ("dict", "list", "tuple"):
        nano = tn.to_nano(fusion(returns), batch, calibrate=batch)
        nano.save(tmp_path / "model")
        loaded = tn.load(tmp_path / "model")
        assert type(loaded(**batch)) is type(nano(**batch))
        assert all(
            torch.equal(*pair) for pair in zip(*map(values, (loaded(**batch), nano(**batch))), strict=True)
        )
        assert str(loaded.graph.graph) == str(nano.graph.graph)


def test_an_image_has_the_names_of_its_inputs_and_outputs() -> None:
    batch = data()
    for returns, outputs in [
        ("dict", ["kind", "level"]),
        ("list", ["output0", "output1"]),
        ("tensor", ["output"]),
    ]:
        nano = tn.to_nano(fusion(returns), batch, calibrate=batch, head=None)
        image = _native.Model(nano.image)
        assert (image.input_names, image.output_names) == (["motion", "sound"], outputs)


@pytest.mark.parametrize("name", ["", "k" * 65, "\u00e9" * 33, "two\nlines", "zero\0", "\ud800"])
def test_a_name_that_no_image_can_hold_is_refused(name: str) -> None:
    class Named(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {name: torch.relu(x)}

    x = torch.randn(8, 3)
    with pytest.raises(
        tn.errors.InputError, match=r"a key of the outputs is called .*1 to 64 bytes of UTF-8, on one line"
    ):
        tn.to_nano(Named(), x, calibrate=x)


def test_inputs_may_have_batches_that_never_meet() -> None:
    class Apart(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
            return torch.relu(a), torch.sigmoid(b)

    pair = (torch.randn(8, 3), torch.randn(8, 2))
    first, second = tn.to_nano(Apart(), pair, calibrate=pair)(*pair)
    assert first.shape == (8, 3) and second.shape == (8, 2)


def test_one_value_may_be_returned_twice() -> None:
    class Twice(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            y = torch.relu(x)
            return {"first": y, "second": y}

    x = torch.randn(8, 3)
    outputs = tn.to_nano(Twice(), x, calibrate=x)(x)
    assert torch.equal(outputs["first"], outputs["second"])


@pytest.mark.parametrize(
    ("positional", "named", "given"),
    [
        (1, ("motion",), "1 by position and by name motion"),
        (3, (), "3 by position"),
        (0, (), "0 by position"),
        (1, (), "1 by position"),
        (2, ("noise",), "2 by position and by name noise"),
        (0, ("sound",), "by name sound"),
    ],
)
def test_wrong_arguments_are_told_the_right_ones(positional: int, named: tuple[str, ...], given: str) -> None:
    with pytest.raises(tn.errors.InputError, match=rf"2 inputs \(motion, sound\); it is given {given}$"):
        bind(["motion", "sound"], [0] * positional, dict.fromkeys(named))


class Integers(nn.Module):
    def forward(self, motion: Tensor, sound: Tensor) -> Tensor:
        return motion.mean(2).sum(1, keepdim=True) * sound


def test_wrong_examples_and_uses_are_refused() -> None:
    batch = data()
    with pytest.raises(tn.errors.InputError, match=r"the example's 'sound' holds integers, and no embedding"):
        capture(Integers(), {**batch, "sound": torch.zeros(40, 6, dtype=torch.int64)})
    with pytest.raises(
        tn.errors.InputError, match=r"the example has inputs of shapes .*; expected one batch size"
    ):
        capture(fusion(), {**batch, "sound": batch["sound"][:3]})
    with pytest.raises(tn.errors.InputError, match="the example is empty"):
        capture(fusion(), ())
    with pytest.raises(tn.errors.CaptureError, match=r"fails with inputs of shapes motion .*noise"):
        capture(fusion(), {"motion": batch["motion"], "noise": batch["sound"]})
    nano = tn.to_nano(fusion(), batch, calibrate=batch)
    with pytest.raises(tn.errors.InputError, match=r"the input 'sound' has shape \(40, 3, 9\)"):
        nano(batch["motion"], batch["motion"])
    with pytest.raises(tn.errors.InputError, match="batches of different sizes: motion of 40, sound of 2"):
        nano(batch["motion"], batch["sound"][:2])
    with pytest.raises(tn.errors.InputError, match=r"the model has 2 inputs \(motion, sound\)"):
        _ = nano.input_shape
    with pytest.raises(tn.errors.InputError, match=r"the model has 2 outputs \(kind, level\)"):
        _ = nano.output_quantization
    with pytest.raises(tn.errors.InputError, match="labels for a model that returns 2 tensors"):
        tn.to_nano(fusion(), batch, calibrate=batch, labels=list("abcde"))
    with pytest.raises(tn.errors.HeadError, match="the model returns 2 tensors"):
        tn.to_nano(fusion(), batch, calibrate=batch, head="level")
    with pytest.raises(tn.errors.HeadError, match="needs a model that returns one tensor; it returns 2"):
        tn.to_nano(fusion(), batch, calibrate=batch, train_last=2)

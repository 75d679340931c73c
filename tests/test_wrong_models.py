"""Every public function that takes a model, with something else or with a model that it cannot use."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch_nano as tn
from torch import Tensor, nn
from torch_nano.modules.models import own_module

X, Y = torch.randn(12, 6, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 3
FIT: dict[str, Any] = {"epochs": 1, "progress": False}

#: Name -> a call with a model of the modules "0" and "2".
ENTRIES: dict[str, Callable[[Any], object]] = {
    "to_nano": lambda model: tn.to_nano(model, X, calibrate=X),
    "prepare_qat": lambda model: tn.prepare_qat(model, X, calibrate=X),
    "learned": lambda model: tn.prepare_qat(model, X, calibrate=X, ranges="learned"),
    "fit": lambda model: tn.fit(model, (X, Y), **FIT),
    "make_optimizer": lambda model: tn.training.make_optimizer(model),
    "freeze": lambda model: tn.freeze(model, "0"),
    "unfreeze": lambda model: tn.unfreeze(model, "0"),
    "frozen": lambda model: tn.frozen(model),
    "feature_extraction": lambda model: tn.transfer.feature_extraction(model, (X, Y), head="2", **FIT),
    "extract_features": lambda model: tn.transfer.extract_features(model, (X, Y), "2"),
    "fine_tuning": lambda model: tn.transfer.fine_tuning(model, (X, Y), learning_rates={"2": 0.1}, **FIT),
    "gradual_unfreezing": lambda model: tn.transfer.gradual_unfreezing(
        model, (X, Y), schedule={0: ["2"]}, **FIT
    ),
    "coral_alignment": lambda model: tn.transfer.coral_alignment(model, (X, Y), X, layer="2", **FIT),
    "distillation": lambda model: tn.transfer.distillation(model, mlp(), (X, Y), **FIT),
    "teacher": lambda model: tn.transfer.distillation(mlp(), model, (X, Y), **FIT),
    "get_layer_outputs": lambda model: tn.transfer.get_layer_outputs(model, X, ["0"]),
    "compare_model_features": lambda model: tn.transfer.compare_model_features(
        mlp(), model, X, [("0", "0")], "cka"
    ),
    "extractor": lambda model: tn.transfer.get_model_feature_extractor(model, "0")(X),
    "TransferModel": lambda model: tn.transfer.TransferModel(model, nn.Linear(3, 2))(X),
    "reestimate_batch_norm": lambda model: tn.transfer.reestimate_batch_norm(
        nn.Sequential(nn.BatchNorm1d(6), model), X
    ),
}
#: These run the model as torch does: an error of its forward is torch's.
MODULES = {"extractor", "TransferModel"}
#: These do not run it.
WITHOUT_RUN = {"freeze", "unfreeze", "frozen", "make_optimizer"}
CONVERSIONS = {"to_nano", "prepare_qat", "learned"}


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def with_weight(weight: Tensor) -> nn.Module:
    model = mlp()
    model[0].weight = nn.Parameter(weight, requires_grad=False)
    return model


class Star(nn.Sequential):
    def forward(self, *inputs: Tensor) -> Tensor:
        return super().forward(inputs[0])


def on_meta() -> nn.Module:
    with torch.device("meta"):
        return mlp()


def for_inference() -> nn.Module:
    with torch.inference_mode():
        return mlp()


class Raising(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        raise KeyError("the model's own")


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("given", [None, 3, nn.Linear, abs, {"0.weight": X}])
def test_objects_that_are_not_modules_are_refused(entry: str, given: object) -> None:
    if entry == "reestimate_batch_norm":
        with pytest.raises(tn.errors.InputError, match=r"model is .*; expected an nn\.Module"):
            tn.transfer.reestimate_batch_norm(given, X)  # type: ignore[arg-type]
        return
    with pytest.raises(
        tn.errors.InputError, match=r"(model|base_model|student|teacher) is .*; expected an nn\.Module"
    ):
        ENTRIES[entry](given)


WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "DataParallel": nn.DataParallel,
    "compile": lambda model: torch.compile(model, backend="eager"),  # type: ignore[return-value]
    "AveragedModel": torch.optim.swa_utils.AveragedModel,
    "two": lambda model: nn.DataParallel(torch.optim.swa_utils.AveragedModel(model)),
    "forward(*inputs)": lambda model: Star(*model),
}


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_models_are_taken_out_of_wrappers(entry: str, wrapper: str) -> None:
    """The same result, and the same change of the module inside."""
    plain, inside = mlp(), mlp()
    results = []
    for model, given in ((plain, plain), (inside, WRAPPERS[wrapper](inside))):
        torch.manual_seed(1)
        results.append(_told(ENTRIES[entry](given)))
        if wrapper in ("AveragedModel", "two") and model is inside:
            # Averages are of a copy.
            inside = own_module(given)
    assert results[0] == results[1]
    for mine, other in zip(plain.parameters(), inside.parameters(), strict=True):
        assert torch.equal(mine, other) and mine.requires_grad == other.requires_grad


def _told(result: object) -> object:
    """What can be compared of a result."""
    if isinstance(result, tn.NanoModule):
        return result(X).tolist()
    if isinstance(result, tn.qat.QatModule):
        return sorted(result.float_state_dict()), result.eval()(X).tolist()
    if isinstance(result, tn.training.History):
        return result["loss"]
    if isinstance(result, torch.utils.data.TensorDataset):
        return [tensor.tolist() for tensor in result.tensors]
    if isinstance(result, torch.optim.Optimizer):
        return [(group["name"], group["lr"], len(group["params"])) for group in result.param_groups]
    if isinstance(result, dict):
        return {
            name: value.tolist() if isinstance(value, Tensor) else value for name, value in result.items()
        }
    return None if isinstance(result, Tensor) else result


#: What is given -> the model, the functions that take it, and what the others say.
WRONG: dict[str, tuple[Callable[[], nn.Module], set[str], str]] = {
    "meta": (on_meta, WITHOUT_RUN, r"'.*0\.weight' \(and \d more\) of the model is on the meta device"),
    "inference mode": (for_inference, {"frozen", "make_optimizer"}, r"0\.weight' was made under torch\.inf"),
    "lazy": (
        lambda: nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.Linear(8, 3)),
        {"frozen", "make_optimizer"},
        r"the shape of '.*0\.weight' .*call the model with one batch first",
    ),
    "sparse": (
        lambda: with_weight(mlp()[0].weight.detach().to_sparse()),
        WITHOUT_RUN,
        r"0\.weight' is of layout torch\.sparse_coo; expected a dense tensor",
    ),
    "integers": (
        lambda: with_weight(torch.ones(8, 6, dtype=torch.int64)),
        WITHOUT_RUN,
        r"its parameters are int64|its '0\.weight' is of torch\.int64; a device has real weights",
    ),
    "complex": (
        lambda: with_weight(torch.ones(8, 6, dtype=torch.complex64)),
        WITHOUT_RUN,
        r"its parameters are complex64|its '0\.weight' is of torch\.complex64; a device has real weights",
    ),
    "half": (
        lambda: mlp().half(),
        WITHOUT_RUN | CONVERSIONS,
        r"gets \(\d+, 6\).* of float32, but .* float16",
    ),
    "double": (
        lambda: mlp().double(),
        WITHOUT_RUN | CONVERSIONS,
        r"gets \(\d+, 6\).* of float32, but .* float64",
    ),
    "width": (
        lambda: nn.Sequential(nn.Linear(7, 8), nn.ReLU(), nn.Linear(8, 3)),
        WITHOUT_RUN,
        r"'.*0' \(Linear\) gets \(\d+, 6\).*, but expects in_features=7",
    ),
    "its own error": (
        lambda: Raising(*mlp()),
        WITHOUT_RUN,
        r"Raising.* fails: KeyError: \"the model's own\"",
    ),
    "QatModule": (
        lambda: nn.Sequential(tn.prepare_qat(mlp(), X, calibrate=X), nn.ReLU(), nn.Linear(3, 3)),
        set(ENTRIES) - CONVERSIONS,
        r"module '0' is a torch_nano\.QatModule, which is quantized already",
    ),
}


@pytest.mark.parametrize("entry", sorted(set(ENTRIES) - MODULES))
@pytest.mark.parametrize("given", WRONG)
def test_unusable_models_are_refused(entry: str, given: str) -> None:
    make, taken, message = WRONG[given]
    model = make()
    modes = [module.training for module in model.modules()]
    if entry in taken:
        ENTRIES[entry](model)
        return
    with pytest.raises(tn.TorchNanoError, match=message):
        ENTRIES[entry](model)
    assert modes == [module.training for module in model.modules()]


# torch.jit is deprecated, and used.
@pytest.mark.filterwarnings("ignore:.torch.jit")
@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("entry", sorted(CONVERSIONS | {"freeze", "feature_extraction", "get_layer_outputs"}))
def test_torchscript_is_refused_where_python_must_see_it(entry: str, inside: bool) -> None:
    model = torch.jit.script(mlp())
    if inside:
        model = nn.Sequential(torch.jit.script(nn.Linear(6, 8)), nn.ReLU(), nn.Linear(8, 3))
    with pytest.raises(tn.errors.InputError, match=r"(module '[02]'|the model) is a TorchScript module"):
        ENTRIES[entry](model)


@pytest.mark.parametrize("entry", ["to_nano", "prepare_qat", "fit", "get_layer_outputs"])
def test_exported_modules_with_one_mode_are_explained(entry: str) -> None:
    program = torch.export.export(mlp(), (X,))
    with pytest.raises(
        tn.errors.InputError, match=r"cannot change between train and evaluation mode|has no module '0'"
    ):
        ENTRIES[entry](program.module())
    with pytest.raises(tn.errors.InputError, match=r"expected an nn\.Module: the one that was exported"):
        ENTRIES[entry](program)


def test_a_model_that_cannot_be_copied_is_refused() -> None:
    model = mlp()
    model.stream = open(__file__)  # noqa: SIM115
    try:
        with pytest.raises(tn.errors.InputError, match=r"Sequential cannot be copied by copy\.deepcopy"):
            tn.prepare_qat(model, X, calibrate=X)
    finally:
        model.stream.close()


# No machine has so many GPUs.
@pytest.mark.parametrize("device", ["cuda:99", "nonsense"])
def test_a_missing_torch_device_is_refused(device: str) -> None:
    for call in (tn.fit, tn.transfer.feature_extraction):
        model = mlp()
        options = {"head": "2"} if call is tn.transfer.feature_extraction else {}
        with pytest.raises(tn.errors.FitError, match=f"device='{device}'; the model cannot go there"):
            call(model, (X, Y), device=device, **options, **FIT)
        assert model[0].weight.device.type == "cpu"


@pytest.mark.parametrize(
    "change",
    [
        tn.qat.freeze_ranges,
        tn.qat.unfreeze_ranges,
        tn.qat.enable_quantization,
        lambda qat: tn.qat.disable_quantization(qat, "0"),
        tn.qat.fold_batch_norm,
    ],
)
def test_changes_of_a_qat_module_see_through_wrappers(change: Callable[[nn.Module], None]) -> None:
    qat = tn.prepare_qat(mlp(), X, calibrate=X)
    expected = copy.deepcopy(qat)
    change(expected)
    change(nn.DataParallel(qat))
    assert torch.equal(qat.get_extra_state(), expected.get_extra_state())
    assert torch.equal(qat.quantization_ranges.frozen, expected.quantization_ranges.frozen)
    with pytest.raises(tn.errors.InputError, match="qat is a Sequential; expected what prepare_qat returns"):
        change(mlp())

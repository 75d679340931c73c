"""NanoModule: the converted model, an nn.Module with the device's arithmetic."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .. import _native
from ..arguments import (
    TensorOrArray,
    as_tensors,
    bind,
    check_inputs,
    one_of,
    path_of,
    seconds,
    shown,
    the_only,
)
from ..arithmetic.fixed_point import is_native
from ..arithmetic.layout import to_device
from ..arithmetic.quantization import INDICES
from ..arithmetic.tensors import check_finite, dequantize_tensor
from ..calibration.batches import Batches, CalibrationData
from ..chips import Chip
from ..chips import chip as chip_named
from ..comparison.measure import compare
from ..comparison.report import Comparison
from ..comparison.samples import batches_to_compare
from ..data.forms import once_only
from ..errors import ChipError, ConnectionFailed, FileFormatError, HeadError, InputError, StreamError
from ..evaluation.evaluation import Evaluation
from ..files.reading import read_file
from ..files.writing import write_file
from ..fits.chip_fit import ChipFit, LayerUse, chip_fit
from ..fits.variant import Variant, variant_of
from ..heads import Head, LayersHead, head_of
from ..modules.inputs import Example
from ..ops.argmax import argmax_of
from . import rust_crate
from .converted_model import ConvertedModel
from .evaluate import evaluate, only_output
from .export import export
from .float_graph import float_graph_of
from .image import describe, write_image
from .layer_rows import head_row, layer_rows
from .memory_map import MemoryMap, memory_map
from .optimization import MODELLED
from .profile import Profile, profile
from .report import report
from .saved_model import SavedModel, pack, unpack
from .stream import Stream
from .streaming import to_streaming
from .summary import KernelChoice, LayerSummary, Summary
from .verify import VerifyReport, verify_host, verify_rv32imc

Target = Literal["host", "rv32imc"]
#: Inputs that `verify` makes when it is given none.
_RANDOM_INPUTS = 16
_SEED = 0


class NanoModule(ConvertedModel):
    """A quantized model that gives the same bytes as the device. Made by :func:`to_nano` and :func:`load`.

    Called with floats it quantizes them, runs the image, and returns real numbers. Tensors on the CPU run
    through nano-core, others through the same integers in plain torch. There are no gradients.

    Inputs, tensors or arrays, and outputs are the original model's: shapes with batch, several inputs by
    position or by name, and outputs in the tuples, lists, dicts and named tuples in which it returns them;
    dataclasses become dicts.
    """

    #: The trainable head in RAM, None if the whole model is in flash.
    head: Head | None

    def __init__(self, saved: SavedModel) -> None:
        super().__init__(saved)
        self._saved_head = saved.head
        self.head = None if saved.head is None else head_of(saved.image)
        if self.head is not None and saved.head is not None and saved.head.state:
            self.head.load(saved.head.state)

    @property
    def head_path(self) -> str | None:
        """Path of the module that the head was made from, of several with ", " between; None without one."""
        return None if self._saved_head is None else self._saved_head.path

    def forward(self, *inputs: TensorOrArray, **named: TensorOrArray) -> Any:
        """float32 outputs for float inputs; the indices of argmax are int64. An input of an embedding holds
        indices, int64 or int32.

        Raises:
            InputError: wrong inputs, shape or dtype, NaN or infinity, or an index that has no row.
        """
        tensors = self._tensors(inputs, named, float)
        if self.head is not None:
            return self._returned.pack(self._logits(self._run(self._integers(tensors))))
        if all(is_native(x) and x.dtype == torch.float32 for x in tensors):
            return self._returned.pack(self._run_real(tensors))
        pairs = zip(self._run(self._integers(tensors)), self._output_quantizations, strict=True)
        return self._returned.pack([dequantize_tensor(y, quantization) for y, quantization in pairs])

    def quantize_inputs(self, *inputs: TensorOrArray, **named: TensorOrArray) -> tuple[Tensor, ...]:
        """Quantizes float inputs, one tensor for each; numbers outside of an input's range are clamped.

        Raises:
            InputError: wrong inputs, shape or dtype, NaN or infinity.
        """
        return tuple(self._integers(self._tensors(inputs, named, float)))

    def quantize_input(self, x: TensorOrArray) -> Tensor:
        """:meth:`quantize_inputs` for a model of one input.

        Raises:
            InputError: wrong shape or dtype, NaN or infinity; the model has several inputs.
        """
        return the_only("input", dict(zip(self.input_shapes, self.quantize_inputs(x), strict=True)))

    def device_inputs(
        self, *inputs: TensorOrArray, **named: TensorOrArray
    ) -> NDArray[Any] | tuple[NDArray[Any], ...]:
        """The inputs for a device: integers [N, elements], in the device's order. A tuple of such arrays if
        the model has several inputs; ``zip(*arrays)`` gives the samples.

        Args:
            inputs: floats, or integers as :meth:`quantize_inputs` returns them.

        Raises:
            InputError: wrong inputs, shape or dtype, NaN or infinity.
        """
        integers = self._integers(self._tensors(inputs, named, float, int))
        first, *others = self._to_device([x.cpu() for x in integers])
        return (first, *others) if others else first

    def forward_int8(self, *inputs: TensorOrArray, **named: TensorOrArray) -> Any:
        """Integer outputs for integer inputs, both in torch's layout: int8, or of the dtypes of
        :attr:`output_quantizations` and :attr:`input_quantizations`. With a trainable head its int32 logits
        [N, classes].

        Raises:
            InputError: wrong inputs, shape or dtype.
        """
        integers = self._tensors(inputs, named, int)
        if self.head is not None:
            return self._returned.pack([self.head.logits(self._features(self._integers(integers)))])
        return self._returned.pack(self._run(self._integers(integers)))

    def features_int8(self, *inputs: TensorOrArray, **named: TensorOrArray) -> Tensor:
        """The trainable head's features: int8 [N, features], in device order (height, width, channels).

        Args:
            inputs: floats, or integers as :meth:`quantize_inputs` returns them.

        Raises:
            InputError: wrong inputs, shape or dtype, NaN or infinity.
            HeadError: there is no trainable head.
        """
        if self.head is None:
            raise HeadError("this model has no trainable head; to_nano(..., head=...) says when it gets one")
        return self._features(self._integers(self._tensors(inputs, named, float, int)))

    def _features(self, integers: Sequence[Tensor]) -> Tensor:
        (features,) = self._run(integers)
        return to_device(features)

    def _run(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        if inputs[0].device.type != "cpu":
            return self._graph.integer_run(*inputs)
        return self._from_device(self._model.run(self._to_device(inputs), torch.get_num_threads()))

    def _run_real(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Real outputs for real inputs in one native call: quantizing in torch takes longer than a small
        model's run.
        """
        for x in inputs:
            check_finite(x)
        outputs = self._from_device(
            self._model.run_real(self._to_device([x.detach() for x in inputs]), torch.get_num_threads())
        )
        return [
            y.long() if quantization.holds_indices else y
            for y, quantization in zip(outputs, self._output_quantizations, strict=True)
        ]

    def _to_device(self, inputs: Sequence[Tensor]) -> list[NDArray[Any]]:
        return [value.to_device(x).numpy() for value, x in zip(self._inputs, inputs, strict=True)]

    def _from_device(self, outputs: Sequence[NDArray[Any]]) -> list[Tensor]:
        return [
            value.from_device(torch.from_numpy(output))
            for output, value in zip(outputs, self._outputs, strict=True)
        ]

    def _tensors(self, inputs: Sequence[Any], named: Mapping[str, Any], *kinds: type) -> list[Tensor]:
        """The inputs of a call in order: floats (kind float) or integers of their dtypes (kind int)."""
        tensors: list[Tensor] = as_tensors(bind(list(self._input_shapes), inputs, named))
        dtypes = {name: each.torch_dtype for name, each in self.input_quantizations.items()}
        check_inputs(self._input_shapes, tensors, kinds, dtypes, self.index_limits)
        return tensors

    def _integers(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Quantizes inputs; integers stay as they are, and indices become int32."""
        integers = []
        for x, value, channels in zip(tensors, self._inputs, self._channels, strict=True):
            if x.is_floating_point():
                check_finite(x)
                x = value.quantize(x, channels)
            integers.append(x if value.index_limit is None else x.to(INDICES.torch_dtype))
        return integers

    def stream(self) -> Stream:
        """Runs the model step by step: after each step the outputs are the bytes of this model for the latest
        window.

        For causal networks over time, (channels, length): padding only before the window, and outputs that
        do not depend on it. The head is copied. For the model of a stream (:attr:`Stream.nano`, also after
        :meth:`save` and :func:`load`) this is a new stream of that model; called as a function, it takes each
        sample of a batch as the first step of a stream.

        Raises:
            StreamError: the model is not such a network; the message names the layer and says what to do.
        """
        if self._graph.streams:
            return Stream(self, self._model)
        saved = self._saved()
        graph = to_streaming(saved.graph, saved.head is not None)
        description = None if saved.head is None else saved.head.description
        in_ram = self._model.constants_in_ram
        image = write_image(graph, description, self.name, self.labels, in_ram, self._optimization)
        return Stream(NanoModule(SavedModel(image, graph, saved.head, self._optimization)), image)

    def summary(self, target: str | None = None, *, kernels: bool = False) -> Summary:
        """Cost and memory of each layer; prints as a table.

        Args:
            target: the name of a chip, whose cycles and milliseconds are then shown, too: :meth:`profile`
                says how they are found, and which errors are raised.
            kernels: show for each layer the kernels that could compute it, too, with the cycles that each is
                estimated to take, its flash and its scratch memory.
        """
        rows = layer_rows(self._graph, self._model)
        head_bytes = 0
        if self.head is not None:
            row = head_row(self.head, self.head_path or "")
            head_bytes = row.weight_bytes
            rows.append(row)
        equalized = sum(bool(value.factors) for value in self._graph.graph.values.values())
        return Summary(
            self.name,
            tuple(rows),
            self.flash_bytes,
            self.arena_bytes,
            self.weights_in_ram,
            head_bytes,
            equalized,
            None if target is None else self._profile(target, rows, None),
            self._kernels() if kernels else None,
            self._optimization.estimated,
            () if self._saved_head is None else self._saved_head.layer_choice,
        )

    def _repr_html_(self) -> str:
        return self.summary().table.html()

    def _kernels(self) -> tuple[tuple[KernelChoice, ...], ...]:
        """The kernels that could compute each layer of the image."""
        saved = self._saved()
        description = None if saved.head is None else saved.head.description
        in_ram, optimization = self._model.constants_in_ram, self._optimization
        described = describe(self._graph, description, self.name, self.labels, in_ram, optimization)
        estimates = _native.estimate_kernels(described)
        return tuple(tuple(KernelChoice(**one) for one in layer) for layer in estimates)

    def verify(self, target: Target = "host", data: Example | None = None) -> VerifyReport:
        """Compares nano-core on this machine with a target, byte by byte.

        Args:
            target: "host" is the integer run in plain torch, every layer compared; "rv32imc" is the emulated
                board, the output and the logits of a head as it starts compared.
            data: inputs, floats or integers, a tuple or a dict if the model has several; 16 random ones of a
                fixed seed if none are given.

        Raises:
            InputError: wrong shape or dtype of the data, no sample, or an unknown target.
            BoardError: QEMU is missing.
            ConnectionLost: the board stops.
        """
        one_of("target", target, get_args(Target))
        inputs = self._samples(data, _RANDOM_INPUTS)
        if target == "host":
            return verify_host(self._model, self._graph, inputs)
        return verify_rv32imc(self._model, self._to_device(inputs))

    def profile(self, chip: str, data: Example | None = None) -> Profile:
        """What one prediction takes on a chip, layer by layer: instructions, cycles, milliseconds, and what
        they are lost to. Prints as a table.

        Runs on the emulated board under a model of the chip's cycles; nothing is measured on a chip.
        Repeatable.

        Args:
            chip: the chip's name, such as "esp32c3".
            data: inputs, floats or integers, a tuple or a dict if the model has several, of which the first
                sample is run; a random one of a fixed seed if none are given. The time hardly depends on it.

        Raises:
            ChipError: there is no such chip, or what its cycles cost is not known.
            InputError: wrong shape or dtype of the data, or no sample.
            BoardError: QEMU is missing.
            CycleModelError: QEMU cannot load the cycle model.
            ConnectionLost: the board stops.

        >>> import torch
        >>> from torch_nano import to_nano
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> x = torch.randn(64, 4)
        >>> made = to_nano(model, x, calibrate=x).profile("esp32c3")
        >>> made.total.cycles > made.total.instructions > 0
        True
        """
        return self._profile(chip, self.summary().layers, data)

    def fits(self, chip: str, *, period: float = 1.0, firmware: str = Variant.SERVER) -> ChipFit:
        """What the model takes of a chip: flash, RAM, stack and time, and what would help. Prints as bars;
        true if all fits. Nothing is compiled, and nothing measured on a chip.

        Args:
            chip: the chip's name, such as "esp32c3".
            period: seconds from one prediction to the next, of which the time is a share.
            firmware: what it does, as ``just flash --as`` has it: "server" answers a PC, "classifier" only
                classifies, and "mpu6050", "lsm6dso", "voltage" or "microphone" senses with that sensor.

        The time comes from :meth:`profile`; it is left out, with the reason, where that is not possible.

        Raises:
            ChipError: there is no such chip.
            InputError: the period is no time, or there is no such firmware.

        >>> import torch
        >>> from torch_nano import to_nano
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> x = torch.randn(64, 4)
        >>> fit = to_nano(model, x, calibrate=x).fits("esp32c3")
        >>> bool(fit), fit.ram.used < fit.ram.available
        (True, True)
        """
        facts = chip_named(chip)
        variant = variant_of(firmware)
        milliseconds = 1000 * seconds("period", period)
        try:
            profile = self.profile(chip)
        except (ChipError, ConnectionFailed) as error:
            return self._fit(facts, variant, time_unknown=str(error))
        taken = profile.milliseconds(profile.total)
        return self._fit(facts, variant, milliseconds=taken, period=milliseconds)

    def fits_without_time(self, chip: Chip, variant: Variant = Variant.SERVER) -> ChipFit:
        """:meth:`fits` without the time, which takes a run on the emulated board."""
        return self._fit(chip, variant)

    def _fit(self, chip: Chip, variant: Variant, **time: Any) -> ChipFit:
        return chip_fit(self._model, chip, self._layer_uses(), self._trainer, variant, **time)

    @property
    def _trainer(self) -> str | None:
        return None if self.head is None else type(self.head).__name__

    def _layer_uses(self) -> list[LayerUse]:
        return [
            LayerUse(layer.module_path, layer.kernel, layer.weight_bytes, layer.arena_bytes)
            for layer in layer_rows(self._graph, self._model)
        ]

    def _profile(self, chip: str, rows: Sequence[LayerSummary], data: Example | None) -> Profile:
        arrays = self._to_device(self._samples(data, 1))
        sample = dict(zip(self._model.input_names, (array[0] for array in arrays), strict=True))
        described = [(layer.operator, layer.module_path, layer.kernel) for layer in rows]
        return profile(self._model, self.name, described, sample, chip)

    def _samples(self, data: Example | None, random: int) -> list[Tensor]:
        """The integers of given inputs, or of a number of random ones of a fixed seed."""
        if data is None:
            generator = torch.Generator().manual_seed(_SEED)
            data = [value.random(random, generator) for value in self._inputs]
        expected = "a tensor, a tuple of tensors, or a dict of them by the names of the inputs"
        data = as_tensors(data)
        named = dict(data) if isinstance(data, Mapping) else {}
        if not all(isinstance(name, str) for name in named):
            raise InputError(f"data has the keys {shown(list(named))}; expected {expected}")
        positional = [data] if isinstance(data, Tensor) else [] if isinstance(data, Mapping) else data
        if not isinstance(positional, list | tuple):
            raise InputError(f"data is {shown(data)}; expected {expected}")
        inputs = [x.cpu() for x in self._integers(self._tensors(positional, named, float, int))]
        if not len(inputs[0]):
            raise InputError(
                f"the input has shape {tuple(inputs[0].shape)}; expected at least one sample to compare"
            )
        return inputs

    def compare(self, model: nn.Module, data: CalibrationData) -> Comparison:
        """Compares this model with the float model that it was made from, layer by layer.

        Args:
            model: the module that :func:`to_nano` was given; a loaded model has no float parameters itself.
            data: as for `calibrate` of :func:`to_nano`. Labels in it, the y of (x, y), are the classes of
                a single output: indices [N], for maps [N, ...], or names of :attr:`labels`.

        Returns:
            The error of each layer alone and in the network, those that lose most first; the outputs side by
            side, with a trainable head as it is now; and what to do.

        Raises:
            InputError: wrong data, none at all, or the model is not the one that this was made from.
            StreamError: this is the model of a stream; compare that over the whole window.
            NonFiniteError: NaN or infinity in the data, a weight or an activation.
            CaptureError, UnsupportedError: the model cannot be captured.

        >>> import torch
        >>> from torch_nano import to_nano
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> x, y = torch.randn(64, 4), torch.randint(3, (64,))
        >>> report = to_nano(model, x, calibrate=x).compare(model, (x, y))
        >>> sorted(layer.module_path for layer in report.layers), report.outputs[0].sqnr > 20
        (['', '0', '2'], True)
        """
        if self._graph.streams:
            raise StreamError(
                "the model of a stream takes one step at a time: compare the model over the window, of which "
                "stream() was called"
            )
        graph = float_graph_of(model, self._graph, self._saved_head)
        batches = batches_to_compare(self._graph.graph, data, self.labels)
        return compare(graph, self._graph, batches, None if self.head is None else self._logits)

    def evaluate(self, data: CalibrationData, model: nn.Module | None = None) -> Evaluation:
        """Predicts labelled data, with a trainable head as it is now: accuracy, classes, confusion matrix,
        worst samples. Prints as tables.

        Args:
            data: as for `calibrate` of :func:`to_nano`, with labels: indices [N] of classes, or names of
                :attr:`labels`.
            model: the float model that this was made from, to be evaluated side by side; None: unknown.

        Raises:
            InputError: wrong data, or none; no labels; or the model does not return one score for each class.

        >>> import torch
        >>> from torch_nano import to_nano
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> x, y = torch.randn(64, 4), torch.arange(64) % 3
        >>> nano = to_nano(model, x, calibrate=x, labels=["rest", "walk", "run"])
        >>> made = nano.evaluate((x, [nano.labels[label] for label in y]), model)
        >>> made.accuracy == float((nano(x).argmax(1) == y).float().mean()), made.confusion.shape
        (True, (3, 3))
        """
        batches = Batches(self._graph.graph, data, "evaluation", 1 if model is None else 2, self.labels)
        return evaluate(
            self.name, batches, self.labels, self.classes, self._scores, model, list(self._input_shapes)
        )

    def memory_map(self) -> MemoryMap:
        """What is where in the arena while each layer runs; its `plot` draws it."""
        rows = layer_rows(self._graph, self._model)
        return memory_map(self._model, self.name, [row.module_path or row.operator for row in rows])

    def report(
        self,
        path: str | os.PathLike[str],
        data: CalibrationData | None = None,
        model: nn.Module | None = None,
        *,
        chip: str = MODELLED,
    ) -> None:
        """Writes a page (HTML, one file that needs nothing else): graph with shapes and scales, memory map,
        layers with their cycles and errors, accuracy and confusion matrix, what it takes of each chip,
        versions.

        Args:
            path: the file; one that is there is replaced.
            data: labelled samples for the accuracy, as for :meth:`evaluate`; without labels for the errors of
                the layers alone. None: neither.
            model: the float model that this was made from, for the errors and the float accuracy.
            chip: whose cycles are shown, where they are known.

        Raises:
            InputError: wrong data, data that can be read only once, or neither labels nor a float model to
                compare it with; `path` is no path.
            ChipError: there is no such chip.
            OSError: the file cannot be written.

        >>> import tempfile, pathlib, torch
        >>> from torch_nano import to_nano
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> x, y = torch.randn(64, 4), torch.arange(64) % 3
        >>> file = pathlib.Path(tempfile.mkdtemp(), "report.html")
        >>> to_nano(model, x, calibrate=x).report(file, (x, y), model)
        >>> file.read_text()[:15]
        '<!doctype html>'
        """
        file, evaluation, comparison = path_of("path", path), None, None
        if data is not None:
            if once_only(data):
                raise InputError(
                    f"data is {shown(data)}, which can be read only once; expected data to be read several "
                    "times, such as a list of batches"
                )
            first = next(iter(Batches(self._graph.graph, data, "report", names=self.labels)), None)
            if first is not None and first.labels is None and model is None:
                raise InputError(
                    "the data has no labels, and there is no float model to compare with; expected "
                    "(x, y), or model=..."
                )
            if first is None or first.labels is not None:
                evaluation = self.evaluate(data, model)
            comparison = None if model is None else self.compare(model, data)
        write_file(file, report(self, self._model, evaluation, comparison, chip).encode())

    @property
    def classes(self) -> int:
        """The number of classes that it tells apart: those of the head, or of the only output.

        Raises:
            InputError: it has several outputs, or its head learns something else than one right class.
        """
        if self.head is not None:
            if self.head.target != "class":
                raise InputError(
                    "evaluate takes models of one right class; the outputs of this head do not exclude each "
                    "other"
                )
            return self.head.classes
        if len(self._outputs) > 1:
            raise InputError(
                f"the model returns {len(self._outputs)} tensors; evaluate takes a model that returns the "
                "scores of classes [N, classes]"
            )
        (output,) = self._graph.graph.outputs
        argmax = argmax_of(self._graph.graph, output)
        return self._graph.graph.values[output if argmax is None else argmax.inputs[0]].shape[0]

    def _scores(self, inputs: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
        """The scores of a batch, and which samples are of a known class."""
        if self.head is None:
            return only_output(self(*inputs)), None
        features = self.features_int8(*inputs)
        rejects = self._saved_head is not None and bool(self._saved_head.description.get("rejection"))
        return self.head.logits(features), self.head.certainty(features).known if rejects else None

    def _logits(self, features: Sequence[Tensor]) -> list[Tensor]:
        """The head's outputs for the integers that the network before it returns."""
        assert self.head is not None
        (only,) = features
        return [self.head(to_device(only))]

    def load_head_into(self, model: nn.Module) -> None:
        """Writes what the last layers have learnt (`train_last=2` and more) into the float model they come
        from.

        Raises:
            HeadError: no such layers learn here, or the model does not have them.
        """
        if not isinstance(self.head, LayersHead) or self.head_path is None:
            kind = "no trainable head" if self.head is None else f"a {type(self.head).__name__}"
            raise HeadError(
                f"this model has {kind}; load_head_into takes what to_nano(..., train_last=2) or more gives"
            )
        if not isinstance(model, nn.Module):
            raise HeadError(f"model is {shown(model)}; expected the nn.Module that to_nano was given")
        self.head.write_into(model, self.head_path.split(", "))

    def export(
        self,
        folder: str | os.PathLike[str],
        *,
        crate: bool = False,
        nano_core: str | os.PathLike[str] | None = None,
    ) -> None:
        """Writes `model.nano` and the Rust module `model.rs` for a firmware; the head starts as in the image.

        Args:
            folder: where to; it is made if it is missing.
            crate: also make it a `no_std` crate of its own, with `Cargo.toml`, `src/lib.rs` and `README.md`:
                its `Classifier` takes real numbers, classifies them, and learns if the model has a head.
            nano_core: for a crate, the folder of nano-core, such as that of a checkout; None: from crates.io,
                in the version of this package.

        Raises:
            InputError: `folder` or `nano_core` is no path, or `nano_core` is not the crate, or is of another
                version, or is given without `crate`.
            ExportError: a file of that name is there that no export wrote, or the folder cannot be written.
        """
        target = path_of("folder", folder)
        if not isinstance(crate, bool):
            raise InputError(f"crate is {shown(crate)}; expected True or False")
        if nano_core is not None and not crate:
            raise InputError(
                f"nano_core is {shown(nano_core)}, which only a crate needs; expected crate=True"
            )
        dependency = rust_crate.dependency(target, nano_core) if crate else None
        export(target, self._model, self.head, self._graph.graph, dependency)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the model, with the present state of its head, to one file for :func:`load`.

        Raises:
            InputError: `path` is no path.
            OSError: it cannot be written; an existing file is unchanged.
        """
        write_file(path_of("path", path), pack(self._saved()))

    def _saved(self) -> SavedModel:
        saved = self._saved_head
        if self.head is None or saved is None:
            return SavedModel(self._model, self._graph, None, self._optimization)
        head = replace(saved, state=self.head.state())
        return SavedModel(self._model, self._graph, head, self._optimization)


def load(path: str | os.PathLike[str]) -> NanoModule:
    """The model that :meth:`NanoModule.save` wrote, byte for byte.

    Raises:
        FileFormatError: the file is no saved model, is damaged or contradicts itself, or comes from another
            version.
        InputError: `path` is no path.
        OSError: it cannot be read.
    """
    file = path_of("path", path)
    content = read_file(file)
    try:
        return NanoModule(unpack(content))
    except FileFormatError as error:
        raise FileFormatError(f"{file}: {error}") from error

"""NanoModule: a model as it runs on the device, as an nn.Module."""

from __future__ import annotations

import os
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .arguments import check_batch, path_of, shown
from .errors import FileFormatError, HeadError, InputError
from .export import rust_module
from .export.file import SavedHead, SavedModel, pack, unpack
from .export.image import layers
from .files.reading import read_file
from .files.writing import write_file
from .heads import Head, LayersHead, head_of
from .ir.quantization import Quantization
from .ir.value import Shape
from .ops._integer import is_native
from .ops.layout import from_device, to_device
from .quant.quantize import QuantizedGraph
from .quant.tensors import check_finite, dequantize_tensor, quantize_tensor
from .summary import LayerSummary, Summary, arena_in_use
from .verify import VerifyReport, verify_host, verify_rv32imc

Target = Literal["host", "rv32imc"]
#: Inputs that `verify` makes when it is given none.
_RANDOM_INPUTS = 16
_SEED = 0


class NanoModule(nn.Module):
    """A model in integers, with the arithmetic and the bytes of the device. Made by :func:`to_nano` and
    :func:`load`.

    Called with floats it quantizes them, runs the image, and gives real numbers. Tensors on the CPU run
    through nano-core, others through the same integers in plain torch. There are no gradients.

    Shapes are the original model's, with batch.
    """

    #: The trainable head in RAM, None if the whole model is in flash.
    head: Head | None

    def __init__(self, saved: SavedModel) -> None:
        super().__init__()
        self._model = saved.image
        self._graph = saved.graph
        self._saved_head = saved.head
        self.head = None if saved.head is None else head_of(saved.image)
        if self.head is not None and saved.head is not None and saved.head.state:
            self.head.load(saved.head.state)

    @property
    def head_path(self) -> str | None:
        """Path of the module that the head was made from, of several with ", " between; None without one."""
        return None if self._saved_head is None else self._saved_head.path

    @property
    def name(self) -> str:
        """The model's name."""
        return self._model.name

    @property
    def id(self) -> int:
        """The image's CRC-32, by which a device names the model it runs."""
        return self._model.id

    @property
    def labels(self) -> list[str]:
        """The names of the classes; may be empty."""
        return self._model.labels

    @property
    def image(self) -> bytes:
        """The `.nano` image: what the device runs."""
        return self._model.image

    @property
    def graph(self) -> QuantizedGraph:
        """The model in integers as plain data; it prints."""
        return self._graph

    @property
    def flash_bytes(self) -> int:
        """Bytes of the image."""
        return self._model.length

    @property
    def arena_bytes(self) -> int:
        """Bytes of RAM for one run."""
        return self._model.arena_length

    @property
    def input_shape(self) -> Shape:
        """Shape of one input, without batch."""
        return self._graph.graph.values[self._graph.graph.inputs[0]].shape

    @property
    def input_quantization(self) -> Quantization:
        """What the input's int8 numbers mean."""
        return self._graph.graph.quantization(self._graph.graph.inputs[0])

    @property
    def output_quantization(self) -> Quantization:
        """What the int8 numbers of the output (with a trainable head: of its features) mean."""
        return self._graph.graph.quantization(self._graph.graph.outputs[0])

    def forward(self, x: Tensor) -> Tensor:
        """float32 outputs for float inputs.

        Raises:
            InputError: wrong shape or dtype, NaN or infinity.
        """
        if self.head is not None:
            logits: Tensor = self.head(self.features_int8(self.quantize_input(x)))
            return logits
        self._check(x, float)
        if not (is_native(x) and x.dtype == torch.float32):
            return dequantize_tensor(self._run(self.quantize_input(x)), self.output_quantization)
        check_finite(x)
        # In one native call: quantizing in torch takes longer than a small model's run.
        (output,) = self._model.run_real([to_device(x.detach()).numpy()])
        return self._from_device(output)

    def quantize_input(self, x: Tensor) -> Tensor:
        """The int8 numbers the device must be given for float inputs; what lies outside the input's range is
        clamped.

        Raises:
            InputError: wrong shape or dtype, NaN or infinity.
        """
        self._check(x, float)
        check_finite(x)
        return quantize_tensor(x, self.input_quantization)

    def device_inputs(self, x: Tensor) -> NDArray[np.int8]:
        """What a device must be sent for float inputs: int8 [N, elements], in the device's order.

        Raises:
            InputError: wrong shape or dtype, NaN or infinity.
        """
        return to_device(self.quantize_input(x).cpu()).numpy()

    def forward_int8(self, x: Tensor) -> Tensor:
        """int8 outputs for int8 inputs, both in torch's layout; with a trainable head its int32 logits [N,
        classes].

        Raises:
            InputError: wrong shape or dtype.
        """
        if self.head is not None:
            return self.head.logits(self.features_int8(x))
        self._check(x, int)
        return self._run(x)

    def features_int8(self, x: Tensor) -> Tensor:
        """What the trainable head sees: int8 [N, features], in the device's order (height, width, channels).

        Args:
            x: floats, or int8 numbers as :meth:`quantize_input` gives them.

        Raises:
            InputError: wrong shape or dtype, NaN or infinity.
            HeadError: there is no trainable head.
        """
        if self.head is None:
            raise HeadError("this model has no trainable head; to_nano(..., head=...) says when it gets one")
        return to_device(self._run(self._as_int8(x)))

    def _run(self, x: Tensor) -> Tensor:
        if not is_native(x):
            return self._graph.integer_run(x)[0]
        (output,) = self._model.run([to_device(x).numpy()])
        return self._from_device(output)

    def _from_device(self, output: NDArray[Any]) -> Tensor:
        name = self._graph.graph.outputs[0]
        return from_device(torch.from_numpy(output), self._graph.graph.values[name].shape)

    def _as_int8(self, x: Tensor) -> Tensor:
        self._check(x, float, int)
        return self.quantize_input(x) if x.is_floating_point() else x

    def _check(self, x: object, *kinds: type) -> None:
        """Refuses all but [N, *input_shape] of floats (kind float) or int8 (kind int)."""
        check_batch("the input", x, self.input_shape, kinds)

    def summary(self) -> Summary:
        """What each layer costs and where it lies; prints as a table."""
        rows = []
        described = zip(layers(self._graph), self._model.layers, arena_in_use(self._model), strict=True)
        for node, entry, arena_bytes in described:
            value = self._graph.graph.values[node.name]
            rows.append(
                LayerSummary(
                    operator=entry["operator"],
                    module_path=value.module_path,
                    output_shape=value.shape,
                    macs=entry["macs"],
                    weight_bytes=entry["constant_bytes"],
                    arena_bytes=arena_bytes,
                    variant=entry["variant"],
                    memory="flash",
                )
            )
        head_bytes = 0
        if self.head is not None:
            head_bytes = len(self.head.state())
            macs = self.head.macs
            rows.append(
                LayerSummary(
                    self.head.name, self.head_path or "", (self.head.classes,), macs, head_bytes, 0, 0, "RAM"
                )
            )
        return Summary(self.name, tuple(rows), self.flash_bytes, self.arena_bytes, head_bytes)

    def verify(self, target: Target = "host", data: Tensor | None = None) -> VerifyReport:
        """Compares nano-core on this machine with a target, byte by byte.

        Args:
            target: "host" is the integer run in plain torch, every layer compared; "rv32imc" is the emulated
                board, the output and the logits of a head as it starts compared.
            data: inputs, float or int8; 16 random ones of a fixed seed if none are given.

        Raises:
            InputError: wrong shape or dtype of the data, no sample, or an unknown target.
            BoardError: QEMU is missing.
            ConnectionLost: the board stops.
        """
        if target not in get_args(Target):
            raise InputError(f"there is no target {target!r}; expected one of {', '.join(get_args(Target))}")
        if data is None:
            shape = (_RANDOM_INPUTS, *self.input_shape)
            generator = torch.Generator().manual_seed(_SEED)
            data = torch.randint(-128, 128, shape, dtype=torch.int8, generator=generator)
        inputs = self._as_int8(data).cpu()
        if not len(inputs):
            raise InputError(
                f"the input has shape {tuple(inputs.shape)}; expected at least one sample to compare"
            )
        if target == "host":
            return verify_host(self._model, self._graph, inputs)
        return verify_rv32imc(self._model, inputs)

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
        shape = self._graph.graph.values[self._graph.graph.outputs[0]].shape
        self.head.write_into(model, self.head_path.split(", "), torch.Size(shape[1:]).numel())

    def export(self, folder: str | os.PathLike[str]) -> None:
        """Writes `model.nano` and the Rust module `model.rs` for a firmware; the head starts as in the image.

        Raises:
            InputError: `folder` is no path.
            ExportError: a file of that name is there that no export wrote, or the folder cannot be written.
        """
        rust_module.export(path_of("folder", folder), self._model, self.head)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the model, the present state of its head included, to one file for :func:`load`.

        Raises:
            InputError: `path` is none.
            OSError: it cannot be written; what the file held before, it still holds.
        """
        write_file(path_of("path", path), pack(self._saved()))

    def _saved(self) -> SavedModel:
        saved = self._saved_head
        if self.head is None or saved is None:
            return SavedModel(self._model, self._graph, None)
        head = SavedHead(saved.path, saved.description, self.head.state())
        return SavedModel(self._model, self._graph, head)


def load(path: str | os.PathLike[str]) -> NanoModule:
    """The model that :meth:`NanoModule.save` wrote, byte for byte.

    Raises:
        FileFormatError: the file is no saved model, is damaged or contradicts itself, or comes from another
            version.
        InputError: `path` is none.
        OSError: it cannot be read.
    """
    file = path_of("path", path)
    content = read_file(file)
    try:
        return NanoModule(unpack(content))
    except FileFormatError as error:
        raise FileFormatError(f"{file}: {error}") from error

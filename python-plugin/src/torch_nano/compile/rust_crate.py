"""The generated crate: a model as a `no_std` library that classifies and learns."""

from __future__ import annotations

import os
import re
import tomllib
import unicodedata
from math import prod
from pathlib import Path
from typing import Any

from .. import _native
from ..arguments import path_of, shown
from ..errors import InputError
from ..heads import Head
from ..ir.graph import Graph
from .rust_module import GENERATED, RUST_KEYWORDS, identifiers, in_pytorch
from .rust_quantization import function_names, holds_indices

#: Names that cargo refuses for a library, besides keywords.
_RESERVED = {
    "alloc",
    "build",
    "core",
    "deps",
    "examples",
    "incremental",
    "nano-core",
    "proc-macro",
    "std",
    "test",
}


def dependency(folder: Path, nano_core: str | os.PathLike[str] | None) -> str:
    """How the manifest of a crate in `folder` names nano-core: by version, and by its folder if given.

    Raises:
        InputError: `nano_core` is no path, not the folder of that crate, or has another version.
    """
    version = _native.__version__
    if nano_core is None:
        return f'"{version}"'
    path = path_of("nano_core", nano_core)
    found = _version(path)
    if found != version:
        what = "not that crate" if found is None else f"version {found}"
        raise InputError(
            f"nano_core is {shown(str(path))}, {what}; expected the folder of the crate nano-core {version}"
        )
    relative = os.path.relpath(path.resolve(), folder.resolve())
    return f'{{ version = "{version}", path = {_toml_string(relative)} }}'


def _version(crate: Path) -> str | None:
    """The version of nano-core in a folder, or the one that it takes from its workspace."""
    try:
        package: dict[str, Any] = tomllib.loads((crate / "Cargo.toml").read_text())["package"]
        if package["name"] != "nano-core":
            return None
        version = package["version"]
        if isinstance(version, dict):
            workspace = tomllib.loads((crate.resolve().parent / "Cargo.toml").read_text())
            version = workspace["workspace"]["package"]["version"]
    except (OSError, ValueError, KeyError):
        return None
    return str(version)


def crate_files(model: _native.Model, head: Head | None, graph: Graph, dependency: str) -> dict[str, str]:
    """The texts of the crate's files by their names; `model.rs` and the image stand beside `Cargo.toml`."""
    name = crate_name(model.name)
    return {
        "Cargo.toml": _manifest(name, model, dependency),
        "README.md": _readme(name, model, head),
        "src/lib.rs": _library(model, head, graph),
    }


def crate_name(name: str) -> str:
    """The name of a model's crate, as cargo accepts it: ASCII, letters without their accents.

    >>> [crate_name(name) for name in ("Moves of Anna", "2d", "type", "\\u00e9t\\u00e9", "\\u6b69")]
    ['moves-of-anna', 'model-2d', 'model-type', 'ete', 'model']
    """
    plain = unicodedata.normalize("NFKD", name.lower()).encode("ascii", "ignore").decode()
    slug = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")
    if not slug:
        return "model"
    unusable = slug[0].isdecimal() or slug in _RESERVED or slug in RUST_KEYWORDS
    return f"model-{slug}" if unusable else slug


def _manifest(name: str, model: _native.Model, dependency: str) -> str:
    return f"""# {GENERATED}
[package]
name = "{name}"
description = {_toml_string(f"The model {model.name}, converted by torch-nano")}
version = "{_native.__version__}"
edition = "2024"
publish = false

[features]
# Formatting for debug probes.
defmt = ["nano-core/defmt"]

[dependencies]
nano-core = {dependency}
"""


def _readme(name: str, model: _native.Model, head: Head | None) -> str:
    values = [model.values[index] for index in model.inputs]
    given = ", ".join(
        f"&[{'0' if holds_indices(value) else '0.0'}; {prod(value['shape'])}]" for value in values
    )
    learning = (
        f"""
classifier.learn({given}, Target::Class(0))?;
classifier.train(20)?;"""
        if head
        else ""
    )
    used = "Classifier, Memory, Target" if head else "Classifier, Memory"
    return f"""<!-- {GENERATED} -->
# {name}

The model {model.name}, converted by torch-nano: integers only, no allocation, the same bytes as in PyTorch.

```rust
use {name.replace("-", "_")}::{{{used}}};

let mut memory: Memory = Memory::new(); // on a chip: a static
let mut classifier = Classifier::new(&mut memory)?;
let made = classifier.classify({given});
println!("{{}} {{:?}}", classifier.name(made.class), made.confidence);{learning}
# Ok::<(), {name.replace("-", "_")}::Error>(())
```

It depends on the crate nano-core {_native.__version__}. To take that from a checkout of torch-nano, export
with `nano_core="path/to/nano-core"`, or patch it in the program's manifest: `[patch.crates-io]`.
"""


def _library(model: _native.Model, head: Head | None, graph: Graph) -> str:
    inputs = [model.values[index] for index in model.inputs]
    # `target` is another argument of `learn`.
    names = identifiers(["target", *model.input_names])[1:]
    given = ", ".join(f"{name}: {_array(value)}" for name, value in zip(names, inputs, strict=True))
    passed = ", ".join(names)
    shapes = "".join(
        f"    /// - `{name}`: height, width, channels {_shape(value)}.{in_pytorch(graph.values[of])}\n"
        for name, value, of in zip(names, inputs, graph.inputs, strict=True)
    )
    writes = "".join(map(_write_input, range(len(names)), names, inputs))
    return f"""// {GENERATED}
#![no_std]
#![allow(non_snake_case, reason = "inputs and outputs are named as in the model")]
#![doc = include_str!("../README.md")]

#[path = "../model.rs"]
pub mod model;

pub use nano_core::train::Target;
pub use nano_core::{{Error, Prediction}};

const ARENA_WORDS: usize = model::ARENA_LENGTH.div_ceil(4);
/// Words of the head, its features, and the samples that it keeps unless a program chooses another number.
const HEAD_SIZES: [usize; 3] = match model::HEAD {{
    Some(head) if head.uses_ring() => [head.words(), head.features, 128],
    Some(head) => [head.words(), 0, 0],
    None => [0; 3],
}};

/// RAM of a [`Classifier`]; a head that learns in epochs learns from the latest `RING` samples.
pub type Memory<const RING: usize = {{ HEAD_SIZES[2] }}> =
    nano_core::Memory<ARENA_WORDS, {{ HEAD_SIZES[0] }}, {{ HEAD_SIZES[1] }}, RING>;

/// The model, ready to classify.
pub struct Classifier<'a> {{
    /// What is the same for every model: the head's state, integers, a training in slices.
    pub inner: nano_core::Classifier<'a, model::Head<'a>>,
}}

impl<'a> Classifier<'a> {{
    /// The model, its head as in the image.
    ///
    /// # Errors
    /// [`Error::Length`] for a ring without places.
    pub fn new<const RING: usize>(memory: &'a mut Memory<RING>) -> Result<Self, Error> {{
        let image = nano_core::CheckedImage::new(model::IMAGE, model::KERNELS)?;
        Ok(Classifier {{ inner: nano_core::Classifier::new(image, memory)? }})
    }}

    /// Runs the model on real numbers, and names the class.
    ///
{shapes}    pub fn classify(&mut self, {given}) -> Prediction {{
        self.set_inputs({passed});
        self.inner.classify()
    }}

    /// The name of a class; empty if it has none.
    pub fn name(&self, class: u32) -> &'a str {{
        self.inner.name(class)
    }}
{_outputs(model) if head is None else _learning(given, passed)}{_states(model)}
    fn set_inputs(&mut self, {given}) {{
{writes}    }}
}}
{_classes(model)}"""


def _array(value: _native.ValueEntry) -> str:
    return f"&[{_number(value)}; {prod(value['shape'])}]"


def _number(value: _native.ValueEntry) -> str:
    return "i32" if holds_indices(value) else "f32"


def _shape(value: _native.ValueEntry) -> str:
    return " x ".join(map(str, value["shape"]))


def _write_input(index: int, name: str, value: _native.ValueEntry) -> str:
    if holds_indices(value):
        return f"        self.inner.input_elements({index}).copy_from_slice({name});\n"
    # Its array has the input's length, which is all that could be refused.
    return f"        let _ = self.inner.set_input({index}, {name});\n"


def _learning(given: str, passed: str) -> str:
    return f"""
    /// Runs the model on real numbers, as [`Classifier::classify`] takes them, and learns that they are of
    /// `target`. A head that learns in epochs keeps their features for [`Classifier::train`].
    ///
    /// # Errors
    /// [`Error::Label`] for a class that the head does not have, [`Error::Unsupported`] for another kind.
    pub fn learn(&mut self, {given}, target: Target) -> Result<(), Error> {{
        self.set_inputs({passed});
        self.inner.run();
        self.inner.learn(target)
    }}

    /// Computes the head's weights from what was learnt: [`nano_core::Classifier::train`].
    ///
    /// # Errors
    /// [`Error::Epochs`] for too many.
    pub fn train(&mut self, epochs: u32) -> Result<(), Error> {{
        self.inner.train(epochs)
    }}
"""


def _outputs(model: _native.Model) -> str:
    values = [model.values[index] for index in model.outputs]
    return "".join(map(_output, range(len(values)), function_names("output", model.output_names), values))


def _output(index: int, function: str, value: _native.ValueEntry) -> str:
    read = (
        f"numbers.copy_from_slice(self.inner.output_elements({index}));"
        if holds_indices(value)
        else f"self.inner.image().dequantize_output({index}, self.inner.output({index}), &mut numbers);"
    )
    return f"""
    /// An output of the latest run: height, width, channels {_shape(value)}.
    pub fn {function}(&self) -> [{_number(value)}; {prod(value["shape"])}] {{
        let mut numbers = [Default::default(); {prod(value["shape"])}];
        {read}
        numbers
    }}
"""


def _states(model: _native.Model) -> str:
    if not any(value["state"] for value in model.values):
        return ""
    return """
    /// Begins another stream: sets the model's states, which live from run to run, to their start.
    pub fn reset_states(&mut self) {
        self.inner.reset_states();
    }
"""


def _classes(model: _native.Model) -> str:
    if not model.labels:
        return ""
    names = identifiers([label.upper() for label in model.labels])
    constants = "".join(
        f"    /// {label}\n    pub const {name}: u16 = {index};\n"
        for index, (name, label) in enumerate(zip(names, model.labels, strict=True))
    )
    return f"""
/// The classes, for [`Target::Class`].
pub mod classes {{
{constants}}}
"""


def _toml_string(text: str) -> str:
    """A basic string of TOML.

    >>> print(_toml_string('a "b"\\t'))
    "a \\"b\\"\\U00000009"
    """
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in escaped) + '"'

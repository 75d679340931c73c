"""Checks for computations of a model in one mode only, which training the image's graph would lose."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export.graph_signature import InputKind

from ..errors import UnsupportedError, UnsupportedNode
from ..modules.freeze import is_frozen
from ..modules.inputs import Inputs
from .program import export, has_two_modes, module_path, source_line, target_name

#: Calls whose mode training supports -> the argument with the mode.
_MODES = {
    "aten::batch_norm": "training",
    **{f"aten::{kind}dropout{place}": "train" for kind in ("", "alpha_", "feature_") for place in ("", "_")},
    "aten::feature_alpha_dropout": "train",
}
#: The place of "training" among the arguments of batch_norm.
_TRAINING = 5
_WAY_OUT = (
    "switch it off (a probability of 0), tn.freeze its module, or move it out of the model: noise to the "
    "data, a softmax or a second output to the loss"
)


def check_train_mode(
    model: nn.Module, batch: Inputs, evaluated: torch.export.ExportedProgram
) -> frozenset[str]:
    """Checks that a model computes the same in train mode as in evaluation mode, except for dropout and batch
    norm. Frozen modules have one mode.

    Args:
        evaluated: the model in evaluation mode, exported with the batch.

    Returns:
        The calls of batch norms (their names in `evaluated`) that use the running statistics even in train
        mode: `F.batch_norm(..., training=False)`.

    Raises:
        UnsupportedError: all calls with which differences begin.
        CaptureError: torch.export cannot trace the model in train mode.
    """
    evaluation, training = _Calls(evaluated), _Calls(export(model, batch, training=True))
    found = _only_in(training, evaluation)
    reason = (
        "it is computed in train mode only; QAT, which trains what the image computes, would leave it out"
    )
    if not found:
        # If there are differences in train mode, these may only follow from them: a layer on another input.
        found = _only_in(evaluation, training)
        reason = "it is computed in evaluation only; QAT, which trains what the image computes, trains it"
    if not found and training.outputs != evaluation.outputs:
        found = [("", "", "return")]
        reason = "the model returns another of its results in train mode than in evaluation"
    if found:
        nodes = [
            UnsupportedNode(path, line, _described(model, path, call), reason, _WAY_OUT)
            for path, line, call in found
        ]
        raise UnsupportedError(nodes, "be trained by prepare_qat")
    resting = {key for node, key in training.keys.items() if _rests(model, node)}
    return frozenset(node.name for node, key in evaluation.keys.items() if key in resting)


def _rests(model: nn.Module, node: fx.Node) -> bool:
    """Whether a call in train mode is a batch norm with training=False in a module that is in train mode."""
    if node.target != torch.ops.aten.batch_norm.default or node.args[_TRAINING]:
        return False
    caller = model.get_submodule(module_path(node))
    return not (is_frozen(caller) or has_two_modes(caller))


class _Calls:
    """The calls of a program by keys: calls that compute the same have equal keys, across programs, too."""

    def __init__(self, program: torch.export.ExportedProgram) -> None:
        self.keys: dict[fx.Node, Hashable] = {}
        seen: Counter[Hashable] = Counter()
        specs = {spec.arg.name: spec for spec in program.graph_signature.input_specs}
        for node in program.graph.nodes:
            if node.op == "placeholder":
                spec = specs[node.name]
                constant = program.constants.get(spec.target or "")
                held = tuple(constant.flatten().tolist()) if isinstance(constant, Tensor) else ()
                # torch.export numbers constants: the same name may be another constant.
                is_constant = spec.kind == InputKind.CONSTANT_TENSOR
                which = spec.arg.name if spec.kind == InputKind.USER_INPUT else spec.target
                self.keys[node] = (spec.kind, which, held if is_constant else ())
            elif node.op == "output":
                self.outputs = fx.map_arg(node.args, self._key)
            else:
                key = (str(node.target), tuple(self._arguments(node)))
                # Counted, as a call that occurs twice (noise) computes two things.
                self.keys[node] = hash((key, seen[key]))
                seen[key] += 1
        self.known = set(self.keys.values())

    def _key(self, node: fx.Node) -> Any:
        return self.keys[node]

    def _arguments(self, node: fx.Node) -> Iterator[Hashable]:
        """The arguments of a call without the mode; keys for computed ones."""
        mode, names = None, [str(index) for index in range(len(node.args))]
        if isinstance(node.target, torch._ops.OpOverload):
            mode = _MODES.get(node.target._schema.name)
            names = [argument.name for argument in node.target._schema.arguments]
        for name, value in (*zip(names, node.args, strict=False), *node.kwargs.items()):
            if name != mode:
                yield name, repr(fx.map_arg(value, self._key))


def _only_in(calls: _Calls, others: _Calls) -> list[tuple[str, str, str]]:
    """The calls that others lack although they have all of their inputs: one per source line, as module path,
    line and name.
    """
    found: dict[tuple[str, str], str] = {}
    for node, key in calls.keys.items():
        if key in others.known or node.op != "call_function" or _is_size(node):
            continue
        begins = all(
            _is_size(source) or calls.keys[source] in others.known for source in node.all_input_nodes
        )
        if begins:
            found.setdefault((module_path(node), source_line(node)), target_name(node))
    return [(*place, name) for place, name in found.items()]


def _is_size(node: fx.Node) -> bool:
    return isinstance(node.meta.get("val"), torch.SymInt | int)


def _described(model: nn.Module, path: str, call: str) -> str:
    return f"{type(model.get_submodule(path)).__name__}, {call}" if path else call

"""Ranges of a model's values in training: observed by moving average, frozen, or learned (LSQ)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from ..arguments import one_of, positive_number
from ..arithmetic.quantization import Quantization
from ..calibration.ranges import Bounds, Range, calibrated, quantization, union
from ..errors import InputError, NonFiniteError, QuantizationError

RangeMethod = Literal["moving_average", "learned"]


class TrainingRanges(nn.Module):
    """The quantization of every range of a graph's values, by name.

    "moving_average": a range follows the smallest and the largest number of each batch, ``range += momentum *
    (batch - range)``, until it is frozen. "learned": the scales are parameters, trained with the weights;
    zero points do not change (LSQ, Esser et al., 2020, arXiv 1902.08153, in the logarithm of the scale).
    Exclude them from weight decay, which would pull them towards 1.

    Args:
        ranges: those of the graph's values.
        seen: initial bounds, (low, high) by name; {}: those of the first batch.
        momentum: the weight of a batch in the moving average.

    Raises:
        InputError: the method is unknown, the momentum not in (0, 1], or learned ranges lack initial bounds.

    >>> ranges = TrainingRanges(
    ...     [Range(("x",), "int8")], {"x": (0.0, 2.0)}, "moving_average", momentum=0.5
    ... )
    >>> ranges.observe("x", torch.tensor([-1.0, 4.0]))
    >>> ranges.bounds.tolist(), ranges.quantization("x").zero_point
    ([[-0.5, 3.0]], -92)
    """

    #: float64 [values, 2]: lowest and highest number; NaN before the first batch.
    bounds: Tensor
    #: uint8 [values]: 1 where the range is frozen.
    frozen: Tensor
    #: The logarithm of each scale, float32 [], with method "learned", by :meth:`key`.
    log_scales: nn.ParameterDict | None

    def __init__(
        self,
        ranges: Sequence[Range],
        seen: Mapping[str, Bounds],
        method: RangeMethod,
        momentum: float,
    ) -> None:
        super().__init__()
        one_of("ranges", method, get_args(RangeMethod))
        momentum = positive_number("momentum", momentum, within=(0.0, 1.0), error=InputError)
        names = [name for one in ranges for name in one.members]
        self._index = {name: index for index, name in enumerate(names)}
        self._ranges = {name: one for one in ranges for name in one.members}
        self.momentum = momentum
        unseen = (math.nan, math.nan)
        bounds = [seen.get(name, unseen) for name in names]
        self.register_buffer("bounds", torch.tensor(bounds, dtype=torch.float64).reshape(-1, 2))
        self.register_buffer("frozen", torch.zeros(len(names), dtype=torch.uint8))
        self.log_scales = None
        if method == "learned":
            if not seen.keys() >= set(names):
                raise InputError("learned ranges need a start: pass calibrate=, typical inputs")
            choose = calibrated(seen)
            starts = {self.key(one.name): math.log(choose(one).scale) for one in ranges}
            self.log_scales = nn.ParameterDict({key: torch.tensor(start) for key, start in starts.items()})
        self._known: dict[str, Quantization] = {}
        self._seen: tuple[int, ...] = ()
        self.refresh()
        self.register_load_state_dict_post_hook(_refresh)  # type: ignore[no-untyped-call]

    def key(self, name: str) -> str:
        """The name of a value's learned scale: its number and the value's name. As it begins with a digit, it
        cannot hide an attribute of a module, whatever a value is called ("values", "type").
        """
        return f"{self._index[name]}_{name}"

    def refresh(self) -> None:
        """Copies the tensors to Python numbers, if they have changed: frozen ranges are read once, not in
        every run.
        """
        # Compares versions, as others change the tensors, too: averages of models, DistributedDataParallel.
        learned = [] if self.log_scales is None else self.log_scales.values()
        seen = tuple(tensor._version for tensor in (self.bounds, self.frozen, *learned))
        if seen != self._seen:
            self._still = dict(zip(self._index, map(bool, self.frozen.tolist()), strict=True))
            self._known = {}
            self._known = {
                name: self.quantization(name)
                for name, one in self._ranges.items()
                if all(self._still[member] for member in one.members)
            }
            self._seen = seen

    def is_frozen(self, name: str) -> bool:
        """Whether a value's range is frozen."""
        return self._still[name]

    def freeze(self, names: Sequence[str], frozen: bool) -> None:
        """Freezes or unfreezes the ranges of values.

        Raises:
            QuantizationError: a range to freeze has no bounds yet.
        """
        if frozen:
            for name in names:
                self.quantization(name)
        for name in names:
            self.frozen[self._index[name]] = frozen
            if self.log_scales is not None:
                # Without a gradient an optimizer does not move it, whatever its momentum.
                members = self._ranges[name].members
                still = all(bool(self.frozen[self._index[member]]) for member in members)
                self.log_scales[self.key(members[0])].requires_grad_(not still).grad = None
        self.refresh()

    def quantization(self, name: str) -> Quantization:
        """The quantization of a value: that of its range.

        Raises:
            QuantizationError: the range has no bounds yet, or its learned scale is not finite any more.
        """
        if name in self._known:
            return self._known[name]
        one = self._ranges[name]
        bounds = [self.bounds[self._index[member]].tolist() for member in one.members]
        seen = [(low, high) for low, high in bounds if not math.isnan(low)]
        if not seen:
            raise QuantizationError(
                f"value {name} has no range yet: pass calibrate= to prepare_qat, or run a batch in train mode"
            )
        start = quantization(*union(seen), one.dtype)
        if self.log_scales is None:
            return start
        log_scale = float(self.log_scales[self.key(one.name)].detach())
        if not -80.0 < log_scale < 80.0:
            raise QuantizationError(
                f"the learned scale of value {name} is exp({log_scale}): training has diverged; lower the "
                "learning rate of its quantization_ranges.log_scales"
            )
        return replace(start, scale=math.exp(log_scale))

    @torch.no_grad()
    def observe(self, name: str, real: Tensor) -> None:
        """Observes a value's numbers on one batch, unless its range is frozen or learned.

        Raises:
            InputError: the tensor is empty.
            NonFiniteError: one is NaN or infinite.
        """
        if self._still[name] or self.log_scales is not None:
            return
        if not real.numel():
            raise InputError(
                f"value {name} of a batch in train mode has shape {tuple(real.shape)}; a range comes from "
                "numbers: give at least one sample, or qat.eval()"
            )
        low, high = (float(bound) for bound in torch.stack(torch.aminmax(real)).tolist())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise NonFiniteError(f"value {name} holds NaN or infinity in training")
        bounds = self.bounds[self._index[name]]
        batch = bounds.new_tensor([low, high])
        bounds.copy_(torch.where(bounds.isnan(), batch, bounds + self.momentum * (batch - bounds)))

    def is_learned(self, name: str) -> bool:
        """Whether a value's scale gets a gradient."""
        return self.log_scales is not None and not self._still[name]

    def learn(self, name: str, y: Tensor, real: Tensor, quantization: Quantization) -> Tensor:
        """`y`, the value's integers without their zero point, with a gradient to its scale.

        Args:
            real: the numbers before they were rounded and clamped.
        """
        assert self.log_scales is not None
        low, high = quantization.levels
        steps = real.detach() / quantization.scale
        log_scale = self.log_scales[self.key(self._ranges[name].name)]
        return _LearnScale.apply(y, steps, log_scale, low, high)  # type: ignore[no-any-return]

    def __getstate__(self) -> dict[str, Any]:
        # A copy's tensors have versions of their own.
        return {**self.__dict__, "_seen": ()}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> TrainingRanges:
        """Allows other devices, but no other dtype: a rounded bound would be another range."""
        exact = self.bounds
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.bounds = exact.to(self.bounds.device)
        self._seen = ()
        return self


def _refresh(module: nn.Module, incompatible: Any) -> None:
    assert isinstance(module, TrainingRanges)
    module.refresh()


class _LearnScale(torch.autograd.Function):
    """LSQ's gradient of a scale: ``s * dL/ds = sum dL/dy * (y - steps inside the range, y outside)``.

    As in LSQ, it is scaled by ``1 / sqrt(largest integer * numbers per sample)``, so that scales and weights
    learn at similar rates.
    """

    @staticmethod
    def forward(y: Tensor, steps: Tensor, log_scale: Tensor, low: int, high: int) -> Tensor:
        return y.view_as(y)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        y, steps, _, ctx.low, ctx.high = inputs
        ctx.largest = float((ctx.high - ctx.low) // 2)
        ctx.save_for_backward(y, steps)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        y, steps = ctx.saved_tensors
        inside = (steps > ctx.low) & (steps < ctx.high)
        gradient_scale = 1.0 / math.sqrt(ctx.largest * y[0].numel())
        return grad, None, (grad * (y - steps * inside)).sum() * gradient_scale, None, None

"""What a model takes of a chip, and what to do where it is too much."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .. import _native
from ..chips import Chip, chip
from ..tables import preformatted
from .program import LINKED_FOR, program_sizes
from .variant import Variant

#: Characters of a bar.
_BAR = 24
#: Share of a resource above which a fit is called tight.
_TIGHT = 0.95
#: The flash pages of code and of constants begin at multiples of 64 KiB.
_PAGE = 65_536
#: Names of resources.
FLASH, RAM, STACK, TIME = "flash", "RAM", "stack", "time"


@dataclass(frozen=True)
class Use:
    """How much of a resource is used, and by what."""

    name: str
    #: Bytes, or milliseconds, by purpose.
    parts: Mapping[str, float]
    #: What there is.
    available: float
    unit: str = "B"

    @property
    def used(self) -> float:
        """The sum of all parts."""
        return sum(self.parts.values())

    @property
    def share(self) -> float:
        """What is used of what there is; above 1 it does not fit."""
        return self.used / self.available

    @property
    def fits(self) -> bool:
        """Whether there is enough."""
        return self.used <= self.available

    @property
    def is_tight(self) -> bool:
        """Whether there is enough, and less than 5 % is left."""
        return self.fits and self.share > _TIGHT

    def __str__(self) -> str:
        filled = min(_BAR, round(self.share * _BAR))
        parts = ", ".join(f"{name} {_number(amount)}" for name, amount in self.parts.items() if amount)
        return (
            f"{self.name:<6}{'█' * filled}{'░' * (_BAR - filled)} {100 * self.share:>4.0f} %  "
            f"{_number(self.used)} of {_number(self.available)} {self.unit}: {parts}"
        )


@dataclass(frozen=True)
class LayerUse:
    """One layer's part of the memory."""

    #: Dotted path of its module.
    module_path: str
    kernel: str
    #: Bytes of weights and tables in flash.
    weight_bytes: int
    #: Bytes of the arena in use while it runs.
    arena_bytes: int

    @property
    def name(self) -> str:
        """How messages call it."""
        return f"layer {self.module_path!r} ({self.kernel})" if self.module_path else self.kernel


@dataclass(frozen=True)
class ChipFit:
    """What a model takes of a chip: flash, RAM, stack and time. Prints as bars.

    Flash and RAM of the model are exact. The code is predicted from linked programs of an ESP32-C3, within
    3 % for that chip; the stack is what the emulated board was seen to use. Nothing is measured on a chip.
    """

    model: str
    chip: Chip
    #: What the firmware does.
    variant: Variant
    #: The image, and the firmware with the model's kernels and trainer.
    flash: Use
    #: The model's RAM; what the firmware refuses at compile time if it is too much.
    ram: Use
    #: The firmware's own RAM: its code and data there, and the stack.
    stack: Use
    #: Of a prediction, in the time between two, by the chip's cycle model; None if it is unknown.
    time: Use | None
    #: Why the time is unknown; "" if it is known.
    time_unknown: str
    #: The layer at the peak of the arena; None if the model is only a head.
    peak: LayerUse | None
    #: What to do about what does not fit or is tight, and other remarks.
    advice: tuple[str, ...]

    @property
    def uses(self) -> list[Use]:
        """Flash, RAM, stack, and the time if it is known."""
        return [self.flash, self.ram, self.stack, *([] if self.time is None else [self.time])]

    @property
    def tight(self) -> list[Use]:
        """The resources of which less than 5 % is left. RAM that copies of weights fill is not among them."""
        return [use for use in self.uses if use.is_tight and not _is_filled(use)]

    @property
    def fits(self) -> bool:
        """Whether flash, RAM and stack suffice, and the time if it is known."""
        return all(use.fits for use in self.uses)

    def __bool__(self) -> bool:
        return self.fits

    @property
    def problem(self) -> str:
        """What does not fit, and what helps, as one message; "" if all fits."""
        short = [
            f"{use.name}: it needs {_number(use.used)} {use.unit}, and there are {_number(use.available)}"
            for use in self.uses
            if not use.fits
        ]
        if not short:
            return ""
        lines = [f"{self.model!r} does not fit an {self.chip.title}. {'; '.join(short)}."]
        return "\n".join([*lines, *(f"- {line}" for line in self.advice)])

    @property
    def program_note(self) -> str:
        """Which firmware it is, and whose code size."""
        linked = chip(LINKED_FOR)
        other = "" if self.chip == linked else f", of the size on an {linked.title}: this chip's differs"
        return (
            f"program: --as {self.variant}{other}; `just firmware-size {self.chip.name} MODEL "
            f"--as {self.variant}` links it"
        )

    def __str__(self) -> str:
        verdict = "fits" if self.fits else "does not fit"
        lines = [f"{self.model} {verdict} an {self.chip.title}", *map(str, self.uses)]
        if self.time is None:
            lines.append(f"time  unknown: {self.time_unknown}")
        if self.peak is not None:
            lines.append(f"peak of the arena: {self.peak.name}, {_number(self.peak.arena_bytes)} B")
        lines.append(self.program_note)
        return "\n".join([*lines, *(f"- {line}" for line in self.advice)])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return preformatted(str(self))


def chip_fit(
    model: _native.Model,
    chip: Chip,
    layers: Sequence[LayerUse],
    trainer: str | None,
    variant: Variant = Variant.SERVER,
    *,
    milliseconds: float | None = None,
    period: float = 1000.0,
    time_unknown: str = "it was not asked for",
) -> ChipFit:
    """What an image takes of a chip.

    Args:
        layers: all layers of the image.
        trainer: the class of the head, None without one.
        variant: what the firmware does.
        milliseconds: of one prediction; None: unknown.
        period: milliseconds from one prediction to the next.
        time_unknown: why there are no milliseconds.
    """
    program = program_sizes({layer["kernel"] for layer in model.layers}, trainer, variant)
    flash = Use(
        FLASH, {"image": model.length, "program": program.code, "page borders": _PAGE}, chip.app_flash
    )
    ram = Use(RAM, _ram(model, program.sample, variant), chip.model_ram)
    stack = Use(STACK, {"stack": program.stack, "program": program.ram}, chip.ram - chip.model_ram)
    time = None if milliseconds is None else Use(TIME, {"prediction": milliseconds}, period, "ms")
    peak = max(layers, key=lambda layer: layer.arena_bytes, default=None)
    advice = [
        *_about_flash(flash, layers),
        *_about_ram(ram, peak),
        *_about_stack(stack),
        *([] if time is None else _about_time(time, model)),
        *_about_updates(model, chip, variant),
        *([] if chip.builds else [f"the firmware is not built for this chip: {chip.reason}"]),
    ]
    unknown = "" if time is not None else time_unknown
    return ChipFit(model.name, chip, variant, flash, ram, stack, time, unknown, peak, tuple(advice))


def _ram(model: _native.Model, sample: int, variant: Variant) -> Mapping[str, int]:
    if variant is Variant.CLASSIFIER:
        return _native.classifier_ram(model)
    return {**_native.session_ram(model, variant.senses), **({"sample": sample} if sample else {})}


def _is_short(use: Use) -> bool:
    return not use.fits or (use.is_tight and not _is_filled(use))


def _is_filled(use: Use) -> bool:
    """Whether copies of weights take what is left."""
    return use.fits and use.parts.get("weights", 0) > 0


def _about_flash(flash: Use, layers: Sequence[LayerUse]) -> list[str]:
    if not _is_short(flash):
        return []
    largest = max(layers, key=lambda layer: layer.weight_bytes)
    return [
        f"flash: {largest.name} has {_number(largest.weight_bytes)} of the image's "
        f"{_number(flash.parts['image'])} B: give it fewer inputs or channels, or take more flash"
    ]


def _about_ram(ram: Use, peak: LayerUse | None) -> list[str]:
    if not _is_short(ram):
        return []
    excess = ram.used - ram.available
    largest = max(ram.parts, key=lambda purpose: ram.parts[purpose])
    if ram.parts["weights"] >= excess > 0:
        return [f"RAM: make weights_in_ram smaller by {_number(excess)} B: those weights are read from flash"]
    if largest == "arena" and peak is not None:
        return [
            f"RAM: {peak.name} is at the peak of the arena with {_number(peak.arena_bytes)} B: a smaller "
            "input, fewer channels there or a larger stride before it help; a causal network can run step by "
            "step (NanoModule.stream)"
        ]
    if largest == "ring":
        return [
            "RAM: the ring of recent samples is the largest part: give the head fewer features, or a trainer "
            "without a ring (heads.Prototype; heads.LDA for few features)"
        ]
    return [
        "RAM: the head, with a spare copy, is the largest part: give it fewer features or classes, train "
        "fewer layers (train_last), or take another trainer"
    ]


def _about_stack(stack: Use) -> list[str]:
    if not _is_short(stack):
        return []
    return ["stack: reserve more RAM for the firmware (reserved_ram in chips.toml)"]


def _about_updates(model: _native.Model, chip: Chip, variant: Variant) -> list[str]:
    if not variant.learns or not chip.update_room or model.length <= chip.update_room:
        return []
    return [
        f"updates: the image has {_number(model.length)} B, and a slot for updates "
        f"{_number(chip.update_room)} B: the model can be flashed, but not replace another one over the link"
    ]


def _about_time(time: Use, model: _native.Model) -> list[str]:
    if not _is_short(time):
        return []
    wait = "" if model.constants_in_ram else "; weights_in_ram saves waiting for flash"
    return [f"time: predict less often, or see profile() for the layers that take longest{wait}"]


def _number(amount: float) -> str:
    return f"{amount:,.2f}" if isinstance(amount, float) else f"{amount:,}"

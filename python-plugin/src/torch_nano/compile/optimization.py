"""By what the kernels of a model's layers are chosen: the goal, and the flash and RAM that they may take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from ..arguments import one_of, shown, whole_number
from ..chips import Chip, chips
from ..chips import chip as chip_named
from ..errors import InputError, TorchNanoError
from ..fits.program import linked_code

#: What is made small: cycles, the image, or the arena.
Goal = Literal["speed", "flash", "ram"]
#: Bytes that may be taken: "flash" of the image, "ram" of its arena without copies of weights, "training" of
#: what learning takes of RAM beside it.
Budget = Mapping[Literal["flash", "ram", "training"], int]

#: The chip whose cycles are estimated for chips without known costs.
MODELLED = "esp32c3"
_MOST = 2**31 - 1


@dataclass(frozen=True)
class Optimization:
    """How the kernels of an image are chosen."""

    optimize: Goal = "speed"
    #: Most bytes of the image; None: any.
    flash: int | None = None
    #: Most bytes of the arena without copies of weights; None: any.
    ram: int | None = None
    #: The chip whose cycles are estimated.
    chip: str = MODELLED

    def described(self) -> dict[str, Any]:
        """The entries of a model's description for nano-core's writer."""
        return {
            "optimize": self.optimize,
            "budget": (self.flash, self.ram),
            "flash_timing": _flash_timing(chip_named(self.chip)),
            "code": linked_code(),
        }

    @property
    def estimated(self) -> str:
        """The title of the chip whose cycles are estimated, and that they are for all chips without costs."""
        title = chip_named(self.chip).title
        known = [one.name for one in chips().values() if _flash_timing(one) is not None]
        return title if len(known) > 1 else f"{title}, also for other chips: what they cost is not known"

    def saved(self) -> dict[str, Any]:
        """As plain data, for :func:`optimization_of`."""
        return asdict(self)


def optimization_of(
    optimize: object,
    budget: object,
    chip: Chip | None = None,
    *,
    error: type[TorchNanoError] = InputError,
) -> Optimization:
    """The checked arguments of a user; the cycles are those of the chip, of :data:`MODELLED` if its costs are
    not known.

    Raises:
        InputError: there is no such goal, or the budget is no mapping of "flash", "ram" and "training" to
            bytes.

    >>> optimization_of("speed", {"flash": 300_000})
    Optimization(optimize='speed', flash=300000, ram=None, chip='esp32c3')
    """
    one_of("optimize", optimize, get_args(Goal), error=error)
    if budget is None:
        budget = {}
    if not isinstance(budget, Mapping) or not set(budget) <= {"flash", "ram", "training"}:
        raise error(
            f"budget is {shown(budget)}; expected bytes by name, {{'flash': 300_000, 'ram': 100_000}}, "
            "or one of 'flash', 'ram' and 'training' alone"
        )
    limits = {
        name: None if bytes_ is None else whole_number(f"budget[{name!r}]", bytes_, most=_MOST, error=error)
        for name, bytes_ in budget.items()
    }
    modelled = MODELLED if chip is None or _flash_timing(chip) is None else chip.name
    return Optimization(optimize, limits.get("flash"), limits.get("ram"), modelled)  # type: ignore[arg-type]  # checked


def training_limit(budget: Budget | None) -> int | None:
    """Most bytes of RAM that learning may take, of a budget that :func:`optimization_of` has checked."""
    return None if budget is None else budget.get("training")


def _flash_timing(chip: Chip) -> tuple[int, int, int, int, int] | None:
    """Cache and line in bytes, lines of a set, cycles to a line's first word and to the next line."""
    costs, cache = chip.costs, chip.cache
    if costs is None or cache.bytes is None or cache.line is None or cache.ways is None:
        return None
    first = costs.flash_request + costs.flash_first_word
    whole = first + costs.flash_next_word * (cache.line // 4 - 1)
    return cache.bytes, cache.line, cache.ways, round(first), round(whole)

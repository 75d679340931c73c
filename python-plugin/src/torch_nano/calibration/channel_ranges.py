"""Channels of an input that its one scale rounds away."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import ChannelRangeWarning, warn

#: A channel that uses fewer of the 256 levels has lost more than half of int8's bits.
FEWEST_LEVELS = 16
#: Numbers of a channel from which its range can be told.
_FEWEST_NUMBERS = 32
#: Channels that a warning names.
_NAMED = 8


class ChannelRanges:
    """The range of each channel of one input, as the network sees it."""

    def __init__(self) -> None:
        self.low, self.high = torch.tensor(torch.inf), torch.tensor(-torch.inf)
        self.numbers = 0

    def observe(self, x: Tensor) -> None:
        """Takes in one batch [N, channels, ...]."""
        channels = x.movedim(1, 0).flatten(1)
        self.numbers += channels.shape[1]
        low, high = torch.aminmax(channels, dim=1)
        self.low, self.high = torch.minimum(self.low, low), torch.maximum(self.high, high)

    def warn(self, name: str, scale: float, dtype: str) -> None:
        """Warns of the channels that take few steps of the input's scale, unless they are constant or were
        hardly seen.

        Warns:
            ChannelRangeWarning: naming input and channels.
        """
        if self.numbers < _FEWEST_NUMBERS:
            return
        steps = (self.high.double() - self.low.double()) / scale
        lost = ((steps > 0) & (steps < FEWEST_LEVELS - 1)).nonzero().flatten().tolist()
        if not lost:
            return
        more = f" and {len(lost) - _NAMED} more" if len(lost) > _NAMED else ""
        listed = ", ".join(f"{channel} ({steps[channel]:.2g} steps)" for channel in lost[:_NAMED])
        widest = int(steps.argmax())
        warn(
            f"input {name!r}: {dtype} has one scale for all channels, {scale:.3g}, and these are rounded to "
            f"a few steps of it: {listed}{more}; channel {widest} takes {steps[widest]:.3g}. Begin the model "
            "with a BatchNorm or (x - mean) / std per channel, and let nothing else read the input: each "
            "channel then has a scale of its own",
            ChannelRangeWarning,
        )

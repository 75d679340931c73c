"""A model of two inputs and two outputs."""

import torch
from torch import Tensor, nn

SEED = 0


class Fusion(nn.Module):
    """Two sensors, one of them optional for torch, and two results."""

    def __init__(self, returns: str = "dict") -> None:
        super().__init__()
        self.motion = nn.Conv1d(3, 4, 3)
        self.sound = nn.Linear(6, 4)
        self.kind = nn.Linear(4, 5)
        self.level = nn.Linear(4, 1)
        self.returns = returns

    def forward(self, motion: Tensor, sound: Tensor | None = None) -> object:
        assert sound is not None
        joint = torch.relu(self.motion(motion).mean(2) + self.sound(sound))
        kind, level = self.kind(joint), self.level(joint)
        if self.returns == "dict":
            return {"kind": kind, "level": level}
        if self.returns == "tensor":
            return kind
        return [kind, level] if self.returns == "list" else (kind, level)


def fusion(returns: str = "dict") -> Fusion:
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        return Fusion(returns).eval()


def data(count: int = 40) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(SEED)
    return {
        "motion": torch.randn(count, 3, 9, generator=generator),
        "sound": torch.randn(count, 6, generator=generator) * 3,
    }

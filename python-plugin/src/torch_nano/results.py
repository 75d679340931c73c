"""What conversions, checks and measurements return: types for annotations."""

from .comparison.report import Comparison, LayerComparison, OutputComparison
from .compile.memory_map import Block, MemoryMap
from .compile.profile import LayerProfile, Profile
from .compile.stream import Stream
from .compile.summary import LayerSummary, Summary
from .compile.verify import LayerDifference, VerifyReport
from .evaluation.evaluation import ClassScore, Evaluation, WorstSample
from .fits.chip_fit import ChipFit

__all__ = [
    "Block",
    "ChipFit",
    "ClassScore",
    "Comparison",
    "Evaluation",
    "LayerComparison",
    "LayerDifference",
    "LayerProfile",
    "LayerSummary",
    "MemoryMap",
    "OutputComparison",
    "Profile",
    "Stream",
    "Summary",
    "VerifyReport",
    "WorstSample",
]

"""What all tests of this folder need: that of the strategies' tests."""

from transfer.conftest import seeded

__all__ = ["seeded"]

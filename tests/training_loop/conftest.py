"""What all tests of this folder need: that of the strategies' tests."""

from transfer.conftest import one_thread, seeded

__all__ = ["one_thread", "seeded"]

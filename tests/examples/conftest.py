"""Lets the tests import the examples as their user runs them: as scripts beside one another."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "python-plugin" / "examples"))

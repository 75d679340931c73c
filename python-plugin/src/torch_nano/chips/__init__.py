"""The chips that the firmware knows, from one table, ``chips.toml``.

>>> from torch_nano.chips import chip
>>> c3 = chip("esp32c3")
>>> c3.title, c3.clock, c3.model_ram
('ESP32-C3', 160000000, 294912)
"""

from .chip import Cache, Chip, Costs, chip, chips

__all__ = ["Cache", "Chip", "Costs", "chip", "chips"]

"""The variants of the firmware."""

from __future__ import annotations

from enum import StrEnum

from ..arguments import one_of


class Variant(StrEnum):
    """What a firmware does: `just flash CHIP MODEL --as VARIANT`."""

    #: Answers a PC.
    SERVER = "server"
    #: Also senses, predicts and learns by itself with an MPU-6050.
    MPU6050 = "mpu6050"
    #: Also senses, predicts and learns by itself with an LSM6DSO.
    LSM6DSO = "lsm6dso"
    #: Also senses, predicts and learns by itself with a voltage.
    VOLTAGE = "voltage"
    #: Also senses, predicts and learns by itself with an I2S microphone.
    MICROPHONE = "microphone"
    #: Only classifies.
    CLASSIFIER = "classifier"

    @property
    def senses(self) -> bool:
        """Whether it has a sensor."""
        return self not in (Variant.SERVER, Variant.CLASSIFIER)

    @property
    def learns(self) -> bool:
        """Whether it learns, and takes updates."""
        return self is not Variant.CLASSIFIER


def variant_of(firmware: object) -> Variant:
    """The variant that a user names.

    Raises:
        InputError: there is none of this name.

    >>> variant_of("classifier").learns
    False
    """
    one_of("firmware", firmware, tuple(Variant))
    return Variant(str(firmware))

"""Why no firmware could be built, written or tested."""

from __future__ import annotations


class FirmwareError(Exception):
    """Base class of all errors of these tools."""


class CommandFailed(FirmwareError):
    """A command that the tools called has failed; the message has its output."""


class ModelMissing(FirmwareError):
    """There is no model at the path that was given."""


class ModelTooLarge(FirmwareError):
    """The program with its model does not fit the chip's RAM or flash."""


class ImageInvalid(FirmwareError):
    """esptool finds a flash image damaged, or for another chip."""


class PortError(FirmwareError):
    """No serial port, or several, may be the board's."""


class ProgrammerMissing(FirmwareError):
    """The programmer that was asked for is not installed, or cannot use the port."""

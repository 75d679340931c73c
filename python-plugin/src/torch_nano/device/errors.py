"""What can go wrong between a client and its device."""

from __future__ import annotations

from ..errors import TorchNanoError


class DeviceError(TorchNanoError):
    """The device refused a request, with its state unchanged, or answered something else than asked."""

    def __init__(self, message: str, failure: str = "") -> None:
        super().__init__(message)
        #: The protocol's name of why it refused, such as "EmptyRing"; "" if it did not refuse.
        self.failure = failure


class WrongModelError(DeviceError):
    """The device runs another model than the one that was given."""


class LabelError(DeviceError, ValueError):
    """There is no such class, or it is no label at all; the message lists similar names."""


class ConnectionFailed(DeviceError, ConnectionError):
    """The connection cannot be made: no such port, a busy one, nobody who listens, no such transport."""


class ConnectionLost(DeviceError, ConnectionError):
    """The connection ended in the middle of a request. Repeat that: it is executed once all the same."""


class DeviceTimeout(DeviceError, TimeoutError):
    """The device did not answer in time. Repeat the request: it is executed once all the same."""


class DeviceRestarted(DeviceError):
    """The device has started anew: what was not saved is lost. The request was not executed after that."""

"""Methods of a NanoModule as functions, for those who write `tn.verify(nano)`."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

from ..arguments import shown
from ..errors import InputError
from .nano_module import NanoModule

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def _function(
    method: Callable[Concatenate[NanoModule, Parameters], Result],
) -> Callable[Concatenate[NanoModule, Parameters], Result]:
    @wraps(method)
    def call(nano: NanoModule, /, *arguments: Parameters.args, **options: Parameters.kwargs) -> Result:
        if not isinstance(nano, NanoModule):
            raise InputError(
                f"{method.__name__} takes a converted model, as to_nano and load return it; got {shown(nano)}"
            )
        return method(nano, *arguments, **options)

    return call


verify = _function(NanoModule.verify)
summary = _function(NanoModule.summary)
compare = _function(NanoModule.compare)
export = _function(NanoModule.export)
save = _function(NanoModule.save)

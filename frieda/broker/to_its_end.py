"""Changes that a client can begin and not cut short."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

if TYPE_CHECKING:
    from frieda.broker.broker import Broker

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def to_its_end(
    method: Callable[Concatenate[Broker, Arguments], Coroutine[Any, Any, Result]],
) -> Callable[Concatenate[Broker, Arguments], Coroutine[Any, Any, Result]]:
    """A method of the broker that, once begun, runs to its end, or to the broker's.

    The request that it serves ends with its connection: a topic must not stay half made or half deleted for that.
    """

    @wraps(method)
    async def begin(broker: Broker, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        task = asyncio.get_running_loop().create_task(method(broker, *args, **kwargs))
        broker.hold_task(task)
        return await asyncio.shield(task)

    return begin

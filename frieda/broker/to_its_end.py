"""Changes that a client can begin and not cut short."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from frieda.errors import BrokerError

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
        async def outcome() -> Result | BrokerError:
            # A refusal is a result, since nobody is there to hear it when the client has left. A fault is not.
            try:
                return await method(broker, *args, **kwargs)
            except BrokerError as error:
                return error

        task = asyncio.get_running_loop().create_task(outcome())
        broker.hold_task(task)
        result = await asyncio.shield(task)
        if isinstance(result, BrokerError):
            raise result
        return result

    return begin

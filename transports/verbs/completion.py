"""One device on one event loop: its context, its completion queue, and the polling of it.

    OPEN --the buffer pool is closed, and nobody holds it--> CLOSED

It stays open without connections, because to register the pool takes long: a client that comes back finds it done.

All queue pairs of a loop on one device share one completion queue on one channel, whose descriptor never blocks.
The polling engine polls the queue while it spins; before the loop sleeps the engine arms it. The order is the one
that loses nothing (rdma-core's ibv_get_cq_event(3)): take the event, acknowledge (in batches), arm, then drain once
more. pyverbs cannot look into a queue without taking from it, so what arming finds is set aside for the next poll.

A work request's number says whose it is: 4 bits of kind, 20 bits for the queue pair, 40 bits of its own. A number
that belongs to nobody is left from a queue pair that has been closed, and is dropped.

Asynchronous events of the device are not read: they would say what the completions say too, since a queue pair in
the error state flushes its receives, of which there are always some.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import ExitStack
from typing import Any, Final, Protocol

from frieda.errors import ConfigError, TransportError
from frieda.transports.base import TransportRuntime
from frieda.transports.verbs.binding import Verbs, make_channel, reason_of, take_event
from frieda.transports.verbs.choice import Route
from frieda.transports.verbs.memory import PoolRegions

RECEIVE: Final = 0
SEND: Final = 1
READ: Final = 2
INVALIDATE: Final = 3
BIND: Final = 4

KIND_SHIFT: Final = 60
OWNER_SHIFT: Final = 40
OWNER_MASK: Final = (1 << 20) - 1
NUMBER_MASK: Final = (1 << OWNER_SHIFT) - 1

POLL_BATCH: Final = 32
"""How many completions one poll handles, so that the sockets get their turn."""
ACKNOWLEDGE_EVENTS: Final = 64
"""Acknowledging takes a lock, so events are acknowledged so many at a time (and the rest at the end)."""
FIRST_CAPACITY: Final = 1024


class Completer(Protocol):
    """A queue pair, as its completions see it."""

    capacity: int
    """How many completions it may have outstanding."""

    def completed(self, kind: int, number: int, status: int, size_bytes: int) -> None:
        """One work request has finished. `size_bytes` counts for a receive."""
        ...

    def ended(self) -> None:
        """The link has ended, and everything that had arrived was handed over."""
        ...


class VerbsProvider:
    """A device, port and address in use on the running loop. Who needs it calls `hold`, and once `let_go`."""

    def __init__(self, verbs: Verbs, runtime: TransportRuntime, route: Route) -> None:
        self.verbs = verbs
        self.route = route
        self.runtime = runtime
        self.holders = 0
        self._loop = asyncio.get_running_loop()
        self._engine = runtime.engine
        self._pairs: dict[int, Completer] = {}
        self._next_owner = 0
        self._set_aside: deque[tuple[int, int, int]] = deque()
        self._ended: list[Completer] = []
        self._continuing = False
        self._unacknowledged = 0
        self._reserved = 0
        self._open = False
        self._wanted = True
        with ExitStack() as undo:
            try:
                self.context: Any = verbs.Context(name=route.device)
                undo.callback(self.context.close)
                self.attributes: Any = self.context.query_device()
                self.domain: Any = verbs.PD(self.context)
                undo.callback(self.domain.close)
                self._channel, self._descriptor = make_channel(verbs, self.context)
                undo.callback(self._channel.close)
                self._capacity = min(FIRST_CAPACITY, self.attributes.max_cqe)
                self.queue: Any = verbs.CQ(self.context, self._capacity, None, self._channel, 0)
                undo.callback(self.queue.close)
                self.pool_regions = PoolRegions(verbs, self.domain, runtime.pool.regions)
                self._close_all = undo.pop_all().close
            except verbs.error as error:
                raise TransportError(
                    f"the device {route.device} cannot be opened: {reason_of(error)}"
                ) from error
        self._open = True
        self._loop.add_reader(self._descriptor, self._event)
        self._engine.add_source(self)
        runtime.pool.when_closed(self._pool_closed)

    @property
    def closed(self) -> bool:
        """Was everything given back?"""
        return not self._open

    def hold(self) -> VerbsProvider:
        """One more that needs it."""
        self.holders += 1
        return self

    def let_go(self) -> None:
        """One less."""
        self.holders -= 1
        self._close_when_done()

    def _pool_closed(self) -> None:
        self._wanted = False
        self._close_when_done()

    def _close_when_done(self) -> None:
        if self._open and not self._wanted and self.holders == 0:
            self._open = False
            self._engine.remove_source(self)
            self._loop.remove_reader(self._descriptor)
            self._set_aside.clear()
            self.pool_regions.close()
            self._close_all()  # the queue acknowledges the rest of its events

    # ---- queue pairs

    def admit(self, pair: Completer) -> int:
        """A number for `pair`, shifted to its place in work request numbers; there is room for its completions.

        Raises ConfigError when the device's completion queue cannot grow so far.
        """
        while self._next_owner in self._pairs:
            self._next_owner = (self._next_owner + 1) & OWNER_MASK
        owner = self._next_owner
        self._next_owner = (owner + 1) & OWNER_MASK
        self._reserve(pair.capacity)
        self._pairs[owner] = pair
        return owner << OWNER_SHIFT

    def dismiss(self, owner: int, pair: Completer) -> None:
        """This queue pair is destroyed. What it left in the completion queue is dropped as it comes."""
        del self._pairs[owner >> OWNER_SHIFT]
        self._reserved -= pair.capacity
        if pair in self._ended:
            self._ended.remove(pair)

    def link_ended(self, pair: Completer) -> None:
        """Tell `pair` that its link ended, from a poll, after everything that has arrived by now."""
        self._ended.append(pair)
        self._resume()

    def return_later(self, completions: list[tuple[int, int, int]]) -> None:
        """Hand these (number, status, size) over again, from the next poll on."""
        self._set_aside.extend(completions)
        self._resume()

    def _reserve(self, completions: int) -> None:
        # Twice, because a closed queue pair's completions may still lie there beside its successor's.
        wanted = 2 * (self._reserved + completions)
        if wanted > self._capacity:
            size = min(max(wanted, 2 * self._capacity), self.attributes.max_cqe)
            if size < wanted // 2:
                raise ConfigError(
                    f"the device {self.route.device} has completion queues of at most {self.attributes.max_cqe}; "
                    f"one more connection needs {wanted // 2}: use fewer connections or a smaller window"
                )
            if size > self._capacity:
                try:
                    self.queue.resize(size)
                except self.verbs.error as error:
                    raise TransportError(
                        f"the completion queue of {self.route.device} cannot grow to {size}: {reason_of(error)}"
                    ) from error
                self._capacity = size
        self._reserved += completions

    # ---- PollSource

    def poll(self) -> int:
        """Handle up to POLL_BATCH completions."""
        found = self._dispatch()
        if not self._engine.spinning:
            self._resume()  # nobody polls again by itself: go on until armed
        return found

    def arm(self) -> bool:
        """Ask for an event at the next completion; False when there is one already."""
        if not self._open:
            return True
        self.queue.req_notify()
        count, completions = self.queue.poll(POLL_BATCH)
        if count:
            self._set_aside.extend((c.wr_id, c.status, c.byte_len) for c in completions)
        return not self._set_aside and not self._ended

    def _dispatch(self) -> int:
        set_aside = self._set_aside
        if set_aside:
            handled = 0
            while set_aside and handled < POLL_BATCH:
                handled += 1
                self._hand_over(*set_aside.popleft())
            return handled
        if not self._open:
            return 0
        count, completions = self.queue.poll(POLL_BATCH)
        for each in completions:
            # A handler may close any queue pair, and so the provider; the objects at hand stay good.
            self._hand_over(each.wr_id, each.status, each.byte_len)
        if not count and self._ended:
            ended, self._ended = self._ended, []
            for pair in ended:
                pair.ended()
            return len(ended)
        return int(count)

    def _hand_over(self, number: int, status: int, size_bytes: int) -> None:
        pair = self._pairs.get((number >> OWNER_SHIFT) & OWNER_MASK)
        if pair is not None:
            pair.completed(number >> KIND_SHIFT, number & NUMBER_MASK, status, size_bytes)

    # ---- events

    def _event(self) -> None:
        # One at most is there, since arming asks for one; and to find none is an exception, which takes long.
        if take_event(self.verbs, self._channel, self.queue):
            self._unacknowledged += 1
        if self._unacknowledged >= ACKNOWLEDGE_EVENTS:
            self.queue.ack_events(self._unacknowledged)
            self._unacknowledged = 0
        self._engine.note_activity()
        self._go_on()

    def _resume(self) -> None:
        if not self._continuing and self._open:
            self._continuing = True
            self._loop.call_soon(self._continue)

    def _continue(self) -> None:
        self._continuing = False
        self._go_on()

    def _go_on(self) -> None:
        """Handle what is there; unless the engine polls from here on, until the queue is empty and armed."""
        if not self._open:
            return
        found = self._dispatch()
        if found:
            self._engine.note_activity()
        if self._engine.spinning:
            return
        if found >= POLL_BATCH or not self.arm():
            self._resume()

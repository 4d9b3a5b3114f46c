"""One producer of any system under its share of a load: who sends when, what is counted, what is given up.

Open loop: each record is submitted at its intended time, or as soon after it as the system lets it. Closed loop: the
next is submitted when one is answered. Bulk: as many as may be under way with one call, for throughput.
"""

from __future__ import annotations

import asyncio
import math
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import cycle, islice, repeat
from typing import Any, Final, Literal

from frieda.bench.drivers.base import ProducerDriver
from frieda.bench.load import Lateness, Load, ProducerShare
from frieda.bench.meter import Meter
from frieda.bench.pacer import Pacer
from frieda.bench.verdict import Backlog, Punctuality
from frieda.clients.runtime import running_engine
from frieda.errors import DeliveryTimeoutError, FriedaError, TransportError

Manner = Literal["each", "bulk"]
STAMP: Final = struct.Struct(">qq")
"""The first bytes of a stamped value: when it was to be sent (0: warm-up) and when it was, in ns."""
_STRETCHES: Final = 16
"""In bulk: a call is made for at least this part of what may be under way."""


class DrivenProducer:
    """A started producer and its share. `on_measuring` is called when its first measured record leaves.

    `patience_s`: when records are under way and none is answered for so long, the load is given up.
    """

    def __init__(
        self,
        driver: ProducerDriver,
        load: Load,
        share: ProducerShare,
        meter: Meter,
        values: Sequence[bytes],
        *,
        keys: Iterator[bytes | None] | None = None,
        manner: Manner = "each",
        stamped: bool = False,
        on_measuring: Callable[[], None] = lambda: None,
        patience_s: float = 30.0,
    ) -> None:
        self.own_lateness = Lateness()
        self._driver = driver
        self._submit = driver.submit
        self._share = share
        self._meter = meter
        self._manner = manner
        self._stamped = stamped
        self._on_measuring = on_measuring
        self._patience_s = patience_s
        self._in_flight = load.in_flight
        self._max_behind_ns = 2**63 if load.max_behind_s is None else round(load.max_behind_s * 1e9)
        self._warm_up = share.warm_up_records
        self._total = share.warm_up_records + share.records
        self._values = [value[STAMP.size :] for value in values] if stamped else list(values)
        self._keys = repeat(None) if keys is None else keys
        self._key = next(self._keys)
        self._sent = 0
        self._answered = 0
        self._unsent = 0
        self._sent_ns = 0
        self._ended_ns = 0
        self._refused = False
        self._submitting = False
        self._lost: FriedaError | None = None
        self._news: asyncio.Future[None] | None = None
        self._pacer: Pacer | None = None
        self._punctuality = Punctuality()
        self._due_times_ns: Iterator[int] = iter(())
        self._next_due_ns: int | None = None
        self._due = 0
        self._backlog_sum = 0
        self._backlog_most = 0
        self._backlog_own = 0
        self._backlog_at_end: int | None = None
        self._own_behind_ns = 0

    async def run(self, start_ns: int) -> None:
        """Send everything and wait for every answer. Records that the system refuses are counted.

        Raises DeliveryTimeoutError or TransportError when the system is lost: the rest would only wait, too.
        """
        if self._share.rate is not None:
            work = self._open_loop(start_ns)
        elif self._manner == "bulk":
            work = self._in_bulk()
        else:
            work = self._closed_loop()
        parts = {asyncio.ensure_future(work), asyncio.ensure_future(self._watch())}
        try:
            done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            for part in done:
                part.result()
            self._go_on()
        finally:
            for part in parts:
                part.cancel()
            await asyncio.gather(*parts, return_exceptions=True)
        self._meter.measured_until(self._ended_ns)

    def facts(self) -> dict[str, Any]:
        """What it knows of its punctuality, after an open loop."""
        sends = self._sent - self._warm_up
        return {
            "backlog": Backlog(
                most=self._backlog_most,
                own_most=self._backlog_own,
                mean=self._backlog_sum / sends if sends > 0 else 0.0,
                at_end=self._backlog_at_end or 0,
                unsent=self._unsent,
            ),
            "own_lateness": self.own_lateness.summary(),
            "own_behind_s": self._own_behind_ns / 1e9,
            "held_s": self._punctuality.held_ns / 1e9,
        }

    # Open loop

    async def _open_loop(self, start_ns: int) -> None:
        times_ns = (start_ns + time_ns for time_ns in self._share.intended_times_ns())
        self._due_times_ns = (start_ns + time_ns for time_ns in self._share.intended_times_ns())
        self._next_due_ns = next(self._due_times_ns, None)
        self._pacer = Pacer(times_ns, self._send_intended, running_engine())
        try:
            self._pacer.pump()
            await self._all_answered()
        finally:
            self._pacer.close()

    def _send_intended(self, intended_ns: int) -> bool:
        if self._lost is not None:
            return False
        now_ns = time.monotonic_ns()
        if now_ns - intended_ns > self._max_behind_ns:
            self._give_up()
            return False
        number = self._sent
        measured = number >= self._warm_up
        if number - self._answered >= self._in_flight:
            self._refused = True
            self._punctuality.refused(self._sent_ns)
            return False
        if not self._submitted(number, intended_ns, now_ns, measured):
            self._refused = True
            self._punctuality.refused(now_ns)
            return False
        self._sent_ns = now_ns
        own_ns = self._punctuality.sent(intended_ns, now_ns)
        if measured:
            if number == self._warm_up:
                self._meter.measuring_since(intended_ns)
                self._on_measuring()
            self._meter.lateness.note(now_ns - intended_ns)
            self.own_lateness.note(own_ns)
        self._note_backlog(now_ns, own_ns, measured)
        return True

    def _note_backlog(self, now_ns: int, own_ns: int, measured: bool) -> None:
        """What was due and stays unsent after this send."""
        while self._next_due_ns is not None and self._next_due_ns <= now_ns:
            self._due += 1
            self._next_due_ns = next(self._due_times_ns, None)
        backlog = self._due - self._sent
        if measured:
            self._backlog_sum += backlog
            self._backlog_most = max(self._backlog_most, backlog)
            if backlog > self._backlog_own and own_ns:
                own = math.ceil(own_ns * (self._share.rate or 0.0) / 1e9)
                self._backlog_own = max(self._backlog_own, min(backlog, own))
        if self._due == self._total and self._backlog_at_end is None:
            self._backlog_at_end = backlog
        self._own_behind_ns = own_ns

    def _give_up(self) -> None:
        """The schedule is too far behind: what is left is not sent."""
        self._unsent = self._total - self._sent
        self._total = self._sent
        if self._pacer is not None:
            self._pacer.close()
        self._tell()

    # Closed loop

    async def _closed_loop(self) -> None:
        self._fill()
        await self._all_answered()

    def _fill(self) -> None:
        """Submit as many as may be under way."""
        while (
            self._lost is None
            and self._sent < self._total
            and self._sent - self._answered < self._in_flight
        ):
            now_ns = time.monotonic_ns()
            if self._sent == self._warm_up:
                self._meter.measuring_since(now_ns)
                self._on_measuring()
            if not self._submitted(self._sent, now_ns, now_ns, self._sent >= self._warm_up):
                break

    # Both

    def _submitted(self, number: int, intended_ns: int, now_ns: int, measured: bool) -> bool:
        """Submit the record of this number; False when the client's buffer is full."""
        value = self._values[number % len(self._values)]
        if self._stamped:
            value = STAMP.pack(intended_ns if measured else 0, now_ns) + value
        done = partial(self._done, intended_ns, now_ns, measured)
        self._submitting = True  # what is answered at once must not lead back here
        try:
            if not self._submit(value, self._key, done):
                if self._sent == self._answered:
                    self._lose(FriedaError("the client's buffer does not take a single record"))
                return False
        except FriedaError as error:
            done(1, now_ns, error)
        finally:
            self._submitting = False
        self._sent += 1
        self._key = next(self._keys)
        return True

    def _done(
        self,
        intended_ns: int,
        sent_ns: int,
        measured: bool,
        count: int,
        ended_ns: int,
        error: FriedaError | None,
    ) -> None:
        self._answered += count
        if error is not None:
            self._failed(count, error)
        elif measured:
            self._meter.record(ended_ns - intended_ns)
            if self._pacer is not None:
                self._meter.record_service_time(ended_ns - sent_ns)
        self._ended_ns = ended_ns
        if not self._submitting:
            if self._pacer is None:
                self._fill()
            elif self._refused:
                self._refused = False
                self._pacer.pump()
        if self._answered >= self._total:
            self._tell()

    async def _all_answered(self) -> None:
        while self._answered < self._total:
            self._go_on()
            await self._more_news()

    # Bulk

    async def _in_bulk(self) -> None:
        least = max(1, self._in_flight // _STRETCHES)
        while self._answered < self._total:
            self._go_on()
            measured = self._sent >= self._warm_up
            left = (self._total if measured else self._warm_up) - self._sent
            room = min(self._in_flight - (self._sent - self._answered), left)
            if room < min(least, left) or room <= 0:
                await self._more_news()
                continue
            now_ns = time.monotonic_ns()
            if self._sent == self._warm_up:
                self._meter.measuring_since(now_ns)
                self._on_measuring()
            first = self._sent % len(self._values)
            values = list(islice(cycle(self._values), first, first + room))
            if self._stamped:
                stamp = STAMP.pack(now_ns if measured else 0, now_ns)
                values = [stamp + value for value in values]
            self._sent += room
            await self._driver.submit_many(values, partial(self._bulk_done, now_ns, measured))

    def _bulk_done(
        self, sent_ns: int, measured: bool, count: int, ended_ns: int, error: FriedaError | None
    ) -> None:
        self._answered += count
        self._ended_ns = ended_ns
        if error is not None:
            self._failed(count, error)
        elif measured:
            self._meter.record(ended_ns - sent_ns, count)
        self._tell()

    # What goes wrong

    def _failed(self, count: int, error: FriedaError) -> None:
        self._meter.errors += count
        if isinstance(error, DeliveryTimeoutError | TransportError):
            self._lose(error)

    def _lose(self, error: FriedaError) -> None:
        self._lost = self._lost or error
        self._tell()

    async def _watch(self) -> None:
        """Raise when nothing moves any more: what was forgotten somewhere would be waited for without end."""
        while True:
            sent, answered, due_ns = self._sent, self._answered, self._next_due_ns
            overdue = due_ns is not None and due_ns <= time.monotonic_ns()
            await asyncio.sleep(self._patience_s)
            if (self._sent, self._answered) != (sent, answered):
                continue
            if sent > answered:
                raise DeliveryTimeoutError(
                    f"{sent - answered} records were under way and none was answered "
                    f"for {self._patience_s:g} s"
                )
            if overdue:
                raise FriedaError(
                    f"a record was due and the load generator sent none for {self._patience_s:g} s"
                )

    def _go_on(self) -> None:
        if self._lost is not None:
            raise self._lost

    async def _more_news(self) -> None:
        self._news = asyncio.get_running_loop().create_future()
        await self._news

    def _tell(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

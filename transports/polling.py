"""The polling engine: it decides, for one event loop, when the loop spins and when it sleeps.

While there is work, and for a window after, a callback re-arms itself with `call_soon`, so that the loop asks
the kernel for events without ever sleeping (an adaptive receiver, as SPDK and DPDK drivers have). Then the
engine arms its sources and lets the loop sleep until the next event.

    STOPPED --start--> ASLEEP --activity--> SPINNING --window over, sources armed--> ASLEEP
                         ASLEEP, SPINNING --thread work--> YIELDING --all finished--> SPINNING
                         ASLEEP, SPINNING --policy bars--> BARRED --activity after the bar--> SPINNING

Modes: `event` never spins, `busy` never sleeps (but for thread work), `adaptive` is the above.
A spinning loop holds the GIL, so it must not spin while a thread works for it (measured: the end of a threaded
fdatasync was noticed after 12 ms by a spinning loop, after 0.34 ms by a sleeping one).
"""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass
from enum import Enum
from typing import Final, Protocol

from frieda.clock import Clock, SystemClock
from frieda.config import PollingMode
from frieda.errors import ConfigError
from frieda.transports.census import Census
from frieda.transports.spin_policy import INTERVAL_NS, SpinAccount, SpinPolicy, SpinSample

TICKS_BETWEEN_LOOKS: Final = 16
"""The clock is read every so many ticks (a tick costs about 0.5 us on uvloop)."""
ACTIVITIES_BETWEEN_LOOKS: Final = 8
"""While spinning is barred, every so many messages."""
INNER_SPIN_NS: Final = 50_000
"""How long one tick polls the sources before the sockets, and the user's own timers, get their turn."""
LOOK_NS: Final = 20_000_000
"""How often a loop that spins says so in the census and looks for others.

Measured beside a load: 8 us of code that has left the caches, and 38 us with a look at itself, each time on top
of somebody's latency (2.3 and 4 us in a loop that does nothing else). So this is seldom while all is well.
"""
GAP_NS: Final = 1_000_000
"""Two looks at the clock so far apart mean that the core was taken away, or that a callback was long."""
SUSPECT_NS: Final = 200_000_000
"""After a gap a spinner looks closely for so long."""
SUSPECT_LOOK_NS: Final = 2_000_000
"""How often it looks for others then."""
CALM_SELF_LOOK_NS: Final = 250_000_000
"""How often a spinner without gaps looks at itself: a hypervisor may take time in pieces too short for a gap."""
BARRED_LOOK_NS: Final = 50_000_000
"""How often a loop that may not spin looks whether it may again, as long as there is activity."""


class PollSource(Protocol):
    """Something that is polled beside the sockets, such as a completion queue."""

    def poll(self) -> int:
        """Handle what is there, bounded, and return how much that was."""
        ...

    def arm(self) -> bool:
        """Ask for an event on the loop when something comes; False when something is there already.

        The source handles that event itself, and arms itself again while the engine is not spinning.
        """
        ...


class EngineState(Enum):
    """What the engine does at this moment."""

    STOPPED = "stopped"
    ASLEEP = "asleep"
    SPINNING = "spinning"
    YIELDING = "yielding"
    BARRED = "barred"


@dataclass(frozen=True, slots=True, kw_only=True)
class PollingStatistics:
    """What the engine has done since it was started."""

    mode: str
    state: str
    spins: int
    """How often it went from sleeping to spinning."""
    sleeps: int
    """How often it went from spinning to sleeping because its window was over."""
    fallbacks: dict[str, int]
    """How often it stopped or did not begin to spin, by reason."""
    active_processes: int
    """Active Frieda loops on these cores when last counted."""
    usable_cores: int
    census: str
    """"ok", "unused", or why other processes are not counted."""


class PollingEngine:
    """Drives one running event loop. Owner: whoever made it, who calls `close`."""

    def __init__(
        self,
        mode: PollingMode = "adaptive",
        window_us: int = 2000,
        *,
        clock: Clock | None = None,
        policy: SpinPolicy | None = None,
        make_census: Callable[[], Census] = Census,
    ) -> None:
        if mode not in ("event", "adaptive", "busy"):
            raise ConfigError(f"polling = {mode!r}: must be one of event, adaptive, busy")
        if window_us < 0:
            raise ConfigError(f"polling_window_us = {window_us}: must be at least 0")
        self.mode = mode
        self._window_ns = window_us * 1000
        self._now_ns = (clock or SystemClock()).monotonic_ns
        self._policy = policy or SpinPolicy()
        self._make_census = make_census
        self._census: Census | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._state = EngineState.STOPPED
        self._asleep = False  # the one thing that note_activity looks at
        self._active = False
        self._countdown = 0
        self._last_active_ns = 0
        self._next_look_ns = 0
        self._seen_ns = 0  # the last look at the clock
        self._suspect_until_ns = 0
        self._sample_is_due = False
        self._account = SpinAccount()
        self._next_self_look_ns = 0
        self._thread_work = 0
        self._sources: tuple[PollSource, ...] = ()
        self._inner_sources: tuple[PollSource, ...] = ()
        self._context = Context()  # one for all ticks: copying the caller's on each costs time
        self._spins = self._sleeps = 0
        self._fallbacks: dict[str, int] = {}
        self._active_processes = 1

    def start(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Begin to drive `loop` (the running one when not given). Raises ConfigError when started already."""
        if self._state is not EngineState.STOPPED:
            raise ConfigError(
                "this polling engine drives a loop already; every event loop needs its own"
            )
        self._loop = loop or asyncio.get_running_loop()
        self._state = EngineState.ASLEEP
        if self.mode != "event":
            self._census = self._make_census()
            self._asleep = self._thread_work == 0
            if self._thread_work:
                self._state = EngineState.YIELDING
        if self.mode == "busy":
            self.note_activity()

    def note_activity(self) -> None:
        """A message came or goes. To be called for each; costs about 0.05 us while spinning."""
        self._active = True
        if self._asleep:
            self._wake()

    def thread_work_started(self) -> None:
        """A thread begins work that this loop waits for: the loop must not hold the GIL by spinning."""
        self._thread_work += 1
        self._countdown = 1  # the next tick sees it
        if self._state is EngineState.ASLEEP and self.mode != "event":
            self._asleep = False
            self._state = EngineState.YIELDING

    def thread_work_finished(self) -> None:
        """That work is done. To be called on the loop, once for each start."""
        self._thread_work -= 1
        if self._thread_work == 0 and self._state is EngineState.YIELDING:
            self._fall_asleep()
            self.note_activity()

    def add_source(self, source: PollSource, *, inner: bool = True) -> None:
        """Poll `source` too while spinning, and arm it before sleeping (always, in event mode).

        `inner`: it is worth keeping the sockets waiting for a while (INNER_SPIN_NS); else it is polled
        once a turn, and within the inner spins of others.
        """
        self._sources += (source,)
        if inner:
            self._inner_sources += (source,)
        if self._state is not EngineState.SPINNING:
            self._arm(source)
        self.note_activity()

    def remove_source(self, source: PollSource) -> None:
        """Poll it no longer. May be called for one that is not there."""
        self._sources = tuple(each for each in self._sources if each is not source)
        self._inner_sources = tuple(each for each in self._inner_sources if each is not source)

    def close(self) -> None:
        """Stop driving the loop and leave the census. May be repeated."""
        self._state = EngineState.STOPPED
        self._asleep = False
        self._countdown = 1  # a tick that is due ends the spin
        self._sources = self._inner_sources = ()
        if self._census is not None:
            self._census.close()

    @property
    def spinning(self) -> bool:
        """Does the loop spin at this moment?"""
        return self._state is EngineState.SPINNING

    @property
    def statistics(self) -> PollingStatistics:
        """The counters, for health pages and tests."""
        census = self._census
        return PollingStatistics(
            mode=self.mode,
            state=self._state.value,
            spins=self._spins,
            sleeps=self._sleeps,
            fallbacks=dict(self._fallbacks),
            active_processes=self._active_processes,
            usable_cores=census.cores if census is not None else 0,
            census="unused" if census is None else census.why_unavailable or "ok",
        )

    # ---- the spin

    def _wake(self) -> None:
        if self._state is EngineState.BARRED:
            # Every message comes here then, on cores that are short already: look at the clock now and then.
            self._countdown -= 1
            if self._countdown > 0:
                return
            self._countdown = ACTIVITIES_BETWEEN_LOOKS
        now_ns = self._now_ns()
        if self.mode == "adaptive":
            if now_ns >= self._next_look_ns:
                self._look_around(now_ns)
            elif self._state is EngineState.BARRED:
                return
            if (reason := self._policy.bar(now_ns)) is not None:
                self._barred(reason.value, now_ns)
                return
        self._asleep = False
        if self._thread_work:
            self._state = EngineState.YIELDING
            return
        self._spins += 1
        self._state = EngineState.SPINNING
        self._sample_is_due = self.mode == "adaptive"  # not here: a message waits behind this
        self._last_active_ns = self._seen_ns = now_ns
        self._countdown = TICKS_BETWEEN_LOOKS
        self._rearm()

    def _rearm(self) -> None:
        assert self._loop is not None
        self._loop.call_soon(self._tick, context=self._context)

    def _tick(self) -> None:
        # Flat, and without a look at the clock: this runs on every turn of a spinning loop.
        if self._sources:
            self._poll_sources()
        self._countdown -= 1
        if self._countdown > 0:
            self._loop.call_soon(self._tick, context=self._context)  # type: ignore[union-attr]
            return
        self._countdown = TICKS_BETWEEN_LOOKS
        if self._goes_on():
            self._rearm()

    def _goes_on(self) -> bool:
        """Every few ticks: does the spin go on?"""
        if self._state is not EngineState.SPINNING:
            return False
        now_ns = self._now_ns()
        if now_ns - self._seen_ns >= GAP_NS:
            self._suspect(now_ns)
        self._seen_ns = now_ns
        if self._sample_is_due:
            self._sample_is_due = False
            self._account.begin(_sample(now_ns))
            self._next_self_look_ns = now_ns + self._self_look_ns(now_ns)
        if self._thread_work:
            self._look_at_self(now_ns)
            self._state = EngineState.YIELDING
            self._arm_sources()
            return False
        if self._active:
            self._active = False
            self._last_active_ns = now_ns
        elif self.mode == "adaptive" and now_ns - self._last_active_ns >= self._window_ns:
            if all(source.arm() for source in self._sources):
                self._sleeps += 1
                self._look_at_self(now_ns)
                self._fall_asleep()
                return False
            self._last_active_ns = now_ns
        if now_ns >= self._next_look_ns:
            self._look_around(now_ns)
            if self.mode == "adaptive":
                if now_ns >= self._next_self_look_ns:
                    self._look_at_self(now_ns)
                if (reason := self._policy.bar(now_ns)) is not None:
                    self._barred(reason.value, now_ns)
                    return False
        return True

    def _poll_sources(self) -> None:
        """Poll until something came or the sockets' turn is due; at once when the loop has work."""
        sources = self._sources
        deadline_ns = 0
        while True:
            found = 0
            for source in sources:
                try:
                    found += source.poll()
                except Exception as error:  # noqa: BLE001 - a source must not take the engine with it
                    self._drop_source(source, error)
                    return
            if found:
                self._active = True
                return
            if self._active or self._thread_work or not self._inner_sources:
                return
            now_ns = self._now_ns()
            if not deadline_ns:
                deadline_ns = now_ns + INNER_SPIN_NS
            elif now_ns >= deadline_ns:
                self._countdown = 1  # this tick took long: look at the clock for the window too
                return

    def _arm_sources(self) -> None:
        for source in self._sources:
            self._arm(source)

    def _arm(self, source: PollSource) -> None:
        if not source.arm() and self._loop is not None:
            self._active = True
            self._loop.call_soon(source.poll)

    def _drop_source(self, source: PollSource, error: Exception) -> None:
        self.remove_source(source)
        if self._loop is not None:
            self._loop.call_exception_handler(
                {"message": f"{source!r} failed and is polled no longer", "exception": error}
            )

    def _fall_asleep(self) -> None:
        self._state = EngineState.ASLEEP
        self._active = False
        self._asleep = True

    # ---- the fallback

    def _suspect(self, now_ns: int) -> None:
        """Time is missing: look closely from now on, and at once when the last look is not quite fresh."""
        if now_ns >= self._suspect_until_ns:
            self._next_look_ns = now_ns
            self._next_self_look_ns = min(self._next_self_look_ns, now_ns + INTERVAL_NS)
        self._suspect_until_ns = now_ns + SUSPECT_NS

    def _self_look_ns(self, now_ns: int) -> int:
        return INTERVAL_NS if now_ns < self._suspect_until_ns else CALM_SELF_LOOK_NS

    def _look_around(self, now_ns: int) -> None:
        """Say that this loop is active, and count who else is."""
        suspicious = now_ns < self._suspect_until_ns
        self._next_look_ns = now_ns + (SUSPECT_LOOK_NS if suspicious else LOOK_NS)
        if self._census is not None:
            self._census.heartbeat(now_ns)
            self._active_processes = self._census.active(now_ns)
            self._policy.saw_processes(now_ns, self._active_processes, self._census.cores)

    def _look_at_self(self, now_ns: int) -> None:
        """Compare the time that passed with the time this thread ran: spinning, it never wants to stop."""
        if self.mode == "adaptive":
            self._next_self_look_ns = now_ns + self._self_look_ns(now_ns)
            if (interval := self._account.look(_sample(now_ns))) is not None:
                self._policy.saw_interval(now_ns, interval)

    def _barred(self, reason: str, now_ns: int) -> None:
        """Sleep like event mode; activity looks again from time to time.

        There is no timer for that, because a pending timer makes every sleep of the loop arm a clock interrupt
        (measured in a virtual machine: 3 us on the p50 and 35 us on the p99 of an echo).
        """
        if self._state is not EngineState.BARRED:
            self._state = EngineState.BARRED
            self._fallbacks[reason] = self._fallbacks.get(reason, 0) + 1
            self._arm_sources()
            self._countdown = ACTIVITIES_BETWEEN_LOOKS
        self._next_look_ns = now_ns + BARRED_LOOK_NS
        self._active = False
        self._asleep = True


def _sample(now_ns: int) -> SpinSample:
    usage = resource.getrusage(resource.RUSAGE_THREAD)
    return SpinSample(now_ns, time.thread_time_ns(), usage.ru_nivcsw, usage.ru_nvcsw)

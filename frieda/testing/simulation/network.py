"""A network that delays, loses, doubles and reorders messages, and is cut in one direction or both. PURE."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

from frieda.testing.simulation.world import MS, World

Place = Hashable
"""A broker's number, "store", or the name of a client."""


@dataclass(slots=True, kw_only=True)
class Weather:
    """How the links are at the moment. Probabilities are for each message."""

    delay_ms: float = 0.5
    """The mean; delays are exponential, so that messages overtake each other unless `ordered`."""
    loss: float = 0.0
    duplication: float = 0.0
    late: float = 0.0
    """This share comes up to three seconds late."""
    ordered: bool = False


LONGEST_DELAY_MS = 1000
"""But for what is `late`: nothing keeps a message for longer, nor those behind it where the order is kept."""


class Network:
    """Carries messages from place to place. Between a client and a broker it is the same as between brokers."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._cut: dict[tuple[Place, Place], int] = {}
        self._slow: dict[Place, float] = {}
        self._arrives_at: dict[tuple[Place, Place], int] = {}
        self.weather = Weather()
        self.lost = self.doubled = 0

    def cut(self, source: Place, target: Place) -> None:
        """Nothing gets from `source` to `target` until `mend` was called as often."""
        self._cut[source, target] = self._cut.get((source, target), 0) + 1

    def mend(self, source: Place, target: Place) -> None:
        """Take back one `cut`."""
        left = self._cut.get((source, target), 0) - 1
        if left > 0:
            self._cut[source, target] = left
        else:
            self._cut.pop((source, target), None)

    def slow_down(self, place: Place, times: float) -> None:
        """All that comes to `place` takes so many times longer; 1 is as usual."""
        self._slow[place] = times

    def mend_all(self) -> None:
        """All links are whole and as fast as ever."""
        self._cut.clear()
        self._slow.clear()

    def is_cut(self, source: Place, target: Place) -> bool:
        return (source, target) in self._cut

    def send(
        self, source: Place, target: Place, deliver: Callable[..., None], *arguments: Any
    ) -> None:
        """`deliver` happens at `target`: some time, perhaps never, perhaps twice."""
        chance, weather = self._world.random.random, self.weather

        if (source, target) in self._cut or (weather.loss and chance() < weather.loss):
            self.lost += 1
            return
        self._carry(source, target, deliver, arguments)
        if weather.duplication and chance() < weather.duplication:
            self.doubled += 1
            self._carry(source, target, deliver, arguments)

    def send_in_order(
        self, source: Place, target: Place, deliver: Callable[..., None], *arguments: Any
    ) -> None:
        """As `send` over one connection: in order, never twice; lost only when the connection is."""
        if (source, target) in self._cut:
            self.lost += 1
        else:
            self._carry(source, target, deliver, arguments, in_order=True)

    def send_surely(
        self, source: Place, target: Place, deliver: Callable[..., None], *arguments: Any
    ) -> None:
        """As `send`, but repeated while the link is cut: late, never lost (the watches of a metadata store)."""
        if (source, target) in self._cut:
            self._world.after(200 * MS, self.send_surely, source, target, deliver, *arguments)
        else:
            arrive = self._carry_surely
            self._carry(source, target, arrive, (source, target, deliver, arguments), surely=True)

    def _carry_surely(
        self, source: Place, target: Place, deliver: Callable[..., None], arguments: tuple[Any, ...]
    ) -> None:
        if (source, target) in self._cut:
            self.send_surely(source, target, deliver, *arguments)
        else:
            deliver(*arguments)

    def _carry(
        self,
        source: Place,
        target: Place,
        deliver: Callable[..., None],
        arguments: tuple[Any, ...],
        *,
        surely: bool = False,
        in_order: bool = False,
    ) -> None:
        weather, random = self.weather, self._world.random
        delay_ms = random.expovariate(1.0) * weather.delay_ms * self._slow.get(target, 1.0)
        delay_ms = min(delay_ms, LONGEST_DELAY_MS)
        if weather.late and random.random() < weather.late:
            delay_ms += random.uniform(10, 3000)
        arrival_ns = self._world.now_ns + int(delay_ms * MS)
        if in_order or weather.ordered:
            pair = (source, target)
            arrival_ns = max(arrival_ns, self._arrives_at.get(pair, 0) + 1)
            self._arrives_at[pair] = arrival_ns
        delay_ns = arrival_ns - self._world.now_ns
        if surely:
            self._world.after(delay_ns, deliver, *arguments)
        else:
            self._world.after(delay_ns, self._arrive, source, target, deliver, arguments)

    def _arrive(
        self, source: Place, target: Place, deliver: Callable[..., None], arguments: tuple[Any, ...]
    ) -> None:
        if (source, target) in self._cut:
            self.lost += 1
        else:
            deliver(*arguments)

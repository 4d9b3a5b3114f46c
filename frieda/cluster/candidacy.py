"""Who is controller: an ephemeral node that one broker has, and a number that fences those who had it before.

Becoming controller raises `/controller_epoch` in the same step that makes `/controller`. Everything that a controller
writes checks the version of `/controller_epoch` in the same step: one that was stopped, and does not know yet that
another has taken over, changes nothing any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from frieda.cluster import nodes
from frieda.cluster.nodes import ControllerNode
from frieda.cluster.session import Check, Create, Delete, Operation, Write, ZooKeeperSession
from frieda.errors import ConflictError, FencedError


@dataclass(frozen=True, slots=True)
class Mandate:
    """The right to write as controller. `version` is that of the node which every write checks."""

    epoch: int
    version: int
    session_id: int


class Candidacy:
    """Owned by the controller of one broker."""

    def __init__(self, session: ZooKeeperSession, broker_id: int) -> None:
        self._session = session
        self._broker_id = broker_id
        self.mandate: Mandate | None = None

    async def claim(self) -> bool:
        """Become controller if nobody is. Raises CoordinationError."""
        session = self._session
        session_id = session.session_id
        there, count = await session.get_all([nodes.CONTROLLER, nodes.CONTROLLER_EPOCH])
        epoch = 0 if count is None else nodes.decode_number(nodes.CONTROLLER_EPOCH, count.data)
        if there is not None:
            found = nodes.decode_controller(nodes.CONTROLLER, there.data)
            mine = there.owner == session_id and found.broker_id == self._broker_id
            if not mine or found.epoch != epoch or count is None:
                return False
            self.mandate = Mandate(epoch, count.version, session_id)
            return True
        raised: Operation = (
            Create(nodes.CONTROLLER_EPOCH, nodes.encode_number(1))
            if count is None
            else Write(nodes.CONTROLLER_EPOCH, nodes.encode_number(epoch + 1), count.version)
        )
        node = ControllerNode(self._broker_id, epoch + 1)
        claim = Create(nodes.CONTROLLER, nodes.encode_controller(node), ephemeral=True)
        try:
            versions = await session.multi([raised, claim])
        except ConflictError:
            return False
        self.mandate = Mandate(epoch + 1, versions[0], session_id)
        return True

    async def write(self, operations: Sequence[Operation]) -> list[int]:
        """Do these if this is still the controller; the versions afterwards.

        Raises FencedError when another has taken over, or the session is another; ConflictError, whose `position`
        is that in `operations`; CoordinationError.
        """
        mandate = self.mandate
        if mandate is None or mandate.session_id != self._session.session_id:
            self.mandate = None
            raise FencedError(f"broker {self._broker_id} is not the controller")
        check = Check(nodes.CONTROLLER_EPOCH, mandate.version)
        try:
            return (await self._session.multi([check, *operations]))[1:]
        except ConflictError as error:
            if error.position == 0:
                self.mandate = None
                raise FencedError(
                    f"broker {self._broker_id} is not the controller any more: "
                    f"another has followed on epoch {mandate.epoch}"
                ) from None
            error.position -= 1
            raise

    async def resign(self) -> None:
        """Let another become controller now. Raises CoordinationError."""
        if self.mandate is not None:
            try:
                await self.write([Delete(nodes.CONTROLLER)])
            finally:
                self.mandate = None

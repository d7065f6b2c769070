"""What clients change of contacts and conversations is written and told together, or not at all."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Final

from switchboard.bus import Outgoing
from switchboard.ids import ChangeId, ProjectId, mint
from switchboard.records import ChangesRecord
from switchboard.store import outbox
from switchboard.store.outbox import OutboxRelay
from switchboard.store.pool import ACQUIRE_TIMEOUT_SECONDS, Connection, Pool
from switchboard.topics import CHANGES


class Writing:
    """One write: its transaction, its moment, and what it tells."""

    def __init__(self, connection: Connection, project_id: ProjectId, now: datetime, topic: str) -> None:
        self.connection: Final = connection
        self.project_id: Final = project_id
        self.now: Final = now
        #: Whether the commit leaves something in the outbox.
        self.tells = False
        self._topic = topic

    async def tell(self, kind: type[ChangesRecord], about: str, sequence: int, **facts: Any) -> None:
        """Tell a change of the contact or conversation `about`, with the commit, in the order of the calls."""
        change = kind(change_id=ChangeId(mint()), project_id=self.project_id, at=self.now, sequence=sequence, **facts)
        await outbox.put(
            self.connection, [Outgoing(self._topic, about.encode(), CHANGES.encode(change), CHANGES.headers(change))]
        )
        self.tells = True


class Writer:
    """Where clients' writes of contacts and conversations are done."""

    def __init__(self, pool: Pool, relay: OutboxRelay, topic_prefix: str) -> None:
        self.pool = pool
        self._relay = relay
        self._topic = CHANGES.name(topic_prefix)

    @asynccontextmanager
    async def writing(self, project_id: ProjectId) -> AsyncIterator[Writing]:
        """One transaction. What it tells is on its way once it is committed."""
        async with self.pool.acquire(timeout=ACQUIRE_TIMEOUT_SECONDS) as connection, connection.transaction():
            now = await connection.fetchval("SELECT switchboard.now()")
            writing = Writing(connection, project_id, now, self._topic)
            yield writing
        if writing.tells:
            self._relay.wake()

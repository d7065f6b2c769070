"""The outbox: what an API write has to tell goes into a row of the same transaction, and from there to Kafka.

Rows of one key are written under the lock of what they are about, so their numbers follow their commits.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec
import structlog
from prometheus_client import Counter

from switchboard.bus import Outgoing, Producer
from switchboard.bus.errors import BusError
from switchboard.store.pool import TRANSIENT_ERRORS, Connection, Pool

_LOCK: Final = 0x5157_1704
_BATCH: Final = 200
#: How often rows of processes that died are looked for.
_EVERY_SECONDS: Final = 0.5
_PUBLISH_SECONDS: Final = 5.0
#: A relay that hangs loses its turn to another process after this long.
_TURN: Final = "15s"

_relayed = Counter("switchboard_outbox_relayed", "Facts of API writes that went from the outbox to the broker.")
log = structlog.get_logger(__name__)
_encode: Final = msgspec.json.Encoder().encode
_headers: Final = msgspec.json.Decoder(dict[str, str])


async def put(connection: Connection, facts: Sequence[Outgoing]) -> None:
    """Write facts into the outbox, in the caller's transaction. They are told after its commit, in this order."""
    for fact in facts:
        headers = {name: value.decode() for name, value in fact.headers.items()}
        await connection.execute(
            "INSERT INTO switchboard.outbox (topic, key, headers, value) VALUES ($1, $2, $3::text::jsonb, $4)",
            fact.topic, fact.key, _encode(headers).decode(), fact.value,
        )  # fmt: skip


class OutboxRelay:
    """Publishes the outbox in order. Any number of processes may run one: they take turns."""

    def __init__(self, pool: Pool, producer: Producer) -> None:
        self._pool = pool
        self._producer = producer
        self._written = asyncio.Event()

    def wake(self) -> None:
        """Something was written and committed."""
        self._written.set()

    async def run(self) -> None:
        """Relay until cancelled. While the broker or the database is away, rows wait."""
        failing = ""
        while True:
            self._written.clear()
            more = False
            try:
                more = await self.run_once()
                failing = ""
            except (*TRANSIENT_ERRORS, BusError) as error:
                if failing != type(error).__name__:
                    failing = type(error).__name__
                    log.warning("the outbox waits", error=failing)
            if not more:
                await self._wait()

    async def run_once(self) -> bool:
        """Publish up to a batch, and delete it once the broker has it. Returns whether there may be more."""
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(f"SET LOCAL idle_in_transaction_session_timeout = '{_TURN}'")
            if not await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", _LOCK):
                return False
            rows = await connection.fetch(
                "SELECT number, topic, key, headers::text, value FROM switchboard.outbox ORDER BY number LIMIT $1",
                _BATCH,
            )
            if not rows:
                return False
            facts = [
                Outgoing(
                    row["topic"], row["key"], row["value"],
                    {name: value.encode() for name, value in _headers.decode(row["headers"]).items()},
                )
                for row in rows
            ]  # fmt: skip
            await self._producer.publish(facts, timeout_seconds=_PUBLISH_SECONDS)
            # One statement names the rows it read: a number committed meanwhile by somebody slower stays.
            await connection.execute(
                "DELETE FROM switchboard.outbox WHERE number = ANY($1::bigint[])", [row["number"] for row in rows]
            )
        _relayed.inc(len(rows))
        return len(rows) == _BATCH

    async def _wait(self) -> None:
        try:
            await asyncio.wait_for(self._written.wait(), _EVERY_SECONDS)
        except TimeoutError:
            return

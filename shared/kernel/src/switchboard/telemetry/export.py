"""Exports the traces of messages that are due for it, through the SDK's OTLP exporter."""

import asyncio
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Final, Protocol

import asyncpg
import msgspec
import structlog
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from prometheus_client import Counter

from switchboard.ids import MessageId
from switchboard.reason import Reason
from switchboard.store import timeline
from switchboard.store.pool import TRANSIENT_ERRORS, Connection, Pool
from switchboard.store.writes import Writes
from switchboard.telemetry.spans import Life, spans_of

#: Callbacks follow a decision within this time, as a rule: their spans then go with the first export.
SETTLE: Final = timedelta(seconds=3)
_LEASE: Final = timedelta(seconds=60)
_PER_ROUND: Final = 100
_PAUSE_SECONDS: Final = 1.0
_BACK_OFF_SECONDS: Final = 10.0
_exported = Counter("switchboard_traces_exported", "Traces of messages handed to the OTLP endpoint.")
_reason: Final = msgspec.json.Decoder(Reason)
log = structlog.get_logger()


class SpanExporter(Protocol):
    """What the SDK's exporters are: blocking."""

    def export(self, spans: Sequence[ReadableSpan], /) -> SpanExportResult: ...
    def shutdown(self) -> None: ...


def ask_for_export(writes: Writes, message_ids: Iterable[MessageId]) -> None:
    """Note that these messages' traces are to be exported, a moment from now. Asked again, they go again."""
    ids = sorted(set(message_ids))
    if ids:
        writes.add(
            "asked_for_export",
            "INSERT INTO switchboard.trace_exports (message_id, due_at)"
            " SELECT id, switchboard.now() + $2 FROM unnest($1::text[]) AS asked (id)"
            " ON CONFLICT (message_id) DO UPDATE SET due_at = excluded.due_at",
            ids,
            SETTLE,
        )


class TraceExport:
    """Takes what is due, builds the spans and exports them. Several processes share the work."""

    def __init__(self, pool: Pool, exporter: SpanExporter) -> None:
        self._pool = pool
        self._exporter = exporter

    async def run(self) -> None:
        """Export until cancelled. An endpoint that is away is waited for; nothing else waits with it."""
        while True:
            try:
                is_busy = await self.export_once() == _PER_ROUND
                pause = 0.0 if is_busy else _PAUSE_SECONDS
            except TRANSIENT_ERRORS as error:
                log.warning("traces wait", error=type(error).__name__)
                pause = _BACK_OFF_SECONDS
            await asyncio.sleep(pause)

    async def export_once(self) -> int:
        """Export what is due, at most 100 messages. Returns how many. Raises ConnectionError if nobody takes them."""
        async with self._pool.acquire() as connection:
            due = await _due(connection)
            spans = [span for row in due for span in await _spans(connection, row)]
        if spans and await asyncio.to_thread(self._exporter.export, spans) is not SpanExportResult.SUCCESS:
            raise ConnectionError("the OTLP endpoint did not take the spans")
        await self._forget(due)
        _exported.inc(len(due))
        return len(due)

    async def _forget(self, due: Sequence[asyncpg.Record]) -> None:
        """Strike out what went, unless something happened to it since."""
        await self._pool.execute(
            "DELETE FROM switchboard.trace_exports e USING unnest($1::text[], $2::timestamptz[]) AS gone (id, due_at)"
            " WHERE e.message_id = gone.id AND e.due_at = gone.due_at",
            [row["message_id"] for row in due],
            [row["due_at"] for row in due],
        )


async def _due(connection: Connection) -> list[asyncpg.Record]:
    """Lease what is due: nobody else takes it for a while, and a process that dies leaves it to the next."""
    rows: list[asyncpg.Record] = await connection.fetch(
        "WITH due AS (SELECT message_id FROM switchboard.trace_exports WHERE due_at <= switchboard.now()"
        " ORDER BY due_at LIMIT $1 FOR UPDATE SKIP LOCKED), leased AS ("
        " UPDATE switchboard.trace_exports e SET due_at = switchboard.now() + $2 FROM due"
        " WHERE e.message_id = due.message_id RETURNING e.message_id, e.due_at)"
        " SELECT leased.message_id, leased.due_at, m.app_id, m.accepted_at, m.status, m.final_at, m.reason"
        " FROM leased LEFT JOIN switchboard.messages m ON m.id = leased.message_id",
        _PER_ROUND,
        _LEASE,
    )
    return rows


async def _spans(connection: Connection, row: asyncpg.Record) -> list[ReadableSpan]:
    if row["app_id"] is None:
        return []
    reason = None if row["reason"] is None else _reason.decode(row["reason"])
    life = Life(
        MessageId(row["message_id"]),
        row["app_id"],
        row["accepted_at"],
        row["status"],
        row["final_at"],
        reason.code if reason else "",
    )
    return spans_of(life, await timeline.read(connection, life.id))

"""A record the router cannot handle: it is a dead letter, and the message it is about ends (DESIGN 4)."""

from datetime import datetime

import structlog

from switchboard.bus import DeadLetterCause, Record, Transient, WaitCause
from switchboard.ids import AppId, MessageId, ProjectId, time_of
from switchboard.records import ProcessingMode
from switchboard.rules.facts import on_dead_letter, start
from switchboard.rules.progress import INTERNAL_ERROR, Decision
from switchboard.rules.route import Route
from switchboard.store import messages as store
from switchboard.store.messages import Envelope, Message, Moved
from switchboard.store.pool import database_now
from switchboard.timeline import Kind
from switchboard_router import events
from switchboard_router.carrying_out import Decided, Output, carry_out, lock_lanes_of, publish
from switchboard_router.context import RouterContext

log = structlog.get_logger()


class OnDeadLetter:
    """Ends the messages of dead records."""

    def __init__(self, context: RouterContext) -> None:
        self._context = context

    async def __call__(self, record: Record, cause: DeadLetterCause) -> None:
        """End the record's message with INTERNAL_ERROR, known by the ids in the record's headers."""
        message_id = MessageId(record.headers.get("message_id", b"").decode())
        log.error("dead letter", topic=record.topic, offset=record.offset, message_id=message_id, error=cause.error)
        if message_id:
            await publish(self._context, await self._end(message_id, record))
        elif event_id := MessageId(record.headers.get("event_id", b"").decode()):
            await self._end_event(event_id, record)

    async def _end_event(self, event_id: MessageId, record: Record) -> None:
        project_id, app_id = (record.headers.get(name, b"").decode() for name in ("project_id", "app_id"))
        async with self._context.connection() as connection, connection.transaction():
            now = await database_now(connection)
            told = await events.fail_unplanned(self._context, connection, event_id, project_id, app_id, now)
        if told:
            await self._context.producer.publish(told)

    async def _end(self, message_id: MessageId, record: Record) -> list[Output]:
        """Raises Transient if the message moves on meanwhile: the bus then comes again."""
        context = self._context
        async with context.connection() as connection:
            looks, _ = await store.look(connection, {message_id: _cause(record)})
            async with connection.transaction():
                now = await database_now(connection)
                look = looks.get(message_id)
                if look is None:
                    decided = _unplanned(message_id, record, now)
                else:
                    decision = on_dead_letter(look.message.progress, now)
                    decided = Decided(look.message, decision, Kind.DEAD_LETTER, _cause(record), attempt=look.attempt)
                if decided is None:
                    return []
                pacing, lanes = await lock_lanes_of(context, connection, [decided], now)
                try:
                    return await carry_out(
                        context, connection, pacing, lanes, [decided], now, looks=None if look is None else looks
                    )
                except Moved as error:
                    raise Transient("the message moves on", cause=WaitCause.CONFLICT) from error


def _unplanned(message_id: MessageId, record: Record, now: datetime) -> Decided | None:
    """A message that was never planned, as far as its record's headers tell: it begins and ends here."""
    app_id = record.headers.get("app_id", b"").decode()
    if not app_id:
        return None
    accepted_at = time_of(message_id)
    decision: Decision = start(Route((), empty_because=INTERNAL_ERROR), accepted_at, None, now)
    message = Message(
        id=message_id,
        project_id=ProjectId(record.headers.get("project_id", b"").decode()),
        app_id=AppId(app_id),
        mode=ProcessingMode.DISPATCH,
        accepted_at=accepted_at,
        high_priority=False,
        envelope=Envelope(),
        route=Route((), empty_because=INTERNAL_ERROR),
        progress=decision.progress,
    )
    return Decided(message, decision, Kind.DEAD_LETTER, _cause(record))


def _cause(record: Record) -> str:
    return f"dead-letter:{record.topic}:{record.partition}:{record.offset}"

"""Publishes what waited in lanes: the drainer says which attempts have their slot, this makes their orders.

A recipient may have left while a message waited. That is told like a closed gate, and the router's handler decides.
"""

from collections.abc import Sequence

from switchboard.bus import Outgoing
from switchboard.lanes.round import Granted
from switchboard.records import EventOverdue, StepAbandoned, TimerFired
from switchboard.rules.route import NOT_OPTED_IN
from switchboard.store import messages as store
from switchboard.topics import ATTEMPTS
from switchboard_router import unsubscribed
from switchboard_router.context import RouterContext


class Granting:
    """What the drainer and the sweeps publish through."""

    def __init__(self, context: RouterContext, topic_prefix: str) -> None:
        self._context = context
        self._attempts_topic = ATTEMPTS.name(topic_prefix)

    async def publish(self, granted: Sequence[Granted]) -> None:
        """Publish the orders of attempts that have their slot, in the order given. Returns once acknowledged."""
        async with self._context.connection() as connection:
            found = await store.read(connection, {item.message_id for item in granted}, body=True)
            going = [(item, message) for item in granted if (message := found.get(item.message_id)) is not None]
            going = [(item, message) for item, message in going if not message.progress.is_final]
            stopped = await unsubscribed.stopped(
                self._context, connection, [(message, item.step) for item, message in going]
            )
        outgoing = []
        for item, message in going:
            if message.id in stopped:
                outgoing.append(self._outgoing(StepAbandoned(*item.key, reason=NOT_OPTED_IN)))
                continue
            order = self._context.publications.dispatch(message, item.step, item.submission, item.send_before)
            outgoing += [order] if order is not None else []
        if outgoing:
            await self._context.producer.publish(outgoing)

    async def tell_events(self, records: Sequence[EventOverdue]) -> None:
        """Publish that events are overdue. Returns once acknowledged."""
        await self._context.producer.publish([self._outgoing(record) for record in records])

    async def tell(self, records: Sequence[StepAbandoned | TimerFired]) -> None:
        """Publish facts that the router's own handlers will decide about. Returns once acknowledged."""
        await self._context.producer.publish([self._outgoing(record) for record in records])

    def _outgoing(self, record: StepAbandoned | TimerFired | EventOverdue) -> Outgoing:
        about = record.event_id if isinstance(record, EventOverdue) else record.message_id
        return Outgoing(self._attempts_topic, about.encode(), ATTEMPTS.encode(record), ATTEMPTS.headers(record))

"""Publishes what waited in lanes: the drainer says which attempts have their slot, this makes their orders."""

from collections.abc import Sequence

from switchboard.bus import Outgoing
from switchboard.lanes.round import Granted
from switchboard.records import EventOverdue, StepAbandoned, TimerFired
from switchboard.store import messages as store
from switchboard.topics import ATTEMPTS
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
        orders = []
        for item in granted:
            message = found.get(item.message_id)
            if message is not None and not message.progress.is_final:
                order = self._context.publications.dispatch(message, item.step, item.submission, item.send_before)
                orders += [order] if order is not None else []
        if orders:
            await self._context.producer.publish(orders)

    async def tell_events(self, records: Sequence[EventOverdue]) -> None:
        """Publish that events are overdue. Returns once acknowledged."""
        await self._context.producer.publish(
            [
                Outgoing(
                    self._attempts_topic, record.event_id.encode(), ATTEMPTS.encode(record), ATTEMPTS.headers(record)
                )
                for record in records
            ]
        )

    async def tell(self, records: Sequence[StepAbandoned | TimerFired]) -> None:
        """Publish facts that the router's own handlers will decide about. Returns once acknowledged."""
        await self._context.producer.publish(
            [
                Outgoing(
                    self._attempts_topic, record.message_id.encode(), ATTEMPTS.encode(record), ATTEMPTS.headers(record)
                )
                for record in records
            ]
        )

"""What clients ask for besides messages, on the same topic: events to people, and capability."""

from collections.abc import Sequence

from switchboard.bus import Outgoing
from switchboard.records import CapabilityAsked, EventAccepted
from switchboard.store.messages import database_now
from switchboard_router import capability, events
from switchboard_router.context import RouterContext


async def carry_on(context: RouterContext, records: Sequence[EventAccepted | CapabilityAsked]) -> None:
    """Plan events and pass questions on, rows first."""
    apps = {record.app_id: await context.configuration.app(record.app_id) for record in records}
    asked = [record for record in records if isinstance(record, EventAccepted)]
    outgoing: list[Outgoing] = []
    async with context.connection() as connection, connection.transaction():
        now = await database_now(connection)
        outgoing += await events.plan(context, connection, asked, apps, now)
        for record in records:
            if isinstance(record, CapabilityAsked):
                outgoing += capability.ask(context, record, apps[record.app_id], record.identities, now)
    if outgoing:
        await context.producer.publish(outgoing)

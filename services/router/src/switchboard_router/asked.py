"""What clients ask for besides messages, on the same topic: events to people, and capability."""

from collections.abc import Sequence

from switchboard.bus import Outgoing
from switchboard.records import CapabilityAsked, EventAccepted
from switchboard.store.pool import database_now
from switchboard_router import capability, events
from switchboard_router.context import RouterContext
from switchboard_router.persons import find_asked


async def carry_on(context: RouterContext, records: Sequence[EventAccepted | CapabilityAsked]) -> None:
    """Plan events and pass questions on, rows first."""
    apps = {record.app_id: await context.configuration.app(record.app_id) for record in records}
    asked = [record for record in records if isinstance(record, EventAccepted)]
    outgoing: list[Outgoing] = []
    async with context.connection() as connection, connection.transaction():
        now = await database_now(connection)
        if asked:
            outgoing += await events.plan(context, connection, asked, apps, now)
        queries = [record for record in records if isinstance(record, CapabilityAsked)]
        people = await find_asked(context, connection, queries, apps) if queries else {}
        for query in queries:
            outgoing += capability.ask(context, query, apps[query.app_id], people.get(query.query_id))
    if outgoing:
        await context.producer.publish(outgoing)

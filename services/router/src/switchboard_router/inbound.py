"""`router.inbound`: people wrote to an app, did something, left or came back, so keep it and tell the app."""

from collections.abc import Sequence
from datetime import datetime

from prometheus_client import Counter

from switchboard.bus import Outgoing, Record
from switchboard.configuration import App
from switchboard.crash import crash_point
from switchboard.ids import AppId
from switchboard.records import CapabilityAnswered, EventReceived, InboundRecord, MessageReceived
from switchboard.store.pool import Connection, database_now
from switchboard.topics import INBOUND
from switchboard_router import capability, inbound_events, inbound_facts
from switchboard_router.context import RouterContext
from switchboard_router.reading import decode_all
from switchboard_router.received import keep_messages

_appless = Counter("switchboard_inbound_without_app", "Facts from channels for apps that do not exist any more.")


class OnInbound:
    """Keeps batches of what came from channels and raises the callbacks."""

    def __init__(self, context: RouterContext) -> None:
        self._context = context

    async def __call__(self, records: Sequence[Record]) -> None:
        """Keep what these records tell: rows first, then what follows from them."""
        with decode_all(INBOUND, records) as received:
            outgoing = await self._keep(received)
            crash_point("router.after_commit")
            if outgoing:
                await self._context.producer.publish(outgoing)
            crash_point("router.after_publish")

    async def _keep(self, received: Sequence[InboundRecord]) -> list[Outgoing]:
        apps: dict[AppId, App] = {}
        for app_id in {record.app_id for record in received}:
            if (app := await self._context.configuration.app(app_id)) is not None:
                apps[app_id] = app
        ours = [record for record in received if record.app_id in apps]
        _appless.inc(len(received) - len(ours))
        async with self._context.connection() as connection, connection.transaction():
            return await self._keep_all(connection, ours, apps, await database_now(connection))

    async def _keep_all(
        self, connection: Connection, records: Sequence[InboundRecord], apps: dict[AppId, App], now: datetime
    ) -> list[Outgoing]:
        messages: list[MessageReceived] = []
        events: list[EventReceived] = []
        answers: list[CapabilityAnswered] = []
        facts: list[inbound_facts.Fact] = []
        for record in records:
            match record:
                case MessageReceived():
                    messages.append(record)
                case EventReceived():
                    events.append(record)
                case CapabilityAnswered():
                    answers.append(record)
                case _:
                    facts.append(record)
        outgoing: list[Outgoing] = []
        if messages:
            outgoing += await keep_messages(self._context, connection, messages, apps, now)
        if events:
            outgoing += await inbound_events.keep(self._context, connection, events, apps, now)
        if facts:
            outgoing += await inbound_facts.keep(self._context, connection, facts, apps)
        if answers:
            outgoing += await capability.remember(self._context, connection, answers)
        return outgoing

"""`router.inbound`: a person wrote to an app, so keep the message and tell the app."""

from collections.abc import Sequence
from datetime import datetime

import msgspec
from prometheus_client import Counter

from switchboard.bus import Outgoing, Record
from switchboard.callbacks import bodies
from switchboard.configuration import App
from switchboard.crash import crash_point
from switchboard.ids import AppId
from switchboard.records import MessageReceived
from switchboard.store import inbound as store
from switchboard.store import timeline
from switchboard.store.inbound import Inbound, InboundEnvelope
from switchboard.store.messages import database_now
from switchboard.timeline import Entry, Happening, Kind
from switchboard.topics import INBOUND
from switchboard_router.accepted import body_until
from switchboard_router.context import RouterContext
from switchboard_router.reading import decode_all

_appless = Counter("switchboard_inbound_without_app", "Messages from people to apps that do not exist any more.")


class OnInbound:
    """Keeps batches of messages from people and raises their callbacks."""

    def __init__(self, context: RouterContext) -> None:
        self._context = context

    async def __call__(self, records: Sequence[Record]) -> None:
        """Keep the messages of these records: rows first, then their callbacks."""
        with decode_all(INBOUND, records) as received:
            untold = await self._keep(received)
            crash_point("router.after_commit")
            callbacks = [callback for record in untold for callback in await self._callbacks(record)]
            if callbacks:
                await self._context.producer.publish(callbacks)
            crash_point("router.after_publish")

    async def _keep(self, received: Sequence[MessageReceived]) -> list[MessageReceived]:
        """Store what is new. Returns what is to be told: all but messages whose purged content says they were."""
        apps = {record.app_id: await self._context.configuration.app(record.app_id) for record in received}
        ours = [record for record in received if apps[record.app_id] is not None]
        _appless.inc(len(received) - len(ours))
        async with self._context.connection() as connection, connection.transaction():
            now = await database_now(connection)
            seen = await store.unpurged(connection, [record.message_id for record in ours])
            new = [record for record in ours if record.message_id not in seen]
            await store.insert(connection, [_inbound(record, apps[record.app_id]) for record in new], now)
            await timeline.write(connection, [_happening(record, now) for record in new])
        return [record for record in ours if seen.get(record.message_id, True)]

    async def _callbacks(self, record: MessageReceived) -> list[Outgoing]:
        app = await self._context.configuration.app(record.app_id)
        webhooks = await self._context.configuration.webhooks(AppId(record.app_id))
        if app is None:
            return []
        body = bodies.inbound_message(
            app_id=record.app_id,
            project_id=record.project_id,
            message_id=record.message_id,
            identity=record.identity,
            message=record.message,
            accepted_at=record.accepted_at,
            event_at=record.event_at,
            mode=app.processing_mode,
            sender_id=record.sender_id,
            channel_metadata=record.channel_metadata,
        )
        return self._context.publications.inbound_callback(
            record.message_id, record.project_id, record.app_id, record.event_at, body, webhooks
        )


def _inbound(record: MessageReceived, app: App | None) -> Inbound:
    assert app is not None
    metadata = msgspec.json.encode(record.channel_metadata).decode() if record.channel_metadata else ""
    envelope = InboundEnvelope(record.sender_id, metadata)
    return Inbound(record, app.processing_mode, envelope, body_until(app, record.accepted_at))


def _happening(record: MessageReceived, now: datetime) -> Happening:
    return Happening(record.message_id, now, Kind.RECEIVED, "received", Entry(channel=record.identity.channel))

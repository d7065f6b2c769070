"""Events from people: kept once, told to the app as EVENT_INBOUND."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

import msgspec

from switchboard.bus import Outgoing
from switchboard.callbacks import bodies
from switchboard.configuration import App
from switchboard.content import ContactEvent, ContactMessageEvent
from switchboard.ids import AppId
from switchboard.records import EventReceived
from switchboard.status import Status
from switchboard.store import events as store
from switchboard.store.events import Envelope, StoredEvent
from switchboard.store.pool import Connection
from switchboard.trigger import Trigger
from switchboard_router.context import RouterContext
from switchboard_router.retention import body_until

_encode: Final = msgspec.json.Encoder().encode


async def keep(
    context: RouterContext,
    connection: Connection,
    records: Sequence[EventReceived],
    apps: Mapping[AppId, App],
    now: datetime,
) -> list[Outgoing]:
    """Store what is new. Returns what is to be told: of all but events whose purged body says they were."""
    seen = await store.read(connection, {record.event_id for record in records})
    new = {record.event_id: record for record in records if record.event_id not in seen}
    await store.insert(connection, [_stored(record, apps[record.app_id], now) for record in new.values()])
    outgoing: list[Outgoing] = []
    for record in records:
        before = seen.get(record.event_id)
        if before is None or before.body is not None:
            outgoing += await _callbacks(context, record, apps[record.app_id])
    return outgoing


def _stored(record: EventReceived, app: App, now: datetime) -> StoredEvent:
    return StoredEvent(
        id=record.event_id,
        project_id=record.project_id,
        app_id=record.app_id,
        direction="TO_APP",
        mode=app.processing_mode,
        accepted_at=record.accepted_at,
        identity=record.identity,
        envelope=Envelope(identity_app_id=record.identity.app_id),
        kind="contact_event" if record.contact_event is not None else "contact_message_event",
        body=_encode(_event(record)),
        body_until=body_until(app, app.processing_mode, record.accepted_at),
        state="final",
        status=Status.RECEIVED,
        final_at=now,
    )


def _event(record: EventReceived) -> ContactEvent | ContactMessageEvent:
    event = record.contact_event or record.contact_message_event
    assert event is not None
    return event


async def _callbacks(context: RouterContext, record: EventReceived, app: App) -> list[Outgoing]:
    body = bodies.inbound_event(
        app_id=record.app_id,
        project_id=record.project_id,
        event_id=record.event_id,
        identity=record.identity,
        event=_event(record),
        accepted_at=record.accepted_at,
        event_at=record.event_at,
        mode=app.processing_mode,
    )
    webhooks = await context.configuration.webhooks(app.id)
    return context.publications.callbacks(
        Trigger.EVENT_INBOUND, record.event_id, record.project_id, app.id, record.event_at, body, webhooks
    )

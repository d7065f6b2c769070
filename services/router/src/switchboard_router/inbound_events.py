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
from switchboard.rules.retention import body_until
from switchboard.status import Status
from switchboard.store import events as store
from switchboard.store.events import Envelope, StoredEvent
from switchboard.store.pool import Connection
from switchboard.trigger import Trigger
from switchboard_router.context import RouterContext
from switchboard_router.people import Arrival, Beginning, Met, meet, tell_beginnings
from switchboard_router.recording import tell_stored_events

_encode: Final = msgspec.json.Encoder().encode


async def keep(
    context: RouterContext,
    connection: Connection,
    records: Sequence[EventReceived],
    apps: Mapping[AppId, App],
    now: datetime,
) -> list[Outgoing]:
    """Store what is new. Returns what is to be told: of all but events whose purged body says they were."""
    kept = await store.read(connection, {record.event_id for record in records})
    fresh = {record.event_id: record for record in records if record.event_id not in kept}
    met = await meet(
        connection,
        [Arrival(one.event_id, apps[one.app_id], one.identity, one.accepted_at) for one in fresh.values()],
        now,
    )
    new = [_stored(record, apps[record.app_id], met[record.event_id], now) for record in fresh.values()]
    await store.insert(connection, new)
    kept |= {event.id: event for event in new}
    told = [(record, kept[record.event_id]) for record in records if kept[record.event_id].body is not None]
    outgoing = await tell_beginnings(context, [_beginning(event) for _, event in told])
    outgoing += await tell_stored_events(context, [event for _, event in told])
    for record, event in told:
        outgoing += await _callbacks(context, record, event)
    return outgoing


def _stored(record: EventReceived, app: App, met: Met, now: datetime) -> StoredEvent:
    return StoredEvent(
        id=record.event_id,
        project_id=record.project_id,
        app_id=record.app_id,
        direction="TO_APP",
        mode=app.processing_mode,
        accepted_at=record.accepted_at,
        identity=record.identity,
        contact_id=met.contact_id or "",
        conversation_id=met.conversation_id or "",
        envelope=Envelope(
            identity_app_id=record.identity.app_id,
            correlation_id=met.correlation_id,
            makes_contact=met.makes_contact,
            starts_conversation=met.starts_conversation,
        ),
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


def _beginning(event: StoredEvent) -> Beginning:
    return Beginning(
        cause=event.id,
        project_id=event.project_id,
        app_id=event.app_id,
        at=event.accepted_at,
        identities=(event.identity,),
        contact_id=event.contact,
        makes_contact=event.envelope.makes_contact,
        starts_conversation=event.envelope.starts_conversation,
    )


async def _callbacks(context: RouterContext, record: EventReceived, event: StoredEvent) -> list[Outgoing]:
    body = bodies.inbound_event(
        app_id=event.app_id,
        project_id=event.project_id,
        event_id=event.id,
        identity=event.identity,
        event=_event(record),
        accepted_at=event.accepted_at,
        event_at=record.event_at,
        mode=event.mode,
        correlation_id=event.envelope.correlation_id,
        contact_id=event.contact_id,
        conversation_id=event.conversation_id,
    )
    webhooks = await context.configuration.webhooks(event.app_id)
    return context.publications.callbacks(
        Trigger.EVENT_INBOUND, event.id, event.project_id, event.app_id, record.event_at, body, webhooks
    )

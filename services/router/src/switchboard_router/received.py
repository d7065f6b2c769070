"""Messages from people: kept once, answered to what they answer, told to the app."""

from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from switchboard.bus import Outgoing
from switchboard.callbacks import bodies
from switchboard.configuration import App
from switchboard.ids import AppId, MessageId
from switchboard.records import MessageReceived
from switchboard.rules.retention import body_until
from switchboard.store import inbound as store
from switchboard.store import timeline
from switchboard.store.inbound import Inbound, InboundEnvelope
from switchboard.store.pool import Connection
from switchboard.timeline import Entry, Happening, Kind
from switchboard.trigger import Trigger
from switchboard_router import answering, consent
from switchboard_router.context import RouterContext
from switchboard_router.people import Arrival, Beginning, Met, meet, tell_beginnings
from switchboard_router.recording import Stored, tell_stored


async def keep_messages(
    context: RouterContext,
    connection: Connection,
    records: Sequence[MessageReceived],
    apps: Mapping[AppId, App],
    now: datetime,
) -> list[Outgoing]:
    """Store what is new. Returns what is to be told: of all but messages whose purged content says they were."""
    seen = await store.kept(connection, [record.message_id for record in records])
    new = [record for record in records if record.message_id not in seen]
    completed = await answering.complete(context, connection, new)
    met = await meet(
        connection,
        [Arrival(one.message_id, apps[one.app_id], one.identity, one.accepted_at) for one in new],
        now,
    )
    inbound = [_inbound(one, completed, apps[one.app_id], met[one.message_id]) for one in new]
    await store.insert(connection, inbound, now)
    await timeline.write(connection, [_happening(record, now) for record in new])
    told = {item.record.message_id: item for item in inbound}
    for record in records:
        before = seen.get(record.message_id)
        if before is not None and before.message is not None:
            as_kept = replace(record, message=before.message)
            until = body_until(apps[record.app_id], before.mode, record.accepted_at)
            told[record.message_id] = Inbound(
                as_kept, before.mode, before.envelope, until, before.contact_id, before.conversation_id
            )
    outgoing = await tell_beginnings(context, [_beginning(item) for item in told.values()])
    outgoing += await tell_stored(context, [_stored(item) for item in told.values() if item.body_until is not None])
    for item in told.values():
        outgoing += await _callbacks(context, item)
    wanted = [record for record in records if record.message_id in told]
    return outgoing + await consent.on_messages(
        context, connection, wanted, apps, now, {id: item.contact_id or "" for id, item in told.items()}
    )


def _inbound(
    record: MessageReceived, completed: Mapping[MessageId, answering.Completed], app: App, met: Met
) -> Inbound:
    as_told = completed.get(record.message_id, answering.Completed(record.message))
    envelope = InboundEnvelope(
        sender_id=record.sender_id,
        # In a reply the metadata is that of the message replied to (conversation-api 12.4).
        metadata=as_told.metadata or bodies.channel_metadata_text(record.channel_metadata),
        correlation_id=met.correlation_id,
        conversation_metadata=met.conversation_metadata,
        makes_contact=met.makes_contact,
        starts_conversation=met.starts_conversation,
    )
    until = body_until(app, app.processing_mode, record.accepted_at)
    kept = replace(record, message=as_told.message)
    return Inbound(kept, app.processing_mode, envelope, until, met.contact_id, met.conversation_id)


def _beginning(item: Inbound) -> Beginning:
    record = item.record
    return Beginning(
        cause=record.message_id,
        project_id=record.project_id,
        app_id=record.app_id,
        at=record.accepted_at,
        identities=(record.identity,),
        contact_id=item.contact_id,
        makes_contact=item.envelope.makes_contact,
        starts_conversation=item.envelope.starts_conversation,
    )


def _stored(item: Inbound) -> Stored:
    record = item.record
    return Stored(
        record.message_id,
        record.project_id,
        record.app_id,
        item.mode,
        record.accepted_at,
        record.identity,
        item.envelope.correlation_id,
        item.contact_id or "",
        item.conversation_id or "",
    )


async def _callbacks(context: RouterContext, item: Inbound) -> list[Outgoing]:
    record = item.record
    said = item.envelope.conversation_metadata
    webhooks = await context.configuration.webhooks(record.app_id)
    body = bodies.inbound_message(
        app_id=record.app_id,
        project_id=record.project_id,
        message_id=record.message_id,
        identity=record.identity,
        message=record.message,
        accepted_at=record.accepted_at,
        event_at=record.event_at,
        mode=item.mode,
        sender_id=item.envelope.sender_id,
        metadata=item.envelope.metadata,
        conversation_metadata=None if said is None else Raw(msgspec.json.encode(said)),
        correlation_id=item.envelope.correlation_id,
        contact_id=item.contact_id or "",
        conversation_id=item.conversation_id or "",
    )
    return context.publications.callbacks(
        Trigger.MESSAGE_INBOUND, record.message_id, record.project_id, record.app_id, record.event_at, body, webhooks
    )


def _happening(record: MessageReceived, now: datetime) -> Happening:
    return Happening(record.message_id, now, Kind.RECEIVED, "received", Entry(channel=record.identity.channel))

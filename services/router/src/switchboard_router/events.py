"""Events to people: one channel, one try, one report (conversation-api 4.6, 6.2).

An event is carried out at most once. It is DELIVERED when its channel took it, since nothing more is ever told about
it, and FAILED in every other case; what nobody tells anything about in time has failed.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, assert_never

import msgspec

from switchboard.bus import Outgoing
from switchboard.callbacks import bodies
from switchboard.channel.outcome import Accepted, Outcome
from switchboard.configuration import App
from switchboard.content import AppEvent
from switchboard.identity import ChannelIdentity, ChannelName
from switchboard.ids import AppId, MessageId, ProjectId, time_of
from switchboard.reason import Reason, ReasonCode
from switchboard.records import DispatchEvent, EventAccepted, EventFinished, EventOverdue, EventsRecord, ProcessingMode
from switchboard.rules.event import plan_event
from switchboard.rules.planning import NO_CONTACT
from switchboard.rules.progress import APP_GONE, INTERNAL_ERROR
from switchboard.rules.retention import body_until
from switchboard.status import Status
from switchboard.store import events as store
from switchboard.store.events import Envelope, StoredEvent
from switchboard.store.pool import Connection
from switchboard.trigger import Trigger
from switchboard_router.context import RouterContext
from switchboard_router.people import Beginning, tell_beginnings
from switchboard_router.persons import Person, find_people
from switchboard_router.recording import tell_stored_events

#: How long an adapter has to take an event.
TAKE_SECONDS: Final = 30
_NOT_TAKEN: Final = Reason(ReasonCode.CHANNEL_FAILURE, "No adapter took the event in time.")
_UNKNOWN: Final = Reason(ReasonCode.UNKNOWN, "It is not known whether the channel took the event.")
_NOBODY: Final = ChannelIdentity(ChannelName("CHANNEL_UNSPECIFIED"), "")

_encode: Final = msgspec.json.Encoder().encode
_event: Final = msgspec.json.Decoder(AppEvent)


async def plan(
    context: RouterContext,
    connection: Connection,
    records: Sequence[EventAccepted],
    apps: Mapping[AppId, App | None],
    now: datetime,
) -> list[Outgoing]:
    """Insert what is new; dispatch it, or end it where its channel cannot. Seen again, it leads to the same again."""
    known = await store.read(connection, {record.event_id for record in records})
    fresh = {record.event_id: record for record in records if record.event_id not in known}
    people = await find_people(context, connection, list(fresh.values()), apps)
    new = [_planned(context, one, apps.get(one.app_id), people.get(id), now) for id, one in fresh.items()]
    await store.insert(connection, new)
    known |= {event.id: event for event in new}
    outgoing = await tell_beginnings(context, [_beginning(known[record.event_id], record) for record in records])
    outgoing += await tell_stored_events(context, [known[record.event_id] for record in records])
    for record in records:
        outgoing += await _follow(context, known[record.event_id], apps.get(record.app_id))
    return outgoing


async def finish(context: RouterContext, connection: Connection, facts: Sequence[EventsRecord]) -> list[Outgoing]:
    """End events by what became of them. Returns their reports; seen again, the same reports."""
    locked = await store.read(connection, {fact.event_id for fact in facts}, lock=True)
    now: datetime = await connection.fetchval("SELECT switchboard.now()")
    ended: dict[MessageId, StoredEvent] = {}
    changed: list[StoredEvent] = []
    for fact in facts:
        event = locked.get(fact.event_id)
        if event is None:
            continue
        if event.state != "final":
            end = _end(event, fact, now)
            if end is None:
                continue
            event = msgspec.structs.replace(event, state="final", status=end[0], reason=end[1], final_at=now)
            locked[event.id] = event
            changed.append(event)
        ended[event.id] = event
    await store.end(connection, [(event.id, event.status, event.reason) for event in changed], now)
    outgoing: list[Outgoing] = []
    for event in ended.values():
        outgoing += await report(context, event)
    return outgoing


async def fail_unplanned(
    context: RouterContext, connection: Connection, event_id: MessageId, project_id: str, app_id: str, now: datetime
) -> list[Outgoing]:
    """End an event whose record cannot be handled: it begins and ends here."""
    known = await store.read(connection, {event_id}, lock=True)
    if event_id in known:
        event = known[event_id]
        if event.state != "final":
            await store.end(connection, [(event_id, Status.FAILED, INTERNAL_ERROR)], now)
            event = msgspec.structs.replace(
                event, state="final", status=Status.FAILED, reason=INTERNAL_ERROR, final_at=now
            )
        return await report(context, event)
    event = StoredEvent(
        id=event_id,
        project_id=ProjectId(project_id),
        app_id=AppId(app_id),
        mode=ProcessingMode.DISPATCH,
        accepted_at=time_of(event_id),
        identity=_NOBODY,
        kind="app_event",
        body=None,
        body_until=None,
        state="final",
        status=Status.FAILED,
        reason=INTERNAL_ERROR,
        final_at=now,
    )
    await store.insert(connection, [event])
    return await report(context, event)


async def report(context: RouterContext, event: StoredEvent) -> list[Outgoing]:
    """EVENT_DELIVERY of an event that ended."""
    event_at = event.final_at or event.accepted_at
    body = bodies.event_delivery_report(
        app_id=event.app_id,
        project_id=event.project_id,
        event_id=event.id,
        status=event.status,
        identity=event.identity,
        accepted_at=event.accepted_at,
        event_at=event_at,
        mode=event.mode,
        reason=event.reason,
        metadata=event.envelope.metadata,
        contact_id=event.contact_id,
    )
    webhooks = await context.configuration.webhooks(event.app_id)
    return context.publications.callbacks(
        Trigger.EVENT_DELIVERY, event.id, event.project_id, event.app_id, event_at, body, webhooks,
        callback_url=event.envelope.callback_url,
    )  # fmt: skip


def _planned(
    context: RouterContext,
    record: EventAccepted,
    app: App | None,
    person: Person | None,
    now: datetime,
) -> StoredEvent:
    refused: Reason | None
    if app is None or app.project_id != record.project_id:
        identity, refused = (record.identities or (_NOBODY,))[0], APP_GONE
    elif person is None and record.contact_id is not None:
        identity, refused = _NOBODY, NO_CONTACT
    else:
        planned = plan_event(
            record.event,
            record.identities if person is None else person.identities,
            record.channel_priority_order,
            context.configuration.account_keys(app),
            context.manifests,
        )
        identity, refused = planned.identity or _NOBODY, planned.refused
    return StoredEvent(
        id=record.event_id,
        project_id=record.project_id,
        app_id=record.app_id,
        mode=record.mode,
        accepted_at=record.accepted_at,
        identity=identity,
        contact_id=record.contact_id or "" if person is None else person.contact_id,
        conversation_id="" if person is None else person.conversation_id,
        envelope=Envelope(
            metadata=record.metadata,
            callback_url=record.callback_url,
            identity_app_id=identity.app_id,
            makes_contact=person is not None and person.makes_contact,
            starts_conversation=person is not None and person.starts_conversation,
        ),
        kind="app_event",
        body=_encode(record.event),
        body_until=None if app is None else body_until(app, record.mode, record.accepted_at),
        state="planned" if refused is None else "final",
        status=Status.QUEUED if refused is None else Status.FAILED,
        reason=refused,
        due_at=now + timedelta(seconds=TAKE_SECONDS) if refused is None else None,
        final_at=None if refused is None else now,
    )


def _beginning(event: StoredEvent, record: EventAccepted) -> Beginning:
    return Beginning(
        cause=event.id,
        project_id=event.project_id,
        app_id=event.app_id,
        at=event.accepted_at,
        identities=record.identities,
        contact_id=event.contact,
        makes_contact=event.envelope.makes_contact,
        starts_conversation=event.envelope.starts_conversation,
    )


async def _follow(context: RouterContext, event: StoredEvent, app: App | None) -> list[Outgoing]:
    """What a planned event leads to, as it is now."""
    if event.state == "final":
        return await report(context, event)
    account = None if app is None else context.configuration.account_key(app, event.identity.channel)
    if event.state != "planned" or event.body is None or event.due_at is None or account is None:
        return []
    order = DispatchEvent(
        event_id=event.id,
        app_id=event.app_id,
        account=account,
        identity=event.identity,
        event=_event.decode(event.body),
        send_before=event.due_at,
    )
    return [context.publications.order(order)]


def _end(event: StoredEvent, fact: EventsRecord, now: datetime) -> tuple[Status, Reason | None] | None:
    match fact:
        case EventFinished(outcome=outcome):
            return _judge(outcome)
        case EventOverdue():
            if event.due_at is None or event.due_at > now:
                return None
            return Status.FAILED, _NOT_TAKEN if event.state == "planned" else _UNKNOWN
        case _:
            assert_never(fact)


def _judge(outcome: Outcome) -> tuple[Status, Reason | None]:
    if isinstance(outcome, Accepted):
        return Status.DELIVERED, None
    return Status.FAILED, outcome.reason

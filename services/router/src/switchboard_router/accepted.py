"""`router.accepted`: a message was accepted, so plan its route and dispatch its first attempt."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

import msgspec
import structlog
from msgspec import Struct
from msgspec.structs import replace
from prometheus_client import Counter

from switchboard.bus import Record
from switchboard.configuration import App
from switchboard.crash import crash_point
from switchboard.ids import AppId
from switchboard.records import MessageAccepted, ProcessingMode
from switchboard.rules.facts import start
from switchboard.rules.planning import NO_CONTACT, route_of, ways_of
from switchboard.rules.progress import APP_GONE, OnUnknown, Policy
from switchboard.rules.recipient import Ways
from switchboard.rules.retention import body_until
from switchboard.rules.route import Candidate, Route
from switchboard.store import messages as store
from switchboard.store.barring import Barred, Recipient, barred
from switchboard.store.contacts import Matched
from switchboard.store.conversations import Joined
from switchboard.store.messages import Envelope, Message
from switchboard.store.pool import Connection
from switchboard.store.writes import Writes
from switchboard.timeline import Entry, Kind
from switchboard.topics import MESSAGES_ACCEPTED
from switchboard_router.asked import carry_on
from switchboard_router.carrying_out import Decided, Output, carry_out, carry_out_unlocked, lock_lanes_of, publish
from switchboard_router.context import RouterContext
from switchboard_router.people import (
    NOBODY,
    Beginning,
    Recipients,
    join_recipients,
    keep_for_replies,
    recipients_of,
    tell_beginnings,
)
from switchboard_router.reading import decode_all
from switchboard_router.recording import tell_stored_messages
from switchboard_router.replay import replay

#: The cause of everything that planning a message led to.
CAUSE: Final = "accepted"
#: An older record's rows may have been dropped already: planning it again could send it twice (DESIGN 5).
OLDEST: Final = timedelta(days=4)

_encode: Final = msgspec.json.Encoder().encode
_too_old: Final = Counter("switchboard_accepted_too_old", "Accepted messages refused because they are over 4 days old.")
log = structlog.get_logger()


#: The apps of a batch; None where there is no such app any more.
Apps = Mapping[AppId, App | None]


class Tried(Struct, frozen=True):
    """Whom a message goes to, and where it is tried in which order."""

    #: None in dispatch mode, or if there is no such contact.
    contact: Matched | None
    ways: Ways


class OnAccepted:
    """Plans batches of accepted messages."""

    def __init__(self, context: RouterContext) -> None:
        self._context = context

    async def __call__(self, records: Sequence[Record]) -> None:
        """Plan the messages of these records: rows first, then what they lead to, published."""
        with decode_all(MESSAGES_ACCEPTED, records) as accepted:
            others = [record for record in accepted if not isinstance(record, MessageAccepted)]
            messages = [record for record in accepted if isinstance(record, MessageAccepted)]
            outputs = await self._plan_all(messages) if messages else []
            crash_point("router.after_commit")
            await self._tell_of_rows(outputs)
            await publish(self._context, outputs)
            if others:
                await carry_on(self._context, others)
            crash_point("router.after_publish")

    async def _plan_all(self, accepted: Sequence[MessageAccepted]) -> list[Output]:
        apps = {record.app_id: await self._context.configuration.app(record.app_id) for record in accepted}
        async with self._context.connection() as connection:
            seen, now = await store.known(connection, [record.message_id for record in accepted])
            fresh = [record for record in accepted if not _is_too_old(record, now)]
            unseen = [record for record in fresh if record.message_id not in seen]
            # What was planned before goes out before what is planned now.
            again = await replay(
                connection, [(id, CAUSE) for id in seen.intersection(record.message_id for record in fresh)], now
            )
            return again + (await self._plan_new(connection, unseen, apps, now) if unseen else [])

    async def _plan_new(
        self, connection: Connection, unseen: Sequence[MessageAccepted], apps: Apps, now: datetime
    ) -> list[Output]:
        writes = Writes()
        keep_for_replies(writes, unseen, apps)
        if all(one.mode is ProcessingMode.DISPATCH for one in unseen):
            new = await self._planned(connection, unseen, apps, NOBODY, now)
            outputs = await carry_out_unlocked(self._context, connection, new, now, looks=None, writes=writes)
            if outputs is not None:
                return outputs
            async with connection.transaction():
                pacing, lanes = await lock_lanes_of(self._context, connection, new, now)
                return await carry_out(self._context, connection, pacing, lanes, new, now, looks=None, writes=writes)
        async with connection.transaction():
            recipients = await recipients_of(connection, [one for one in unseen if apps[one.app_id] is not None])
            new = await self._planned(connection, unseen, apps, recipients, now)
            pacing, lanes = await lock_lanes_of(self._context, connection, new, now)
            joined = await join_recipients(connection, unseen, recipients)
            new = [_in_conversation(item, joined.get(item.message.id)) for item in new]
            return await carry_out(self._context, connection, pacing, lanes, new, now, looks=None, writes=writes)

    async def _planned(
        self,
        connection: Connection,
        unseen: Sequence[MessageAccepted],
        apps: Apps,
        recipients: Recipients,
        now: datetime,
    ) -> list[Decided]:
        tried = {one.message_id: self._tried(one, apps[one.app_id], recipients) for one in unseen}
        known = [(one, app) for one in unseen if (app := apps[one.app_id]) is not None]
        bars = await barred(
            connection,
            [Recipient(one, app, tried[one.message_id].ways.identities) for one, app in known],
            self._context.manifests,
        )
        return [
            self._plan(one, apps[one.app_id], now, bars.get(one.message_id, {}), tried[one.message_id])
            for one in unseen
        ]

    async def _tell_of_rows(self, outputs: Sequence[Output]) -> None:
        told = await tell_beginnings(self._context, [begun for output in outputs for begun in _begun(output.message)])
        told += await tell_stored_messages(self._context, [output.message for output in outputs])
        if told:
            await self._context.producer.publish(told)

    def _tried(self, record: MessageAccepted, app: App | None, recipients: Recipients) -> Tried:
        matched = recipients.found.get(record.message_id)
        if app is None or record.contact_id is None or matched is None or matched.contact is None:
            return Tried(matched, Ways(record.identities, record.channel_priority_order))
        active_channel = recipients.active_channels.get((app.id, matched.contact_id), "")
        return Tried(matched, ways_of(record, app, matched.contact, active_channel, self._context.manifests))

    def _plan(self, record: MessageAccepted, app: App | None, now: datetime, bars: Barred, tried: Tried) -> Decided:
        route = self._route(record, app, bars, tried)
        decision = start(route, record.accepted_at, record.ttl_seconds, now)
        message = Message(
            id=record.message_id,
            project_id=record.project_id,
            app_id=record.app_id,
            mode=record.mode,
            accepted_at=record.accepted_at,
            high_priority=record.high_priority,
            envelope=_envelope(record, app, tried),
            route=route,
            progress=decision.progress,
            body=_encode(record.message),
            body_until=None if app is None else body_until(app, record.mode, record.accepted_at),
            contact_id=record.contact_id if tried.contact is None else tried.contact.contact_id,
        )
        entry = Entry(traceparent=record.traceparent, candidates=_worth_telling(route))
        return Decided(message, decision, Kind.PLANNED, CAUSE, entry)

    def _route(self, record: MessageAccepted, app: App | None, bars: Barred, tried: Tried) -> Route:
        if app is None or app.project_id != record.project_id:
            return Route((), empty_because=APP_GONE)
        if record.contact_id is not None and tried.contact is None:
            return Route((), empty_because=NO_CONTACT)
        accounts = self._context.configuration.account_keys(app)
        return route_of(record, app, tried.ways, accounts, self._context.manifests, bars)


def _worth_telling(route: Route) -> tuple[Candidate, ...]:
    """A route's candidates. That the only one is tried says nothing, and most messages have but one."""
    return () if len(route.candidates) == len(route.steps) == 1 else route.candidates


def _in_conversation(item: Decided, joined: Joined | None) -> Decided:
    if joined is None:
        return item
    envelope = replace(item.message.envelope, starts_conversation=joined.is_new)
    return replace(item, message=replace(item.message, envelope=envelope, conversation_id=joined.conversation.id))


def _begun(message: Message) -> Iterator[Beginning]:
    envelope = message.envelope
    if envelope.makes_contact or envelope.starts_conversation:
        yield Beginning(
            cause=message.id,
            project_id=message.project_id,
            app_id=message.app_id,
            at=message.accepted_at,
            identities=envelope.identities,
            contact_id=message.contact_id,
            makes_contact=envelope.makes_contact,
            starts_conversation=envelope.starts_conversation,
        )


def _envelope(record: MessageAccepted, app: App | None, tried: Tried) -> Envelope:
    return Envelope(
        identities=record.identities,
        metadata=record.metadata,
        correlation_id=record.correlation_id,
        callback_url=record.callback_url,
        channel_properties=record.channel_properties,
        policy=_policy(record, app),
        content_type=record.content_type,
        is_confirmation=record.is_confirmation,
        makes_contact=tried.contact is not None and tried.contact.is_new,
    )


def _policy(record: MessageAccepted, app: App | None) -> Policy:
    if app is None:
        return Policy(on_unknown=record.on_unknown or OnUnknown.FAIL)
    return Policy(app.message_retry_settings.retry_duration, record.on_unknown or app.on_unknown)


def _is_too_old(record: MessageAccepted, now: datetime) -> bool:
    if now - record.accepted_at <= OLDEST:
        return False
    _too_old.inc()
    log.error("an accepted message is too old to be planned", message_id=record.message_id)
    return True

"""What channels tell besides messages and events: opt-ins and opt-outs, the unmapped, news of an account."""

from collections.abc import Iterator, Mapping, Sequence
from typing import assert_never

import msgspec
from msgspec import Raw

from switchboard.bus import Outgoing
from switchboard.callbacks import bodies
from switchboard.callbacks.bodies import ChannelEventNotification, UnsupportedCallback
from switchboard.configuration import App
from switchboard.ids import AppId, MessageId
from switchboard.records import ChannelEvent, OptInReceived, OptOutReceived, ProcessingMode, UnsupportedReceived
from switchboard.rules.consent import ConsentList
from switchboard.store import consents as store
from switchboard.store import contacts
from switchboard.store.consents import Change, Origin
from switchboard.store.contacts import Addressed, Matched, created_by
from switchboard.store.pool import Connection
from switchboard.trigger import Trigger
from switchboard_router import consent
from switchboard_router.context import RouterContext
from switchboard_router.people import Beginning, tell_beginnings

Fact = OptOutReceived | OptInReceived | UnsupportedReceived | ChannelEvent


async def keep(
    context: RouterContext, connection: Connection, facts: Sequence[Fact], apps: Mapping[AppId, App]
) -> list[Outgoing]:
    """Change consent as channels say, and tell the apps. All of it is the same when a fact is seen again."""
    known = await contacts.match(connection, list(_addressed(facts, apps)))
    changes: list[Change] = []
    outgoing = await tell_beginnings(context, list(_beginnings(facts, known)))
    for fact in facts:
        app = apps[fact.app_id]
        matched = known.get(_id(fact))
        contact_id = "" if matched is None else matched.contact_id
        match fact:
            case OptOutReceived():
                changes += _change(fact, app, fact.opt_out_id, leaves=True)
                outgoing += await consent.callbacks(
                    context, app, fact.identity, False,
                    near=fact.opt_out_id, accepted_at=fact.accepted_at, event_at=fact.event_at, contact_id=contact_id,
                )  # fmt: skip
            case OptInReceived():
                changes += _change(fact, app, fact.opt_in_id, leaves=False)
                outgoing += await consent.callbacks(
                    context, app, fact.identity, True,
                    near=fact.opt_in_id, accepted_at=fact.accepted_at, event_at=fact.event_at, contact_id=contact_id,
                )  # fmt: skip
            case UnsupportedReceived():
                outgoing += await _unsupported(context, app, fact, contact_id)
            case ChannelEvent():
                outgoing += await _channel_event(context, app, fact)
            case _:
                assert_never(fact)
    await store.change(connection, changes)
    return outgoing


def _id(fact: Fact) -> MessageId:
    match fact:
        case OptOutReceived():
            return fact.opt_out_id
        case OptInReceived():
            return fact.opt_in_id
        case UnsupportedReceived():
            return fact.unsupported_id
        case ChannelEvent():
            return fact.channel_event_id
        case _:
            assert_never(fact)


def _addressed(facts: Sequence[Fact], apps: Mapping[AppId, App]) -> Iterator[Addressed]:
    """The people of facts, in CONVERSATION mode. Who leaves or comes back becomes a contact, as who writes does."""
    for fact in facts:
        if isinstance(fact, ChannelEvent) or apps[fact.app_id].processing_mode is not ProcessingMode.CONVERSATION:
            continue
        if fact.identity.identity:
            creates = not isinstance(fact, UnsupportedReceived)
            yield Addressed(_id(fact), fact.project_id, (fact.identity,), creates=creates)


def _beginnings(facts: Sequence[Fact], known: Mapping[str, Matched]) -> Iterator[Beginning]:
    """The contacts that facts made, now or when they were seen before."""
    for fact in facts:
        matched = known.get(_id(fact))
        if isinstance(fact, ChannelEvent) or matched is None:
            continue
        if matched.contact_id == created_by(_id(fact), (fact.identity,)).id:
            yield Beginning(
                cause=_id(fact),
                project_id=fact.project_id,
                app_id=fact.app_id,
                at=fact.accepted_at,
                identities=(fact.identity,),
                contact_id=matched.contact_id,
                makes_contact=True,
                starts_conversation=False,
            )


def _change(fact: OptOutReceived | OptInReceived, app: App, cause: str, *, leaves: bool) -> list[Change]:
    """Who leaves or comes back on the channel itself does so for all messages. Nothing where consent is off."""
    if not app.consent.is_on:
        return []
    return [
        Change(
            app_id=app.id,
            project_id=app.project_id,
            identity=fact.identity.identity,
            list_type=ConsentList.OPT_OUT_ALL,
            leaves=leaves,
            origin=Origin.ORIGIN_MO,
            cause=cause,
            at=fact.accepted_at,
        )
    ]


async def _unsupported(context: RouterContext, app: App, fact: UnsupportedReceived, contact_id: str) -> list[Outgoing]:
    payload = UnsupportedCallback(
        channel=fact.identity.channel,
        payload=fact.payload,
        processing_mode=app.processing_mode,
        id=fact.unsupported_id,
        contact_id=contact_id,
        channel_identity=fact.identity,
    )
    body = bodies.body(
        Trigger.UNSUPPORTED, payload,
        app_id=app.id, project_id=app.project_id, accepted_at=fact.accepted_at, event_at=fact.event_at,
    )  # fmt: skip
    webhooks = await context.configuration.webhooks(app.id)
    return context.publications.callbacks(
        Trigger.UNSUPPORTED, fact.unsupported_id, app.project_id, app.id, fact.event_at, body, webhooks
    )


async def _channel_event(context: RouterContext, app: App, fact: ChannelEvent) -> list[Outgoing]:
    event = bodies.ChannelEvent(
        channel=fact.channel,
        event_type=fact.event_type,
        additional_data=Raw(msgspec.json.encode(fact.additional_data)),
    )
    body = bodies.body(
        Trigger.CHANNEL_EVENT, ChannelEventNotification(channel_event=event),
        app_id=app.id, project_id=app.project_id, accepted_at=fact.accepted_at, event_at=fact.event_at,
    )  # fmt: skip
    webhooks = await context.configuration.webhooks(app.id)
    return context.publications.callbacks(
        Trigger.CHANNEL_EVENT, fact.channel_event_id, app.project_id, app.id, fact.event_at, body, webhooks
    )

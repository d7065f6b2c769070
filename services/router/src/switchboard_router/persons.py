"""Whom events and questions are about, in CONVERSATION mode: contacts, their identities, their conversations."""

from collections.abc import Mapping, Sequence

from msgspec import Struct

from switchboard.configuration import App
from switchboard.identity import ChannelIdentity
from switchboard.ids import AppId, MessageId
from switchboard.records import CapabilityAsked, EventAccepted, ProcessingMode
from switchboard.rules.planning import usable_channels
from switchboard.rules.recipient import contact_ways, identities_for
from switchboard.store import contacts, conversations
from switchboard.store.contacts import Addressed, Matched
from switchboard.store.conversations import Exchange
from switchboard.store.pool import Connection
from switchboard_router.context import RouterContext


class Person(Struct, frozen=True):
    """A contact, and where they can be reached."""

    contact_id: str
    #: Those given, else the contact's in the order of its route.
    identities: Sequence[ChannelIdentity]
    conversation_id: str = ""
    makes_contact: bool = False
    starts_conversation: bool = False


async def find_people(
    context: RouterContext, connection: Connection, records: Sequence[EventAccepted], apps: Mapping[AppId, App | None]
) -> dict[MessageId, Person]:
    """Whom events are for, made where they are not known, and their conversations. Empty for dispatch mode."""
    talks = [one for one in records if one.mode is ProcessingMode.CONVERSATION and apps.get(one.app_id) is not None]
    if not talks:
        return {}
    found = await contacts.match(
        connection, [Addressed(one.event_id, one.project_id, one.identities, one.contact_id) for one in talks]
    )
    talks = [one for one in talks if one.event_id in found]
    pairs = {(one.app_id, found[one.event_id].contact_id) for one in talks if one.contact_id is not None}
    active = await conversations.active_channels(connection, pairs)
    joined = await conversations.join(
        connection,
        [
            Exchange(one.event_id, one.project_id, one.app_id, found[one.event_id].contact_id, one.accepted_at)
            for one in talks
        ],
    )
    people = {}
    for one in talks:
        matched = found[one.event_id]
        channel = active.get((one.app_id, matched.contact_id), "")
        people[one.event_id] = Person(
            matched.contact_id,
            _identities(context, one.identities, matched, apps[one.app_id], channel),
            joined[one.event_id].conversation.id,
            matched.is_new,
            joined[one.event_id].is_new,
        )
    return people


async def find_asked(
    context: RouterContext, connection: Connection, queries: Sequence[CapabilityAsked], apps: Mapping[AppId, App | None]
) -> dict[MessageId, Person]:
    """Whom questions in CONVERSATION mode are about, on all their channels. Nobody is made for a question."""
    talks = [one for one in queries if one.mode is ProcessingMode.CONVERSATION and apps.get(one.app_id) is not None]
    found = await contacts.match(
        connection,
        [Addressed(one.query_id, one.project_id, one.identities, one.contact_id, creates=False) for one in talks],
    )
    return {one.query_id: _asked(one, found[one.query_id]) for one in talks if one.query_id in found}


def _asked(query: CapabilityAsked, matched: Matched) -> Person:
    if matched.contact is None:
        return Person(matched.contact_id, query.identities)
    return Person(matched.contact_id, tuple(identities_for(matched.contact, query.app_id).values()))


def _identities(
    context: RouterContext, given: Sequence[ChannelIdentity], matched: Matched, app: App | None, active_channel: str
) -> Sequence[ChannelIdentity]:
    if given or matched.contact is None or app is None:
        return given
    usable = usable_channels(app, context.manifests)
    return contact_ways(matched.contact, app.id, (), active_channel, usable).identities

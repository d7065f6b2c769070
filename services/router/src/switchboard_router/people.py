"""Whom a message is for or from, and what begins with it: contacts and conversations (conversation-api 4.4, 4.5, 12).

In CONVERSATION mode a message finds or makes its contact, and joins or starts the active conversation. In dispatch
mode there is neither; what a reply brings back is kept for each identity.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from msgspec import Struct

from switchboard.bus import Outgoing
from switchboard.callbacks import bodies
from switchboard.callbacks.bodies import ContactNotification, ConversationNotification
from switchboard.channel.outcome import Accepted, PartlyAccepted
from switchboard.configuration import App
from switchboard.configuration.app import ReportView
from switchboard.contact import Contact
from switchboard.conversation import Conversation
from switchboard.identity import ChannelIdentity, ChannelName
from switchboard.ids import AppId, ContactId, ConversationId, MessageId, ProjectId
from switchboard.records import AttemptFinished, AttemptsRecord, MessageAccepted, ProcessingMode
from switchboard.rules.retention import body_until
from switchboard.store import contacts, conversations, reply_contexts
from switchboard.store.contacts import Addressed, Matched, created_by
from switchboard.store.conversations import Exchange, Joined, started_by
from switchboard.store.messages import Message
from switchboard.store.pool import Connection
from switchboard.store.reply_contexts import Kept, ReplyContext
from switchboard.store.writes import Writes
from switchboard.trigger import Trigger
from switchboard_router.context import RouterContext


class Recipients(Struct, frozen=True):
    """Whom a batch of messages in CONVERSATION mode is for."""

    #: By message. Who is not there is a contact that does not exist.
    found: Mapping[str, Matched]
    #: The active channels of conversations with contacts that were named by their id.
    active_channels: Mapping[tuple[AppId, ContactId], str]


#: Of a batch in dispatch mode.
NOBODY: Final = Recipients({}, {})


async def recipients_of(connection: Connection, records: Sequence[MessageAccepted]) -> Recipients:
    """Find whom messages in CONVERSATION mode are for, and make those who are not known; before lanes are locked."""
    talks = [record for record in records if record.mode is ProcessingMode.CONVERSATION]
    if not talks:
        return NOBODY
    found = await contacts.match(
        connection,
        [Addressed(record.message_id, record.project_id, record.identities, record.contact_id) for record in talks],
    )
    by_id = {
        (record.app_id, record.contact_id)
        for record in talks
        if record.contact_id is not None and record.message_id in found and not record.channel_priority_order
    }
    return Recipients(found, await conversations.active_channels(connection, by_id))


async def join_recipients(
    connection: Connection, records: Iterable[MessageAccepted], recipients: Recipients
) -> dict[str, Joined]:
    """Put messages into their conversations, by message; after lanes are locked and before messages are written."""
    return await conversations.join(
        connection,
        [
            Exchange(
                cause=record.message_id,
                project_id=record.project_id,
                app_id=record.app_id,
                contact_id=recipients.found[record.message_id].contact_id,
                at=record.accepted_at,
                correlation_id=record.correlation_id,
                metadata=record.conversation_metadata,
                patches=record.patches_metadata,
            )
            for record in records
            if record.message_id in recipients.found
        ],
    )


def taken_by(
    facts: Iterable[AttemptsRecord], messages: Mapping[MessageId, Message]
) -> list[tuple[ConversationId, ChannelName, datetime]]:
    """Which channels took messages of conversations, and when, as these facts say."""
    taken = []
    for fact in facts:
        message = messages.get(fact.message_id)
        if message is None or message.conversation_id is None or not isinstance(fact, AttemptFinished):
            continue
        if isinstance(fact.outcome, Accepted | PartlyAccepted) and fact.step < len(message.route.steps):
            channel = message.route.steps[fact.step].channel
            taken.append((message.conversation_id, channel, fact.finished_at))
    return taken


def keep_for_replies(writes: Writes, records: Iterable[MessageAccepted], apps: Mapping[AppId, App | None]) -> None:
    """Keep what replies to messages in dispatch mode bring back, as long as the app keeps messages."""
    kept = []
    for record in records:
        app = apps[record.app_id]
        if app is None or record.mode is not ProcessingMode.DISPATCH:
            continue
        if not record.correlation_id and record.conversation_metadata is None:
            continue
        until = body_until(app, record.mode, record.accepted_at)
        if until is not None:
            context = ReplyContext(record.correlation_id, record.conversation_metadata)
            kept.append(Kept(record.app_id, record.identities, context, until))
    reply_contexts.keep(writes, kept)


class Arrival(Struct, frozen=True):
    """A message or event that came from a person."""

    #: Its id.
    cause: MessageId
    app: App
    identity: ChannelIdentity
    at: datetime


class Met(Struct, frozen=True):
    """Who something came from. All of it is absent for strangers in dispatch mode."""

    contact_id: ContactId | None = None
    conversation_id: ConversationId | None = None
    makes_contact: bool = False
    starts_conversation: bool = False
    #: The latest of the conversation, or of the identity.
    correlation_id: str = ""
    #: The same, where the app's callbacks show it (report view FULL).
    conversation_metadata: dict[str, Any] | None = None


async def meet(connection: Connection, arrivals: Sequence[Arrival], now: datetime) -> dict[str, Met]:
    """Find whom things came from, by cause: contacts and conversations are made and started where there is none."""
    talks = [item for item in arrivals if item.app.processing_mode is ProcessingMode.CONVERSATION]
    met: dict[str, Met] = {}
    if talks:
        found = await contacts.match(
            connection, [Addressed(item.cause, item.app.project_id, (item.identity,)) for item in talks]
        )
        joined = await conversations.join(connection, [_exchange(item, found[item.cause]) for item in talks])
        for item in talks:
            conversation = joined[item.cause].conversation
            met[item.cause] = Met(
                found[item.cause].contact_id,
                conversation.id,
                found[item.cause].is_new,
                joined[item.cause].is_new,
                conversation.correlation_id,
                conversation.metadata_json if _shows_metadata(item.app) else None,
            )
    remembers = [item for item in arrivals if item.cause not in met and item.app.dispatch_retention_policy.ttl_days]
    contexts = await reply_contexts.recall(connection, {(item.app.id, item.identity) for item in remembers}, now)
    for item in remembers:
        context = contexts.get((item.app.id, item.identity), ReplyContext())
        metadata = context.metadata if _shows_metadata(item.app) else None
        met[item.cause] = Met(correlation_id=context.correlation_id, conversation_metadata=metadata)
    return {item.cause: met.get(item.cause, Met()) for item in arrivals}


def _exchange(item: Arrival, matched: Matched) -> Exchange:
    return Exchange(
        item.cause, item.app.project_id, item.app.id, matched.contact_id, item.at, channel=item.identity.channel
    )


def _shows_metadata(app: App) -> bool:
    return app.conversation_metadata_report_view is ReportView.FULL


class Beginning(Struct, frozen=True):
    """What a message or event began. Made again from what is stored of it, so a replay tells the same."""

    cause: str
    project_id: ProjectId
    app_id: AppId
    at: datetime
    #: As it addressed the contact it made.
    identities: tuple[ChannelIdentity, ...]
    contact_id: ContactId | None
    makes_contact: bool
    starts_conversation: bool


async def tell_beginnings(context: RouterContext, beginnings: Iterable[Beginning]) -> list[Outgoing]:
    """CONTACT_CREATE and CONVERSATION_START of what messages began."""
    told: list[Outgoing] = []
    for item in beginnings:
        if item.makes_contact:
            contact = created_by(item.cause, item.identities)
            told += await contact_callbacks(
                context, Trigger.CONTACT_CREATE, ContactNotification(contact=contact), contact,
                item.project_id, item.at, sequence=1, near=item.cause,
            )  # fmt: skip
        if item.starts_conversation and item.contact_id is not None:
            told += await conversation_callbacks(
                context, Trigger.CONVERSATION_START, started_by(item.cause, item.app_id, item.contact_id),
                item.project_id, item.at, sequence=1, near=item.cause,
            )  # fmt: skip
    return told


async def contact_callbacks(
    context: RouterContext,
    trigger: Trigger,
    payload: bodies.Payload,
    contact: Contact,
    project_id: ProjectId,
    at: datetime,
    *,
    sequence: int,
    near: str,
) -> list[Outgoing]:
    """A fact about a contact, for every app of the project that has contacts: contacts belong to the project."""
    body = bodies.body(trigger, payload, app_id="", project_id=project_id, accepted_at=at, event_at=at)
    told: list[Outgoing] = []
    for app in await context.configuration.apps(project_id):
        if app.processing_mode is ProcessingMode.CONVERSATION:
            webhooks = await context.configuration.webhooks(app.id)
            told += context.publications.callbacks(
                trigger, contact.id, project_id, app.id, at, body, webhooks, sequence=sequence, near=near
            )
    return told


async def conversation_callbacks(
    context: RouterContext,
    trigger: Trigger,
    conversation: Conversation,
    project_id: ProjectId,
    at: datetime,
    *,
    sequence: int,
    near: str,
) -> list[Outgoing]:
    """A fact about a conversation, for its app."""
    payload = ConversationNotification(conversation=conversation)
    body = bodies.body(trigger, payload, app_id=conversation.app_id, project_id=project_id, accepted_at=at, event_at=at)
    webhooks = await context.configuration.webhooks(conversation.app_id)
    return context.publications.callbacks(
        trigger, conversation.id, project_id, conversation.app_id, at, body, webhooks, sequence=sequence, near=near
    )

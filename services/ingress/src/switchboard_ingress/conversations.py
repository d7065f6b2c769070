"""Conversations: made, read, changed, stopped, deleted, and what is put into them (conversation-api 4.5)."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, Final

import asyncpg
import msgspec
from msgspec import Struct
from msgspec.structs import replace

from switchboard.callbacks.compact import timestamp
from switchboard.channel.manifest import Manifest
from switchboard.configuration import App, Configuration
from switchboard.content import ContactMessage
from switchboard.conversation import Conversation
from switchboard.identity import CONTRACT_CHANNELS, ChannelName
from switchboard.ids import AppId, ContactId, ConversationId, MessageId, ProjectId, mint
from switchboard.records import (
    ConversationDeleted,
    ConversationStarted,
    ConversationStopped,
    ProcessingMode,
)
from switchboard.rules.recipient import merge_patch
from switchboard.rules.retention import body_until
from switchboard.store import contacts, injected
from switchboard.store import conversations as store
from switchboard.store.conversations import Locked
from switchboard.validation import Violation, validate, validate_event
from switchboard_ingress.body import Body
from switchboard_ingress.checks import (
    MAX_CONVERSATION_METADATA,
    MAX_CORRELATION_ID,
    MAX_IDENTITY,
    MAX_METADATA,
    at_most,
    check_id,
    check_identity,
    json_at_most,
)
from switchboard_ingress.contacts import no_such_contact
from switchboard_ingress.errors import BadRequest, NotFound
from switchboard_ingress.messages import ConversationMessage, Messages, read_flag, read_moment
from switchboard_ingress.paging import PageTokens, page_size
from switchboard_ingress.patching import patched
from switchboard_ingress.requests import (
    ContactIdentity,
    ConversationInput,
    InjectEventRequest,
    InjectMessageRequest,
    MetadataStrategy,
)
from switchboard_ingress.writing import Writer, Writing

MOST_A_PAGE: Final = 20
MOST_RECENT: Final = 50
#: How often a write may meet another that makes a conversation of the same app and contact active.
_TRIES: Final = 10
UNSPECIFIED: Final = "CHANNEL_UNSPECIFIED"
FIELDS: Final = Conversation.__struct_fields__

_body: Final = Body(ConversationInput)
_message: Final = Body(InjectMessageRequest)
_event: Final = Body(InjectEventRequest)
_encode: Final = msgspec.json.Encoder().encode


class ConversationList(Struct, frozen=True):
    conversations: list[Conversation]
    next_page_token: str
    total_size: int


class RecentConversation(Struct, frozen=True):
    conversation: Conversation
    #: None: its content is not kept any more.
    last_message: ConversationMessage | None


class RecentList(Struct, frozen=True):
    conversations: list[RecentConversation]
    next_page_token: str
    total_size: int


class InjectedEvent(Struct, frozen=True):
    event_id: str
    accepted_time: str


class Conversations:
    """The conversations of all projects, by the API's rules."""

    def __init__(
        self,
        writer: Writer,
        configuration: Configuration,
        manifests: Mapping[ChannelName, Manifest],
        messages: Messages,
        tokens: PageTokens,
        injection_days: int,
    ) -> None:
        """`injection_days`: how old an injected message or event may be; 0: as old as it likes."""
        self._writer = writer
        self._configuration = configuration
        self._manifests = manifests
        self._messages = messages
        self._tokens = tokens
        self._injection_days = injection_days

    async def page(self, project_id: ProjectId, query: Mapping[str, str]) -> ConversationList:
        """One page, the newest first. Raises BadRequest without an app or a contact."""
        app_id, contact_id = query.get("app_id", ""), query.get("contact_id", "")
        if not app_id and not contact_id:
            raise BadRequest(Violation("app_id", "app_id or contact_id is required"))
        only_active, channel = read_flag(query, "only_active"), _channel(query.get("active_channel", ""))
        size = page_size(query.get("page_size", ""), MOST_A_PAGE)
        bound = (project_id, "conversations", app_id, contact_id, str(only_active), channel)
        before = self._tokens.read(query.get("page_token", ""), bound)
        async with self._writer.pool.acquire() as connection:
            wanted = store.Wanted(project_id, app_id, contact_id, only_active, channel)
            found = await store.page(connection, wanted, before=before, limit=size + 1)
            total = await store.count(connection, wanted)
        token = self._tokens.make(found[size - 1].id, bound) if len(found) > size else ""
        return ConversationList(found[:size], token, total)

    async def recent(self, project_id: ProjectId, query: Mapping[str, str]) -> RecentList:
        """One page of an app's conversations with their last messages, in the order of those."""
        app_id = query.get("app_id", "")
        if not app_id:
            raise BadRequest(Violation("app_id", "is required"))
        order = query.get("order") or "DESC"
        if order not in ("ASC", "DESC"):
            raise BadRequest(Violation("order", "ASC or DESC is expected"))
        only_active = read_flag(query, "only_active")
        size = page_size(query.get("page_size", ""), MOST_RECENT)
        bound = (project_id, "recent", app_id, str(only_active), order)
        after = self._tokens.read(query.get("page_token", ""), bound)
        async with self._writer.pool.acquire() as connection:
            wanted = store.Wanted(project_id, app_id, only_active=only_active, only_with_messages=True)
            found = await store.recent(
                connection, wanted, after=store.Place.parse(after), ascending=order == "ASC", limit=size + 1
            )
            total = await store.count(connection, wanted)
        last = await self._messages.last_of([item.conversation.id for item in found[:size]])
        shown = [RecentConversation(item.conversation, last.get(item.conversation.id)) for item in found[:size]]
        token = self._tokens.make(str(found[size - 1].place), bound) if len(found) > size else ""
        return RecentList(shown, token, total)

    async def get(self, project_id: ProjectId, conversation_id: str) -> Conversation:
        """One conversation. Raises NotFound."""
        async with self._writer.pool.acquire() as connection:
            found = await store.read(connection, project_id, ConversationId(conversation_id))
        if found is None:
            raise _no_such_conversation()
        return found

    async def create(self, project_id: ProjectId, raw: bytes) -> Conversation:
        """Start a conversation; one that is active stops. Raises BadRequest, NotFound."""
        given = _body.read(raw)
        wanted = _conversation(ConversationId(mint()), given)
        await self._talking_app(project_id, given.app_id)

        async def start() -> Conversation:
            async with self._writer.writing(project_id) as writing:
                if not await contacts.hold(writing.connection, project_id, wanted.contact_id):
                    raise no_such_contact()
                if wanted.active:
                    await self._stop_active(writing, wanted)
                await store.insert(writing.connection, project_id, wanted)
                await writing.tell(ConversationStarted, wanted.id, 1, conversation=wanted)
            return wanted

        return await _until_alone(start)

    async def change(
        self, project_id: ProjectId, conversation_id: str, raw: bytes, mask: Sequence[str] | None,
        query: Mapping[str, str],
    ) -> Conversation:  # fmt: skip
        """Change what the mask, or else the body, names. Raises NotFound, BadRequest."""
        given = _body.plain(raw or b"{}")
        if not isinstance(given, dict):
            _body.convert(given)  # refuses it by name
        strategy = _strategy(query.get("metadata_update_strategy", ""))
        return await _until_alone(lambda: self._change(project_id, conversation_id, given, mask, strategy))

    async def _change(
        self, project_id: ProjectId, conversation_id: str, given: Mapping[str, Any], mask: Sequence[str] | None,
        strategy: MetadataStrategy,
    ) -> Conversation:  # fmt: skip
        async with self._writer.writing(project_id) as writing:
            before = (await self._locked(writing, conversation_id)).conversation
            after = _patched(before, given, mask, strategy)
            if after == before:
                return before
            if after.app_id != before.app_id:
                await self._talking_app(project_id, after.app_id)
            if after.active and (not before.active or after.app_id != before.app_id):
                await self._stop_active(writing, after)
            await store.write(writing.connection, after)
            if before.active and not after.active:
                sequence = await store.tell(writing.connection, after.id)
                await writing.tell(ConversationStopped, after.id, sequence, conversation=after)
        return after

    async def stop(self, project_id: ProjectId, conversation_id: str) -> None:
        """Stop a conversation: the next message starts another. Raises NotFound."""
        async with self._writer.writing(project_id) as writing:
            found = await self._locked(writing, conversation_id)
            if found.conversation.active:
                await self._stop(writing, found)

    async def delete(self, project_id: ProjectId, conversation_id: str) -> None:
        """Delete a conversation with its messages. Raises NotFound."""
        async with self._writer.writing(project_id) as writing:
            found = await self._locked(writing, conversation_id)
            await store.delete(writing.connection, [found.id])
            await writing.tell(ConversationDeleted, found.id, found.told + 1, conversation=found.conversation)

    async def inject_message(self, project_id: ProjectId, conversation_id: str, raw: bytes) -> None:
        """Store a message that went another way. Nothing is sent and nothing told. Raises NotFound, BadRequest."""
        request = _message.read(raw)
        found: list[Violation] = []
        if (request.app_message is None) == (request.contact_message is None):
            found.append(Violation("app_message", "exactly one of app_message and contact_message is expected"))
        if request.app_message is not None:
            found += [
                Violation(f"app_message.{item.field}".removesuffix("."), item.description)
                for item in validate(request.app_message)
            ]
        if request.contact_message is not None and len(given := _contents(request.contact_message)) != 1:
            found.append(Violation("contact_message", f"exactly one content is expected, not {len(given)}"))
        to_app = request.contact_message is not None
        if (request.direction == "TO_APP") != to_app:
            found.append(Violation("direction", "TO_APP goes with contact_message, TO_CONTACT with app_message"))
        found += _in_conversation_mode(request.processing_mode)
        found += at_most("metadata", request.metadata, MAX_METADATA)
        found += at_most("sender_id", request.sender_id, MAX_IDENTITY)
        found += _check_identity(request.channel_identity)
        async with self._writer.writing(project_id) as writing:
            at = self._accept_time(request.accept_time, writing.now, found)
            if found:
                raise BadRequest(*found)
            into = (await self._locked(writing, conversation_id)).conversation
            if request.contact_id != into.contact_id:
                raise BadRequest(Violation("contact_id", "is not the contact of the conversation"))
            app = await self._talking_app(project_id, into.app_id)
            identity = self._identity(request.channel_identity)
            content = request.contact_message if to_app else request.app_message
            await injected.insert(
                writing.connection,
                injected.Injected(
                    id=MessageId(mint()), project_id=project_id, app_id=app.id, to_app=to_app, accepted_at=at,
                    channel=identity.channel, identity=identity.identity, content=_encode(content),
                    metadata=request.metadata, sender_id=request.sender_id, contact_id=into.contact_id,
                    conversation_id=into.id, body_until=body_until(app, ProcessingMode.CONVERSATION, at),
                ),
                writing.now,
            )  # fmt: skip
            await store.received(writing.connection, into.id, at)

    async def inject_event(self, project_id: ProjectId, conversation_id: str, raw: bytes) -> InjectedEvent:
        """Store an event that went another way. Raises NotFound, BadRequest."""
        request = _event.read(raw)
        found = [
            Violation(f"app_event.{item.field}".removesuffix("."), item.description)
            for item in validate_event(request.app_event)
        ]
        found += _in_conversation_mode(request.processing_mode)
        if request.channel_identity is not None:
            found += _check_identity(request.channel_identity)
        if request.conversation_id not in ("", conversation_id):
            found.append(Violation("conversation_id", "is not the conversation of the path"))
        async with self._writer.writing(project_id) as writing:
            at = self._accept_time(request.accept_time, writing.now, found)
            if found:
                raise BadRequest(*found)
            into = (await self._locked(writing, conversation_id)).conversation
            if request.contact_id not in ("", into.contact_id):
                raise BadRequest(Violation("contact_id", "is not the contact of the conversation"))
            app = await self._talking_app(project_id, into.app_id)
            identity = self._identity(request.channel_identity or ContactIdentity(into.active_channel, ""))
            event = injected.InjectedEvent(
                id=MessageId(mint()), project_id=project_id, app_id=app.id, accepted_at=at, channel=identity.channel,
                identity=identity.identity, content=_encode(request.app_event), contact_id=into.contact_id,
                conversation_id=into.id, body_until=body_until(app, ProcessingMode.CONVERSATION, at),
            )  # fmt: skip
            await injected.insert_event(writing.connection, event, writing.now)
        return InjectedEvent(event.id, timestamp(at))

    # -- values

    async def _locked(self, writing: Writing, conversation_id: str) -> Locked:
        found = await store.lock(writing.connection, writing.project_id, conversation_id)
        if found is None:
            raise _no_such_conversation()
        return found

    @staticmethod
    async def _stop(writing: Writing, found: Locked) -> None:
        stopped = replace(found.conversation, active=False)
        await store.write(writing.connection, stopped)
        sequence = await store.tell(writing.connection, stopped.id)
        await writing.tell(ConversationStopped, stopped.id, sequence, conversation=stopped)

    async def _stop_active(self, writing: Writing, other: Conversation) -> None:
        """At most one is active: the one that was stops."""
        active = await store.lock_active(writing.connection, other.app_id, other.contact_id)
        if active is not None and active.id != other.id:
            await self._stop(writing, active)

    async def _talking_app(self, project_id: ProjectId, app_id: str) -> App:
        app = await self._configuration.app(AppId(app_id)) if app_id and "\x00" not in app_id else None
        if app is None or app.project_id != project_id:
            raise NotFound("There is no such app in the project.")
        if app.processing_mode is not ProcessingMode.CONVERSATION:
            raise BadRequest(Violation("app_id", "the app has no conversations: its processing_mode is DISPATCH"))
        return app

    def _accept_time(self, text: str, now: datetime, found: list[Violation]) -> datetime:
        try:
            at = read_moment({"accept_time": text}, "accept_time")
        except BadRequest as error:
            found += error.violations
            return now
        if at is None:
            found.append(Violation("accept_time", "is required"))
            return now
        if at > now:
            found.append(Violation("accept_time", "must be in the past"))
        elif self._injection_days and at < now - timedelta(days=self._injection_days):
            found.append(Violation("accept_time", f"must not be older than {self._injection_days} days"))
        return at

    def _identity(self, given: ContactIdentity) -> ContactIdentity:
        manifest = self._manifests.get(ChannelName(given.channel))
        if manifest is None or not given.identity:
            return given
        try:
            return replace(given, identity=manifest.normal_identity(given.identity))
        except ValueError as error:
            raise BadRequest(Violation("channel_identity.identity", str(error))) from None


async def _until_alone(write: Callable[[], Awaitable[Conversation]]) -> Conversation:
    """Write, and again where another conversation of the two became active meanwhile: that one is seen then."""
    for _ in range(_TRIES - 1):
        with suppress(asyncpg.UniqueViolationError):
            return await write()
    return await write()


def _conversation(conversation_id: ConversationId, given: ConversationInput) -> Conversation:
    """The conversation that an input makes. Raises BadRequest."""
    found = [*check_id("app_id", given.app_id), *check_id("contact_id", given.contact_id)]
    found += at_most("metadata", given.metadata, MAX_METADATA)
    found += at_most("correlation_id", given.correlation_id, MAX_CORRELATION_ID)
    if given.active_channel != UNSPECIFIED and given.active_channel not in CONTRACT_CHANNELS:
        found.append(Violation("active_channel", "unknown channel"))
    found += json_at_most("metadata_json", given.metadata_json, MAX_CONVERSATION_METADATA)
    if found:
        raise BadRequest(*found)
    return Conversation(
        id=conversation_id,
        app_id=AppId(given.app_id),
        contact_id=ContactId(given.contact_id),
        active_channel=given.active_channel,
        active=given.active,
        metadata=given.metadata,
        metadata_json=given.metadata_json,
        correlation_id=given.correlation_id,
    )


def _patched(
    before: Conversation, given: Mapping[str, Any], mask: Sequence[str] | None, strategy: MetadataStrategy
) -> Conversation:
    current = {name: getattr(before, name) for name in ConversationInput.__struct_fields__}
    if not mask and "metadata_json" in given:
        # Replaced whole and not key by key; a mask may name single keys.
        current["metadata_json"] = None
    changed = patched(current, given, mask, FIELDS)
    said = patched({"metadata_json": {}}, given, mask, FIELDS).get("metadata_json")
    if strategy is MetadataStrategy.MERGE_PATCH and said != {}:
        changed["metadata_json"] = merge_patch(before.metadata_json or {}, said)
    # The contact of a conversation changes by a merge only.
    changed["contact_id"] = before.contact_id
    after = _conversation(before.id, _body.convert({k: v for k, v in changed.items() if v is not None}))
    return replace(after, last_received=before.last_received)


def _strategy(text: str) -> MetadataStrategy:
    try:
        return MetadataStrategy(text or "REPLACE")
    except ValueError:
        raise BadRequest(Violation("metadata_update_strategy", "REPLACE or MERGE_PATCH is expected")) from None


def _contents(message: ContactMessage) -> list[str]:
    return [name for name in message.__struct_fields__ if name != "reply_to" and getattr(message, name) is not None]


def _in_conversation_mode(mode: ProcessingMode) -> list[Violation]:
    if mode is ProcessingMode.CONVERSATION:
        return []
    return [Violation("processing_mode", "only messages in CONVERSATION mode are in conversations")]


def _check_identity(given: ContactIdentity) -> list[Violation]:
    found = list(check_identity("channel_identity.identity", given.identity))
    if given.channel not in CONTRACT_CHANNELS:
        found.append(Violation("channel_identity.channel", "unknown channel"))
    return found


def _channel(channel: str) -> str:
    if channel and channel not in CONTRACT_CHANNELS:
        raise BadRequest(Violation("active_channel", "unknown channel"))
    return channel


def _no_such_conversation() -> NotFound:
    return NotFound("There is no such conversation in the project.")

"""Events: sent, listed, read, deleted (conversation-api 4.6, 6.2)."""

from collections.abc import Mapping
from typing import Any, Final

import asyncpg
from msgspec import UNSET, Raw, Struct, UnsetType

from switchboard.callbacks.compact import timestamp
from switchboard.configuration import App, Configuration
from switchboard.identity import ChannelIdentity, ChannelName
from switchboard.ids import ContactId, MessageId, ProjectId, is_ulid, mint, time_of
from switchboard.records import EventAccepted, ProcessingMode
from switchboard.store import events as store
from switchboard.store.pool import Pool
from switchboard.validation import Violation, validate_event
from switchboard_ingress.body import Body
from switchboard_ingress.checks import MAX_METADATA, at_most, check_url
from switchboard_ingress.errors import BadRequest, NotFound
from switchboard_ingress.paging import PageTokens, page_size
from switchboard_ingress.requests import SendEventRequest
from switchboard_ingress.send import Sending, SendRules, check_channel, find_app, identities_of

MOST_A_PAGE: Final = 20
_body: Final = Body(SendEventRequest)
#: Content is readable within its retention, as that of messages.
_READABLE: Final = "body IS NOT NULL AND body_until > switchboard.now()"


class ConversationEvent(Struct, frozen=True, kw_only=True):
    """A stored event, as clients read it. Exactly one of the events is there, as it was given."""

    id: str
    direction: str
    app_event: Raw | UnsetType = UNSET
    contact_event: Raw | UnsetType = UNSET
    contact_message_event: Raw | UnsetType = UNSET
    conversation_id: str = ""
    contact_id: str = ""
    channel_identity: ChannelIdentity
    accept_time: str
    processing_mode: ProcessingMode


class EventList(Struct, frozen=True):
    events: list[ConversationEvent]
    next_page_token: str


class SendEventAnswer(Struct, frozen=True):
    """The event is queued, not sent."""

    event_id: str
    accepted_time: str


class Events:
    """The events of all projects, by the API's rules."""

    def __init__(
        self, pool: Pool, configuration: Configuration, sending: Sending, rules: SendRules, tokens: PageTokens,
        *, strict_ids: bool = True,
    ) -> None:  # fmt: skip
        self._pool = pool
        self._configuration = configuration
        self._sending = sending
        self._rules = rules
        self._tokens = tokens
        self._strict_ids = strict_ids

    async def send(self, project_id: ProjectId, raw: bytes) -> SendEventAnswer:
        """Accept one event; what is answered is durable. Raises BadRequest, NotFound, Unavailable."""
        request = _body.read(raw)
        app = await find_app(self._configuration, project_id, request.app_id, strict=self._strict_ids)
        event_id = MessageId(mint())
        record = accept_event(request, app, self._rules, event_id)
        await self._sending.accept_other(record, event_id)
        return SendEventAnswer(event_id, timestamp(record.accepted_at))

    async def page(self, project_id: ProjectId, query: Mapping[str, str]) -> EventList:
        """One page, the newest first, of a conversation, a contact, or of the whole project."""
        asked = (query.get("conversation_id", ""), query.get("contact_id", ""))
        size = page_size(query.get("page_size", ""), MOST_A_PAGE)
        before = self._tokens.read(query.get("page_token", ""), (project_id, *asked))
        apps = [app.id for app in await self._configuration.store.apps(project_id)]
        rows = await self._pool.fetch(
            f"{store.SELECT} WHERE app_id = ANY($1::text[]) AND {_READABLE} AND ($2::text IS NULL OR id < $2)"
            " AND ($3 = '' OR conversation_id = $3) AND ($4 = '' OR contact_id = $4) ORDER BY id DESC LIMIT $5",
            apps, before, *asked, size + 1,
        )  # fmt: skip
        shown = [_view(row) for row in rows[:size]]
        is_last = len(rows) <= size
        return EventList(shown, "" if is_last else self._tokens.make(shown[-1].id, (project_id, *asked)))

    async def get(self, project_id: ProjectId, event_id: str) -> ConversationEvent:
        """One event. Raises NotFound."""
        row = None
        if is_ulid(event_id):
            row = await self._pool.fetchrow(
                f"{store.SELECT} WHERE id = $1 AND project_id = $2 AND {_READABLE}", event_id, project_id
            )
        if row is None:
            raise _no_such_event()
        return _view(row)

    async def delete(self, project_id: ProjectId, event_id: str) -> None:
        """Delete an event from storage. What is under way goes on. Raises NotFound."""
        deleted = None
        if is_ulid(event_id):
            deleted = await self._pool.fetchval(
                "UPDATE switchboard.events SET body_until = NULL,"
                " body = CASE WHEN state = 'final' THEN NULL ELSE body END"
                f" WHERE id = $1 AND project_id = $2 AND {_READABLE} RETURNING 1",
                event_id, project_id,
            )  # fmt: skip
        if deleted is None:
            raise _no_such_event()


def accept_event(request: SendEventRequest, app: App, rules: SendRules, event_id: MessageId) -> EventAccepted:
    """The record of a valid request. Pure. Raises BadRequest with everything that is wrong with it (15.1, row 31)."""
    found: list[Violation] = []
    identities = identities_of(request.recipient, app.processing_mode, app, rules, found)
    order = tuple(map(ChannelName, request.channel_priority_order))
    for number, channel in enumerate(order):
        found += check_channel(f"channel_priority_order[{number}]", channel, app, rules)
    if len(order) > 1:
        found.append(Violation("channel_priority_order", "an event has one channel"))
    for violation in validate_event(request.event):
        name = violation.field if violation.field.startswith("event") else f"event.{violation.field}"
        found.append(Violation(name, violation.description))
    found += at_most("event_metadata", request.event_metadata, MAX_METADATA)
    found += check_url("callback_url", request.callback_url) if request.callback_url else ()
    if found:
        raise BadRequest(*found)
    contact_id = request.recipient.contact_id
    return EventAccepted(
        event_id=event_id,
        project_id=app.project_id,
        app_id=app.id,
        accepted_at=time_of(event_id),
        event=request.event,
        mode=app.processing_mode,
        identities=identities,
        contact_id=None if contact_id is None else ContactId(contact_id),
        channel_priority_order=order,
        metadata=request.event_metadata or "",
        callback_url=request.callback_url or "",
    )


def _view(row: asyncpg.Record) -> ConversationEvent:
    event = store.of_row(row)
    assert event.body is not None
    content: dict[str, Any] = {event.kind: Raw(event.body)}
    return ConversationEvent(
        id=event.id,
        direction=event.direction,
        conversation_id=event.conversation_id,
        contact_id=event.contact_id,
        channel_identity=event.identity,
        accept_time=timestamp(event.accepted_at),
        processing_mode=event.mode,
        **content,
    )


def _no_such_event() -> NotFound:
    return NotFound("There is no such event.")

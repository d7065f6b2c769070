"""Reading, changing and deleting stored messages (conversation-api 4.1)."""

from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, TypeVar

import asyncpg
import msgspec
from msgspec import Raw, Struct

from switchboard.callbacks.compact import timestamp
from switchboard.channel.manifest import Manifest
from switchboard.configuration import Configuration
from switchboard.identity import CONTRACT_CHANNELS, ChannelIdentity, ChannelName
from switchboard.ids import AppId, ProjectId, is_ulid
from switchboard.reason import Reason
from switchboard.records import ProcessingMode
from switchboard.store.inbound import InboundEnvelope
from switchboard.store.messages import Envelope
from switchboard.store.pool import Pool
from switchboard.validation import Violation
from switchboard_ingress.checks import MAX_METADATA, at_most
from switchboard_ingress.errors import BadRequest, NotFound
from switchboard_ingress.paging import PageTokens, page_size
from switchboard_ingress.requests import MessagePatch

MOST_A_PAGE: Final = 1000


class Source(StrEnum):
    """Which of the two ways a message was processed."""

    CONVERSATION_SOURCE = "CONVERSATION_SOURCE"
    DISPATCH_SOURCE = "DISPATCH_SOURCE"


class View(StrEnum):
    WITH_METADATA = "WITH_METADATA"
    WITHOUT_METADATA = "WITHOUT_METADATA"


class Direction(StrEnum):
    UNDEFINED_DIRECTION = "UNDEFINED_DIRECTION"
    TO_APP = "TO_APP"
    TO_CONTACT = "TO_CONTACT"


class MessageStatus(Struct, frozen=True):
    """Where a message is, for apps that keep it."""

    status: str
    event_time: str
    reason: Reason | None


class ConversationMessage(Struct, frozen=True, kw_only=True):
    """A stored message, as clients read it (conversation-api 4.0). Exactly one of the contents is there."""

    id: str
    direction: Direction
    app_message: Raw | msgspec.UnsetType = msgspec.UNSET
    contact_message: Raw | msgspec.UnsetType = msgspec.UNSET
    channel_identity: ChannelIdentity
    conversation_id: str = ""
    contact_id: str = ""
    metadata: str = ""
    accept_time: str
    injected: bool = False
    #: MO only: the number or id the contact wrote to.
    sender_id: str = ""
    processing_mode: ProcessingMode
    message_status: MessageStatus | None = None


class MessageList(Struct, frozen=True):
    messages: list[ConversationMessage]
    next_page_token: str


class MessageQuery(Struct, frozen=True, kw_only=True):
    """What `GET /messages` asks for."""

    source: Source
    view: View
    app_id: str
    channel_identity: str
    channel: str
    direction: Direction
    start_time: datetime | None
    end_time: datetime | None

    @property
    def bound(self) -> tuple[str, ...]:
        """What a page token is good for."""
        return tuple(str(getattr(self, name)) for name in self.__struct_fields__)


EnumT = TypeVar("EnumT", bound=StrEnum)

_TRUE: Final = {"true": True, "false": False, "": False}
_MODE: Final = {Source.CONVERSATION_SOURCE: "CONVERSATION", Source.DISPATCH_SOURCE: "DISPATCH"}
_envelope: Final = msgspec.json.Decoder(Envelope)
_inbound: Final = msgspec.json.Decoder(InboundEnvelope)
_reason: Final = msgspec.json.Decoder(Reason)
_patch: Final = msgspec.json.Encoder().encode

_COLUMNS: Final = (
    "id, app_id, direction, mode, accepted_at, channel, identity, envelope, body, status, status_at, reason"
)
#: Content is readable within its retention; with retention 0 never, however long it is still needed inside.
_READABLE: Final = "body IS NOT NULL AND body_until > switchboard.now()"


def read_query(query: Mapping[str, str]) -> MessageQuery:
    """Read and check the filters. Raises BadRequest (conversation-api 15.1, rows 5, 18, 19)."""
    source = read_source(query)
    found = []
    for name in ("contact_id", "conversation_id"):
        if query.get(name) and source is Source.DISPATCH_SOURCE:
            found.append(Violation(name, "is not known to DISPATCH_SOURCE"))
    only_from_recipients = _TRUE.get(query.get("only_recipient_originated", "").lower())
    if only_from_recipients is None:
        found.append(Violation("only_recipient_originated", "true or false is expected"))
    if only_from_recipients and source is not Source.DISPATCH_SOURCE:
        found.append(Violation("only_recipient_originated", "is known to DISPATCH_SOURCE only"))
    channel = query.get("channel", "")
    if channel and channel not in CONTRACT_CHANNELS:
        found.append(Violation("channel", "unknown channel"))
    start, end = _moment(query, "start_time"), _moment(query, "end_time")
    if start and end and start >= end:
        found.append(Violation("start_time", "must be before end_time"))
    if found:
        raise BadRequest(*found)
    direction = _enum(query, "direction", Direction.UNDEFINED_DIRECTION)
    return MessageQuery(
        source=source,
        view=_enum(query, "view", View.WITH_METADATA),
        app_id=query.get("app_id", ""),
        channel_identity=query.get("channel_identity", "").strip().removeprefix("+"),
        channel=channel,
        direction=Direction.TO_APP if only_from_recipients else direction,
        start_time=start,
        end_time=end,
    )


def read_source(query: Mapping[str, str]) -> Source:
    """`messages_source`, CONVERSATION_SOURCE if not said. Raises BadRequest."""
    return _enum(query, "messages_source", Source.CONVERSATION_SOURCE)


class Messages:
    """Stored messages of a project."""

    def __init__(
        self,
        pool: Pool,
        configuration: Configuration,
        manifests: Mapping[ChannelName, Manifest],
        tokens: PageTokens,
    ) -> None:
        self._pool = pool
        self._configuration = configuration
        self._manifests = manifests
        self._tokens = tokens

    async def page(self, project_id: ProjectId, query: Mapping[str, str]) -> MessageList:
        """One page, the newest first. Without an app, of all apps of the project."""
        asked = read_query(query)
        size = page_size(query.get("page_size", ""), MOST_A_PAGE)
        before = self._tokens.read(query.get("page_token", ""), (project_id, *asked.bound))
        apps = await self._apps(project_id, asked.app_id)
        rows = await self._pool.fetch(
            f"SELECT {_COLUMNS} FROM switchboard.messages WHERE app_id = ANY($1::text[]) AND mode = $2 AND {_READABLE}"
            " AND ($3::text IS NULL OR id < $3) AND ($4 = '' OR identity = $4) AND ($5 = '' OR channel = $5)"
            " AND ($6 = 'UNDEFINED_DIRECTION' OR direction = $6)"
            " AND ($7::timestamptz IS NULL OR accepted_at > $7) AND ($8::timestamptz IS NULL OR accepted_at < $8)"
            " ORDER BY id DESC LIMIT $9",
            apps, _MODE[asked.source], before, asked.channel_identity, asked.channel, asked.direction.value,
            asked.start_time, asked.end_time, size + 1,
        )  # fmt: skip
        shown = [await self._view(row, asked.view) for row in rows[:size]]
        is_last = len(rows) <= size
        token = "" if is_last else self._tokens.make(shown[-1].id, (project_id, *asked.bound))
        return MessageList(shown, token)

    async def get(self, project_id: ProjectId, message_id: str, source: Source) -> ConversationMessage:
        """One message. Raises NotFound."""
        row = None
        if is_ulid(message_id):
            row = await self._pool.fetchrow(
                f"SELECT {_COLUMNS} FROM switchboard.messages"
                f" WHERE id = $1 AND project_id = $2 AND mode = $3 AND {_READABLE}",
                message_id, project_id, _MODE[source],
            )  # fmt: skip
        if row is None:
            raise _no_such_message()
        return await self._view(row, View.WITH_METADATA)

    async def change_metadata(
        self, project_id: ProjectId, message_id: str, source: Source, patch: MessagePatch
    ) -> ConversationMessage:
        """Replace a message's metadata. Raises NotFound, BadRequest."""
        if found := list(at_most("metadata", patch.metadata, MAX_METADATA)):
            raise BadRequest(*found)
        if not is_ulid(message_id):
            raise _no_such_message()
        async with self._pool.acquire() as connection, connection.transaction():
            row = await connection.fetchrow(
                "SELECT direction, envelope FROM switchboard.messages"
                f" WHERE id = $1 AND project_id = $2 AND mode = $3 AND {_READABLE} FOR UPDATE",
                message_id, project_id, _MODE[source],
            )  # fmt: skip
            if row is None:
                raise _no_such_message()
            changed = msgspec.structs.replace(_read_envelope(row), metadata=patch.metadata)
            await connection.execute(
                "UPDATE switchboard.messages SET envelope = $2 WHERE id = $1", message_id, _patch(changed)
            )
        return await self.get(project_id, message_id, source)

    async def delete(self, project_id: ProjectId, message_id: str, source: Source) -> None:
        """Delete a message's content from storage. What is under way goes on. Raises NotFound."""
        deleted = None
        if is_ulid(message_id):
            # A message that is not final needs its content for what may still follow; it goes with the end.
            deleted = await self._pool.fetchval(
                "UPDATE switchboard.messages SET body_until = NULL, body = CASE WHEN final THEN NULL ELSE body END"
                f" WHERE id = $1 AND project_id = $2 AND mode = $3 AND {_READABLE} RETURNING 1",
                message_id, project_id, _MODE[source],
            )  # fmt: skip
        if deleted is None:
            raise _no_such_message()

    async def _apps(self, project_id: ProjectId, app_id: str) -> list[AppId]:
        apps = [app.id for app in await self._configuration.store.apps(project_id)]
        if not app_id:
            return apps
        if app_id not in apps:
            raise NotFound("There is no such app in the project.")
        return [AppId(app_id)]

    async def _view(self, row: asyncpg.Record, view: View) -> ConversationMessage:
        envelope = _read_envelope(row)
        to_app = row["direction"] == Direction.TO_APP
        return ConversationMessage(
            id=row["id"],
            direction=Direction(row["direction"]),
            app_message=msgspec.UNSET if to_app else Raw(row["body"]),
            contact_message=Raw(row["body"]) if to_app else msgspec.UNSET,
            channel_identity=self._identity(row),
            metadata=envelope.metadata if view is View.WITH_METADATA else "",
            accept_time=timestamp(row["accepted_at"]),
            sender_id=envelope.sender_id if isinstance(envelope, InboundEnvelope) else "",
            processing_mode=ProcessingMode(row["mode"]),
            message_status=await self._status(row),
        )

    def _identity(self, row: asyncpg.Record) -> ChannelIdentity:
        manifest = self._manifests.get(row["channel"])
        scope = row["app_id"] if manifest and manifest.app_scoped else ""
        return ChannelIdentity(row["channel"], row["identity"], scope)

    async def _status(self, row: asyncpg.Record) -> MessageStatus | None:
        app = await self._configuration.app(row["app_id"])
        if app is None or not app.persist_message_status.enabled:
            return None
        reason = _reason.decode(row["reason"]) if row["reason"] else None
        return MessageStatus(row["status"], timestamp(row["status_at"]), reason)


def _read_envelope(row: asyncpg.Record) -> Envelope | InboundEnvelope:
    decoder = _inbound if row["direction"] == Direction.TO_APP else _envelope
    return decoder.decode(row["envelope"] or b"{}")


def _no_such_message() -> NotFound:
    return NotFound("There is no such message in this source.")


def _enum(query: Mapping[str, str], name: str, default: EnumT) -> EnumT:
    text = query.get(name, "")
    if not text:
        return default
    try:
        return type(default)(text)
    except ValueError:
        raise BadRequest(Violation(name, f"one of {', '.join(type(default))} is expected")) from None


def _moment(query: Mapping[str, str], name: str) -> datetime | None:
    # A "+" that a client did not percent-encode arrives as a space.
    text = query.get(name, "").strip().replace(" ", "+")
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise BadRequest(Violation(name, "an RFC 3339 time is expected")) from None

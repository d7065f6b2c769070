"""Reading, changing and deleting stored messages (conversation-api 4.1)."""

from collections.abc import Mapping, Sequence
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
from switchboard.store.conversations import Place
from switchboard.store.inbound import InboundEnvelope
from switchboard.store.messages import Envelope
from switchboard.store.pool import Pool
from switchboard.validation import Violation
from switchboard_ingress.body import Body
from switchboard_ingress.checks import MAX_METADATA, at_most
from switchboard_ingress.errors import BadRequest, NotFound
from switchboard_ingress.paging import PageTokens, page_size
from switchboard_ingress.requests import LastMessagesRequest, MessagePatch

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
    #: Of CONVERSATION_SOURCE only.
    contact_id: str = ""
    conversation_id: str = ""

    @property
    def bound(self) -> tuple[str, ...]:
        """What a page token is good for."""
        return tuple(str(getattr(self, name)) for name in self.__struct_fields__)


EnumT = TypeVar("EnumT", bound=StrEnum)

_FLAGS: Final = {"true": True, "false": False, "": False}
_MODE: Final = {Source.CONVERSATION_SOURCE: "CONVERSATION", Source.DISPATCH_SOURCE: "DISPATCH"}
_envelope: Final = msgspec.json.Decoder(Envelope)
_inbound: Final = msgspec.json.Decoder(InboundEnvelope)
_reason: Final = msgspec.json.Decoder(Reason)
_last: Final = Body(LastMessagesRequest)
_patch: Final = msgspec.json.Encoder().encode

_COLUMNS: Final = (
    "id, app_id, direction, mode, accepted_at, channel, identity, envelope, body, status, status_at, reason,"
    " contact_id, conversation_id"
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
    only_from_recipients = read_flag(query, "only_recipient_originated")
    if only_from_recipients and source is not Source.DISPATCH_SOURCE:
        found.append(Violation("only_recipient_originated", "is known to DISPATCH_SOURCE only"))
    channel = query.get("channel", "")
    if channel and channel not in CONTRACT_CHANNELS:
        found.append(Violation("channel", "unknown channel"))
    start, end = read_moment(query, "start_time"), read_moment(query, "end_time")
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
        contact_id=query.get("contact_id", ""),
        conversation_id=query.get("conversation_id", ""),
    )


def read_flag(query: Mapping[str, str], name: str) -> bool:
    """A flag of a query, false if not said, in any case of letters. Raises BadRequest."""
    flag = _FLAGS.get(query.get(name, "").lower())
    if flag is None:
        raise BadRequest(Violation(name, "true or false is expected"))
    return flag


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
        bound = (project_id, *asked.bound)
        before = Place.parse(self._tokens.read(query.get("page_token", ""), bound))
        apps = await self._apps(project_id, asked)
        # In dispatch mode the id is the order; injected messages are older than their ids.
        order = "(id)" if asked.source is Source.DISPATCH_SOURCE else "(accepted_at, id)"
        last = "($3::text)" if asked.source is Source.DISPATCH_SOURCE else "($10::timestamptz, $3::text)"
        rows = await self._pool.fetch(
            f"SELECT {_COLUMNS} FROM switchboard.messages WHERE app_id = ANY($1::text[]) AND mode = $2 AND {_READABLE}"
            f" AND ($3::text IS NULL OR $10::timestamptz IS NULL OR {order} < {last})"
            " AND ($4 = '' OR identity = $4) AND ($5 = '' OR channel = $5)"
            " AND ($6 = 'UNDEFINED_DIRECTION' OR direction = $6)"
            " AND ($7::timestamptz IS NULL OR accepted_at > $7) AND ($8::timestamptz IS NULL OR accepted_at < $8)"
            " AND ($11 = '' OR contact_id = $11) AND ($12 = '' OR conversation_id = $12)"
            f" ORDER BY {order} DESC LIMIT $9".replace("(accepted_at, id) DESC", "accepted_at DESC, id DESC"),
            apps, _MODE[asked.source], None if before is None else before.id, asked.channel_identity, asked.channel,
            asked.direction.value, asked.start_time, asked.end_time, size + 1, None if before is None else before.at,
            asked.contact_id, asked.conversation_id,
        )  # fmt: skip
        return await self._list(rows, size, asked.view, bound)

    async def _list(self, rows: Sequence[asyncpg.Record], size: int, view: View, bound: tuple[str, ...]) -> MessageList:
        shown = [await self._view(row, view) for row in rows[:size]]
        is_last = len(rows) <= size
        token = "" if is_last else self._tokens.make(str(Place(rows[size - 1]["accepted_at"], shown[-1].id)), bound)
        return MessageList(shown, token)

    async def last_page(self, project_id: ProjectId, raw: bytes) -> MessageList:
        """The last message of each recipient, the newest first (`messages:fetch-last-message`). Raises BadRequest."""
        request = _last.read(raw)
        query = {name: str(getattr(request, name)) for name in LastMessagesRequest.__struct_fields__[2:]}
        # This one operation asks for dispatch mode unless told otherwise.
        query["messages_source"] = query["messages_source"] or Source.DISPATCH_SOURCE
        asked = read_query(query)
        if bool(request.channel_identities) == bool(request.contact_ids):
            raise BadRequest(Violation("channel_identities", "exactly one of channel_identities and contact_ids"))
        if request.contact_ids and asked.source is Source.DISPATCH_SOURCE:
            raise BadRequest(Violation("contact_ids", "is not known to DISPATCH_SOURCE"))
        wanted = sorted({one.strip().removeprefix("+") for one in request.channel_identities or request.contact_ids})
        if len(wanted) > MOST_A_PAGE or any("\x00" in one for one in wanted):
            raise BadRequest(Violation("channel_identities", f"at most {MOST_A_PAGE} recipients"))
        key = "contact_id" if request.contact_ids else "identity"
        size = page_size(query["page_size"], MOST_A_PAGE)
        bound = (project_id, "last", *wanted, *asked.bound)
        before = Place.parse(self._tokens.read(request.page_token, bound))
        rows = await self._pool.fetch(
            f"SELECT * FROM (SELECT DISTINCT ON ({key}) {_COLUMNS} FROM switchboard.messages"
            f" WHERE app_id = ANY($1::text[]) AND mode = $2 AND {_READABLE} AND {key} = ANY($3::text[])"
            " AND ($4 = '' OR channel = $4) AND ($5 = 'UNDEFINED_DIRECTION' OR direction = $5)"
            " AND ($6::timestamptz IS NULL OR accepted_at > $6) AND ($7::timestamptz IS NULL OR accepted_at < $7)"
            f" ORDER BY {key}, accepted_at DESC, id DESC) AS last"
            " WHERE $8::timestamptz IS NULL OR (accepted_at, id) < ($8, $9)"
            " ORDER BY accepted_at DESC, id DESC LIMIT $10",
            await self._apps(project_id, asked), _MODE[asked.source], wanted, asked.channel, asked.direction.value,
            asked.start_time, asked.end_time, None if before is None else before.at,
            None if before is None else before.id, size + 1,
        )  # fmt: skip
        return await self._list(rows, size, asked.view, bound)

    async def last_of(self, conversation_ids: Sequence[str]) -> dict[str, ConversationMessage]:
        """The last message of each conversation whose content is kept."""
        rows = await self._pool.fetch(
            "SELECT last.* FROM unnest($1::text[]) AS wanted (id) CROSS JOIN LATERAL ("
            f"SELECT {_COLUMNS} FROM switchboard.messages WHERE conversation_id = wanted.id AND {_READABLE}"
            " ORDER BY accepted_at DESC, id DESC LIMIT 1) AS last",
            list(conversation_ids),
        )
        return {row["conversation_id"]: await self._view(row, View.WITH_METADATA) for row in rows}

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

    async def _apps(self, project_id: ProjectId, asked: MessageQuery) -> list[AppId]:
        apps = {app.id: app for app in await self._configuration.apps(project_id)}
        if not asked.app_id:
            return list(apps)
        app = apps.get(AppId(asked.app_id))
        if app is None:
            raise NotFound("There is no such app in the project.")
        for name in ("contact_id", "conversation_id"):
            if getattr(asked, name) and app.processing_mode is ProcessingMode.DISPATCH:
                raise BadRequest(Violation(name, "is not known to an app in DISPATCH mode"))
        return [app.id]

    async def _view(self, row: asyncpg.Record, view: View) -> ConversationMessage:
        envelope = _read_envelope(row)
        to_app = row["direction"] == Direction.TO_APP
        return ConversationMessage(
            id=row["id"],
            direction=Direction(row["direction"]),
            app_message=msgspec.UNSET if to_app else Raw(row["body"]),
            contact_message=Raw(row["body"]) if to_app else msgspec.UNSET,
            channel_identity=self._identity(row),
            conversation_id=row["conversation_id"] or "",
            contact_id=row["contact_id"] or "",
            metadata=envelope.metadata if view is View.WITH_METADATA else "",
            accept_time=timestamp(row["accepted_at"]),
            injected=envelope.injected,
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


def read_moment(query: Mapping[str, str], name: str) -> datetime | None:
    """A time of a query, RFC 3339; None: not given. Raises BadRequest."""
    # A "+" that a client did not percent-encode arrives as a space.
    text = query.get(name, "").strip().replace(" ", "+")
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise BadRequest(Violation(name, "an RFC 3339 time is expected")) from None

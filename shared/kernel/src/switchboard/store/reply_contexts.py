"""What a reply brings back in dispatch mode, where no conversation keeps it (conversation-api 12.1).

The latest correlation id and conversation metadata of each (app, identity), for the app's retention; with retention 0
nothing is kept. Written after conversations and before messages, in the order of the primary key.
"""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
from msgspec import Struct

from switchboard.identity import ChannelIdentity
from switchboard.ids import AppId
from switchboard.store.pool import Connection
from switchboard.store.writes import Writes, columns_of

_encode: Final = msgspec.json.Encoder().encode
_object: Final = msgspec.json.Decoder(dict[str, Any])


class ReplyContext(Struct, frozen=True):
    """What comes back with what a person writes."""

    correlation_id: str = ""
    #: The conversation metadata.
    metadata: dict[str, Any] | None = None


class Kept(Struct, frozen=True):
    """A context to keep for each of a send's identities."""

    app_id: AppId
    identities: tuple[ChannelIdentity, ...]
    context: ReplyContext
    until: datetime


def keep(writes: Writes, sends: Sequence[Kept]) -> None:
    """Keep contexts, in the order of the sends. What a send does not say stays as it was."""
    latest: dict[tuple[str, str, str], tuple[str, bytes | None, datetime]] = {}
    for send in sends:
        said = None if send.context.metadata is None else _encode(send.context.metadata)
        for identity in send.identities:
            key = (send.app_id, identity.channel, identity.identity)
            correlation_id, metadata, until = latest.get(key, ("", None, send.until))
            latest[key] = (
                send.context.correlation_id or correlation_id,
                metadata if said is None else said,
                max(until, send.until),
            )
    if not latest:
        return
    rows = [(*key, *value) for key, value in sorted(latest.items(), key=lambda item: item[0])]
    writes.add(
        "kept_contexts",
        "INSERT INTO switchboard.reply_contexts AS kept (app_id, channel, identity, correlation_id, metadata_json,"
        " kept_until) SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bytea[],"
        " $6::timestamptz[]) ON CONFLICT (app_id, channel, identity) DO UPDATE SET"
        " correlation_id = CASE WHEN EXCLUDED.correlation_id = '' THEN kept.correlation_id"
        " ELSE EXCLUDED.correlation_id END,"
        " metadata_json = COALESCE(EXCLUDED.metadata_json, kept.metadata_json),"
        " kept_until = GREATEST(kept.kept_until, EXCLUDED.kept_until)",
        *columns_of(rows),
    )


async def recall(
    connection: Connection, people: Collection[tuple[AppId, ChannelIdentity]], now: datetime
) -> dict[tuple[AppId, ChannelIdentity], ReplyContext]:
    """What is kept of these people for these apps."""
    if not people:
        return {}
    wanted = {(app_id, identity.channel, identity.identity): (app_id, identity) for app_id, identity in people}
    rows = await connection.fetch(
        "SELECT app_id, channel, identity, correlation_id, metadata_json FROM switchboard.reply_contexts"
        " JOIN unnest($1::text[], $2::text[], $3::text[]) AS asked (app_id, channel, identity)"
        " USING (app_id, channel, identity) WHERE kept_until > $4",
        *(list(column) for column in zip(*wanted, strict=True)),
        now,
    )
    return {
        wanted[row["app_id"], row["channel"], row["identity"]]: ReplyContext(
            row["correlation_id"], None if row["metadata_json"] is None else _object.decode(row["metadata_json"])
        )
        for row in rows
    }

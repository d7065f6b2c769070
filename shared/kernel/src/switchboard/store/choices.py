"""The last choices sent to people on channels where they are answered by text (ADR 0019)."""

from collections.abc import Collection, Sequence
from typing import Final

import msgspec
from msgspec import Struct

from switchboard.identity import ChannelIdentity
from switchboard.ids import AppId, MessageId
from switchboard.rules.choices import REMEMBERED_SECONDS, Answer
from switchboard.store.pool import Connection

_encode: Final = msgspec.json.Encoder().encode
_answers: Final = msgspec.json.Decoder(tuple[Answer, ...])


class OpenChoices(Struct, frozen=True):
    """A message with choices that waits to be answered."""

    app_id: AppId
    identity: ChannelIdentity
    message_id: MessageId
    answers: tuple[Answer, ...]


_REMEMBER: Final = f"""
INSERT INTO switchboard.open_choices (app_id, channel, identity, message_id, answers, kept_until)
SELECT app_id, channel, identity, message_id, answers, switchboard.now() + interval '{REMEMBERED_SECONDS} seconds'
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bytea[])
     AS sent (app_id, channel, identity, message_id, answers)
ORDER BY app_id, channel, identity
ON CONFLICT (app_id, channel, identity) DO UPDATE
SET message_id = excluded.message_id, answers = excluded.answers, kept_until = excluded.kept_until
WHERE switchboard.open_choices.message_id <= excluded.message_id
"""
_OPEN: Final = """
SELECT choices.app_id, choices.channel, choices.identity, choices.message_id, choices.answers
FROM unnest($1::text[], $2::text[], $3::text[]) AS asked (app_id, channel, identity)
JOIN switchboard.open_choices AS choices USING (app_id, channel, identity)
WHERE choices.kept_until > switchboard.now()
"""

Person = tuple[AppId, str, str]


async def remember(connection: Connection, sent: Sequence[OpenChoices]) -> None:
    """Keep what the latest message with choices asked each person."""
    latest = {(c.app_id, c.identity.channel, c.identity.identity): c for c in sorted(sent, key=lambda c: c.message_id)}
    if latest:
        rows = [(*person, choices.message_id, _encode(choices.answers)) for person, choices in latest.items()]
        await connection.execute(_REMEMBER, *([*column] for column in zip(*rows, strict=True)))


async def open_for(connection: Connection, people: Collection[Person]) -> dict[Person, tuple[MessageId, list[Answer]]]:
    """What people, as (app, channel, identity), were asked last and may still answer."""
    if not people:
        return {}
    columns = ([*column] for column in zip(*sorted(people), strict=True))
    return {
        (AppId(row["app_id"]), row["channel"], row["identity"]): (
            MessageId(row["message_id"]),
            list(_answers.decode(row["answers"])),
        )
        for row in await connection.fetch(_OPEN, *columns)
    }

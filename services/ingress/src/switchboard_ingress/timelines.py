"""`GET /messages/{message_id}/timeline`, our extension: what happened to a message, when, and why."""

from datetime import datetime

from msgspec import Struct

from switchboard.ids import MessageId, ProjectId, is_ulid
from switchboard.reason import Reason
from switchboard.rules.route import Candidate
from switchboard.store import timeline
from switchboard.store.pool import Pool
from switchboard.story import Line, tell
from switchboard.timeline import Kind
from switchboard_ingress.errors import NotFound


class TimelineEntry(Struct, frozen=True):
    """One thing that happened. An exchange with a provider is an entry of its own, redacted."""

    at: datetime
    #: Seconds since the first entry.
    after_seconds: float
    kind: Kind
    what: str
    why: str
    channel: str
    #: The channel's place in the route, from 1.
    step: int | None
    #: Which submission of the message it is about, from 1.
    submission: int | None
    status: str
    reason: Reason | None
    #: Of the plan: every channel that was looked at, and why it is in or out. Empty where there was but one to try.
    candidates: tuple[Candidate, ...]


class MessageTimeline(Struct, frozen=True):
    """The life of one message, oldest first."""

    message_id: str
    status: str
    #: Nothing more is planned.
    final: bool
    entries: list[TimelineEntry]


class Timelines:
    """What happened to the messages of a project."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def get(self, project_id: ProjectId, message_id: str) -> MessageTimeline:
        """The timeline of a message, also while its content is not stored. Raises NotFound."""
        if not is_ulid(message_id):
            raise _no_such_message()
        async with self._pool.acquire() as connection:
            row = await connection.fetchrow(
                "SELECT status, final FROM switchboard.messages WHERE id = $1 AND project_id = $2",
                message_id, project_id,
            )  # fmt: skip
            if row is None:
                raise _no_such_message()
            moments = await timeline.read(connection, MessageId(message_id))
        return MessageTimeline(message_id, row["status"], row["final"], _entries(tell(moments)))


def _entries(lines: list[Line]) -> list[TimelineEntry]:
    return [
        TimelineEntry(
            line.at,
            round((line.at - lines[0].at).total_seconds(), 6),
            line.kind,
            line.what.strip(),
            line.why,
            line.channel,
            line.step,
            line.submission,
            line.status,
            line.reason,
            line.candidates,
        )
        for line in lines
    ]


def _no_such_message() -> NotFound:
    return NotFound("There is no such message, or it is not planned yet.")

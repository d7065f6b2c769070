"""The ledger's database part: what of DESIGN 11 can be read off the tables of an installation that works on.

One read-only snapshot, so that what services do meanwhile makes no false finding. What is still on its way is left
out: a fact that has to lead to another one is looked at only when it is `settle_seconds` old.
"""

from typing import Final

from msgspec import Struct

from switchboard.store.pool import Connection

#: How long what follows from a fact may take, retries over a short outage included.
SETTLE_SECONDS: Final = 300
#: Findings told for each check; more of one kind say nothing new.
MOST_TOLD: Final = 100
#: How old an accepted message may be before its rows may be gone.
_KEPT: Final = "interval '4 days'"


class Check(Struct, frozen=True):
    """One thing that must never be found."""

    #: What it is called, as people look it up.
    name: str
    #: What is wrong with what it finds.
    says: str
    #: Yields `subject` and `detail`; $1 is the number of seconds that things may take.
    query: str


class Finding(Struct, frozen=True):
    """Something that must never be."""

    check: str
    #: The id of the message, lane, stream or callback.
    subject: str
    what: str


CHECKS: Final = (
    Check(
        "lost",
        "its client was told 2xx and it was never planned",
        f"""
        SELECT i.message_id AS subject, 'accepted ' || i.accepted_at AS detail FROM switchboard.idempotency i
        WHERE i.published AND i.accepted_at < switchboard.now() - make_interval(secs => $1)
          AND i.accepted_at > switchboard.now() - {_KEPT}
          AND NOT EXISTS (SELECT FROM switchboard.messages m WHERE m.id = i.message_id)
        """,
    ),
    Check(
        "forgotten",
        "its deadline passed and nothing was decided",
        """
        SELECT id AS subject, phase || ', due ' || next_due AS detail FROM switchboard.messages
        WHERE NOT final AND next_due < switchboard.now() - make_interval(secs => $1)
        """,
    ),
    Check(
        "outcome unheard",
        "how the attempt went is recorded and its message knows nothing of it",
        """
        SELECT a.message_id AS subject, a.step || '.' || a.submission AS detail FROM switchboard.attempts a
        JOIN switchboard.messages m ON m.id = a.message_id
        WHERE a.state = 'finished' AND a.finished_at < switchboard.now() - make_interval(secs => $1)
          AND m.phase IN ('SENDING', 'CLAIMED') AND (m.step, m.submission) = (a.step, a.submission)
        """,
    ),
    Check(
        "attempt left open",
        "its message has moved on and the attempt is still planned",
        """
        SELECT a.message_id AS subject, a.step || '.' || a.submission AS detail FROM switchboard.attempts a
        JOIN switchboard.messages m ON m.id = a.message_id
        WHERE a.state = 'planned' AND (m.final OR (m.step, m.submission) <> (a.step, a.submission))
          AND COALESCE(m.final_at, m.status_at) < switchboard.now() - make_interval(secs => $1)
        """,
    ),
    Check(
        "attempt in no line",
        "the attempt has no slot and waits in no lane",
        """
        SELECT a.message_id AS subject, a.step || '.' || a.submission AS detail FROM switchboard.attempts a
        WHERE a.state = 'planned' AND a.send_before IS NULL AND $1 >= 0
          AND NOT EXISTS (SELECT FROM switchboard.lane_items i WHERE (i.message_id, i.step, i.submission)
                                                                   = (a.message_id, a.step, a.submission))
        """,
    ),
    Check(
        "item without attempt",
        "the lane item's attempt is not planned any more",
        """
        SELECT i.message_id AS subject, i.lane AS detail FROM switchboard.lane_items i
        LEFT JOIN switchboard.attempts a USING (message_id, step, submission)
        WHERE a.state IS DISTINCT FROM 'planned' AND i.token IS NULL AND i.abandoned_at IS NULL
          AND i.entered_at < switchboard.now() - make_interval(secs => $1)
        """,
    ),
    Check(
        "lane count",
        "the lane's count of what waits is not what waits",
        """
        SELECT l.id AS subject, l.waiting || ' counted, ' || count(i.message_id) || ' there' AS detail
        FROM switchboard.lanes l LEFT JOIN switchboard.lane_items i ON i.lane = l.id
        WHERE l.kind = 'dispatch' AND $1 >= 0 GROUP BY l.id HAVING l.waiting <> count(i.message_id)
        """,
    ),
    Check(
        "lane in flight",
        "the lane's count of what is in flight is not what is in flight",
        """
        SELECT l.id AS subject, l.in_flight || ' counted, ' || COALESCE(a.number, 0) || ' there' AS detail
        FROM switchboard.lanes l LEFT JOIN (
            SELECT lane, count(*) AS number FROM switchboard.attempts, unnest(lanes) AS lane GROUP BY lane
        ) a ON a.lane = l.id
        WHERE l.kind <> 'endpoint' AND $1 >= 0 AND l.in_flight <> COALESCE(a.number, 0)
        """,
    ),
    Check(
        "callback in no stream",
        "the callback waits and no schedule tries it",
        """
        SELECT e.id AS subject, e.endpoint AS detail FROM switchboard.callback_events e
        WHERE e.state = 'waiting' AND e.recorded_at < switchboard.now() - make_interval(secs => $1)
          AND NOT EXISTS (SELECT FROM switchboard.callback_streams s
                          WHERE (s.endpoint, s.stream) = (e.endpoint, e.stream) AND s.apart IN ('', e.id))
        """,
    ),
    Check(
        "stream count",
        "the stream's count of what waits is not what waits",
        """
        SELECT s.stream AS subject, s.waiting || ' counted, ' || count(e.id) || ' there' AS detail
        FROM switchboard.callback_streams s LEFT JOIN switchboard.callback_events e
          ON e.endpoint = s.endpoint AND e.stream = s.stream AND e.state = 'waiting'
         AND CASE WHEN s.apart = '' THEN NOT e.passed ELSE e.id = s.apart END
        WHERE $1 >= 0 GROUP BY s.endpoint, s.stream, s.apart, s.waiting HAVING s.waiting <> count(e.id)
        """,
    ),
    Check(
        "expired untried",
        "the callback expired and was never tried",
        """
        SELECT id AS subject, endpoint AS detail FROM switchboard.callback_events
        WHERE state = 'expired' AND attempts = 0 AND $1 >= 0
        """,
    ),
)


async def verify(connection: Connection, *, settle_seconds: float = SETTLE_SECONDS) -> list[Finding]:
    """Everything that is found wrong, at most `MOST_TOLD` of each kind. Changes nothing.

    Reads the days that are kept: minutes on a large installation. Raises what the database raises.
    """
    found: list[Finding] = []
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        for check in CHECKS:
            rows = await connection.fetch(f"{check.query} LIMIT {MOST_TOLD}", settle_seconds, timeout=600)
            found += [Finding(check.name, row["subject"], f"{check.says} ({row['detail']})") for row in rows]
    return found

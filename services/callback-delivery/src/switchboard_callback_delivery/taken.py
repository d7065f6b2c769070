"""Records what most callbacks come to: their endpoint took them at the first try, straight from the topic.

Nothing waits behind them and no lane has to learn of them: one statement writes all there is to say of a batch.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from switchboard.callbacks.schedule import LIFETIME, Verdict
from switchboard.ids import LaneId
from switchboard.store.pool import Connection
from switchboard.telemetry.export import SETTLE
from switchboard.telemetry.sampling import is_sampled
from switchboard.timeline import Kind, encode_entry
from switchboard_callback_delivery.event import Event, Outcome
from switchboard_callback_delivery.happening import happening_of, has_timeline, oldest_with_timeline


def is_plain(outcome: Outcome) -> bool:
    """Tell whether there is nothing to say of it but that it was taken."""
    return (
        outcome.verdict is Verdict.TAKEN
        and outcome.granted_at is not None
        and outcome.lease is None
        and not outcome.lane_is_troubled
    )


async def record_taken(
    connection: Connection,
    outcomes: Sequence[Outcome],
    news: Mapping[LaneId, Event],
    trace_ratio: float | None,
) -> None:
    """Write plain outcomes, and of the endpoints that are `news` (one event of each) that they take callbacks.

    An event that has a row is left alone.
    """
    events = [outcome.event for outcome in outcomes]
    moment = max(outcome.granted_at for outcome in outcomes if outcome.granted_at is not None)
    oldest = oldest_with_timeline(moment)
    told = [happening_of(outcome, moment) for outcome in outcomes if has_timeline(outcome.event, oldest)]
    traced = {row.message_id for row in told if trace_ratio is not None and is_sampled(row.message_id, trace_ratio)}
    lanes = sorted(news)
    await connection.execute(
        _RECORD,
        [event.id for event in events],
        [event.project_id for event in events],
        [event.app_id for event in events],
        [event.endpoint for event in events],
        [event.webhook_id for event in events],
        [event.target for event in events],
        [event.trigger.value for event in events],
        [event.stream for event in events],
        [event.sequence for event in events],
        [event.event_at for event in events],
        [outcome.status for outcome in outcomes],
        [None if outcome.kept_seconds is None else outcome.event.body for outcome in outcomes],
        [outcome.kept_seconds for outcome in outcomes],
        LIFETIME,
        [row.message_id for row in told],
        [row.cause for row in told],
        [encode_entry(row.entry) for row in told],
        Kind.CALLBACK.value,
        lanes,
        [news[lane].app_id for lane in lanes],
        [news[lane].webhook_id for lane in lanes],
        sorted(traced),
        SETTLE,
    )


_RECORD: Final = """
WITH moment AS MATERIALIZED (SELECT switchboard.now() AS now),
told AS (
    INSERT INTO switchboard.timeline (message_id, at, kind, cause, entry)
    SELECT new.message_id, moment.now, $18, new.cause, new.entry
    FROM moment, unnest($15::text[], $16::text[], $17::bytea[]) AS new (message_id, cause, entry)
),
health AS (
    INSERT INTO switchboard.callback_endpoints (endpoint, app_id, webhook_id, taken_at)
    SELECT new.endpoint, new.app_id, new.webhook_id, moment.now
    FROM moment, unnest($19::text[], $20::text[], $21::text[]) AS new (endpoint, app_id, webhook_id)
    ON CONFLICT (endpoint) DO UPDATE SET taken_at = EXCLUDED.taken_at, failing_since = NULL, suspended_at = NULL
),
traced AS (
    INSERT INTO switchboard.trace_exports (message_id, due_at)
    SELECT new.message_id, moment.now + $23 FROM moment, unnest($22::text[]) AS new (message_id)
    ON CONFLICT (message_id) DO UPDATE SET due_at = EXCLUDED.due_at
)
INSERT INTO switchboard.callback_events (id, project_id, app_id, endpoint, webhook_id, target, trigger, stream,
    sequence, event_at, recorded_at, expires_at, state, attempts, last_tried_at, last_status, last_error, last_answer,
    finished_at, body, body_until)
SELECT new.id, new.project_id, new.app_id, new.endpoint, new.webhook_id, new.target, new.trigger, new.stream,
    new.sequence, new.event_at, moment.now, moment.now + $14, 'delivered', 1, moment.now, new.status, '', '',
    moment.now, new.body, moment.now + make_interval(secs => new.kept_seconds)
FROM moment, unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
    $9::bigint[], $10::timestamptz[], $11::smallint[], $12::bytea[], $13::double precision[])
    AS new (id, project_id, app_id, endpoint, webhook_id, target, trigger, stream, sequence, event_at, status, body,
    kept_seconds)
ON CONFLICT (id) DO NOTHING
"""

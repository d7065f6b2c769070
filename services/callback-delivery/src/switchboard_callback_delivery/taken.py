"""Records what most callbacks come to: their endpoint took them at the first try, straight from the topic.

Nothing waits behind them and no lane has to learn of them: one statement writes all there is to say of a batch.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from switchboard.callbacks.schedule import LIFETIME, Verdict
from switchboard.ids import LaneId
from switchboard.store.pool import Pool
from switchboard.store.writes import Writes, columns_of
from switchboard.telemetry.export import ask_for_export
from switchboard.telemetry.sampling import is_sampled
from switchboard.timeline import encode_entry
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
    pool: Pool, outcomes: Sequence[Outcome], news: Mapping[LaneId, Event], trace_ratio: float | None
) -> None:
    """Write plain outcomes, and of the endpoints that are `news` (one event of each) that they take callbacks.

    An event that has a row is left alone.
    """
    # All parts tell the same time: that of the database when it writes them.
    writes = Writes()
    writes.add("moment", "SELECT switchboard.now() AS now OFFSET 0")
    writes.add("recorded", _RECORD, *columns_of([_row(outcome) for outcome in outcomes]), LIFETIME)
    granted_at = max(outcome.granted_at for outcome in outcomes if outcome.granted_at is not None)
    oldest = oldest_with_timeline(granted_at)
    told = [happening_of(outcome, granted_at) for outcome in outcomes if has_timeline(outcome.event, oldest)]
    if told:
        rows = [(row.message_id, row.kind.value, row.cause, encode_entry(row.entry)) for row in told]
        writes.add("told", _TELL, *columns_of(rows))
        if trace_ratio is not None:
            ask_for_export(writes, [row.message_id for row in told if is_sampled(row.message_id, trace_ratio)])
    if news:
        rows_of_lanes = [(lane, news[lane].app_id, news[lane].webhook_id) for lane in sorted(news)]
        writes.add("healthy", _HEALTHY, *columns_of(rows_of_lanes))
    await writes.execute(pool)


def _row(outcome: Outcome) -> tuple[object, ...]:
    event = outcome.event
    return (
        event.id, event.project_id, event.app_id, event.endpoint, event.webhook_id, event.target, event.trigger.value,
        event.stream, event.sequence, event.event_at, outcome.status,
        None if outcome.kept_seconds is None else event.body, outcome.kept_seconds,
    )  # fmt: skip


_RECORD: Final = """
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
_TELL: Final = """
INSERT INTO switchboard.timeline (message_id, at, kind, cause, entry)
SELECT new.message_id, moment.now, new.kind, new.cause, new.entry
FROM moment, unnest($1::text[], $2::text[], $3::text[], $4::bytea[]) AS new (message_id, kind, cause, entry)
"""
_HEALTHY: Final = """
INSERT INTO switchboard.callback_endpoints (endpoint, app_id, webhook_id, taken_at)
SELECT new.endpoint, new.app_id, new.webhook_id, moment.now
FROM moment, unnest($1::text[], $2::text[], $3::text[]) AS new (endpoint, app_id, webhook_id)
ON CONFLICT (endpoint) DO UPDATE SET taken_at = EXCLUDED.taken_at, failing_since = NULL, suspended_at = NULL
"""

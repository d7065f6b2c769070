"""What `verify` finds: one planted row a check, and nothing in a database where nothing is wrong."""

import asyncpg
import pytest

from switchboard.ids import mint
from switchboard.store.verify import CHECKS, verify

_PROJECT = "5a0d1c3e-7b44-4f0e-9f2d-2f6d5a8c1b90"
_MESSAGE = """
INSERT INTO switchboard.messages (id, project_id, app_id, direction, mode, accepted_at, channel, identity, phase,
                                  status, status_at, final, next_due, step, submission, final_at)
VALUES ($1, '{project}', 'app', 'TO_CONTACT', 'DISPATCH', now(), 'SMS', '1', '{phase}', 'QUEUED', now(), {final},
        now() + interval '{due}', 0, {submission}, CASE WHEN {final} THEN now() END)
"""
_ATTEMPT = """
INSERT INTO switchboard.attempts (message_id, step, submission, app_id, account, channel, identity, state, send_before,
                                  lanes)
VALUES ($1, 0, 1, 'app', 'SMS:x', 'SMS', '1', '{state}', {before}, '{lanes}')
"""
_LANE = """
INSERT INTO switchboard.lanes (id, kind, interval_ns, tat, max_in_flight, waiting, in_flight)
VALUES ('lane', 'dispatch', 1, now(), 10, {waiting}, {in_flight})
"""
_EVENT = """
INSERT INTO switchboard.callback_events (id, project_id, app_id, endpoint, webhook_id, target, trigger, stream,
                                         sequence, event_at, recorded_at, expires_at, state, body)
VALUES ($1, '{project}', 'app', 'endpoint:w', 'w', 't', 'MESSAGE_DELIVERY', $1, 1, now(), now(), now(), 'waiting', 'b')
"""
_STREAM = """
INSERT INTO switchboard.callback_streams (endpoint, stream, head, head_sequence, expires_at, waiting,
                                          due_at, scheduled_at)
VALUES ('endpoint:w', $1, $1, 1, now(), 2, now(), now())
"""
_ITEM = """
INSERT INTO switchboard.lane_items (message_id, step, submission, lane, priority, sequence, units, other_channel_left,
                                    entered_at)
VALUES ($1, 0, 1, 'lane', 1, 1, 1, false, now())
"""


def _message(phase: str = "SENDING", *, due: str = "1 hour", final: bool = False, submission: int = 1) -> str:
    return _MESSAGE.format(project=_PROJECT, phase=phase, due=due, final=final, submission=submission)


def _attempt(state: str = "planned", *, before: str = "now()", lanes: str = "{}") -> str:
    return _ATTEMPT.format(state=state, before=before, lanes=lanes)


#: The check, and the rows that it is for.
PLANTED = {
    "lost": [
        "INSERT INTO switchboard.idempotency (project_id, key, body_hash, message_id, accepted_at, published)"
        f" VALUES ('{_PROJECT}', 'k', 'h', $1, now() - interval '1 hour', true)"
    ],
    "forgotten": [_message(due="-1 hour")],
    "outcome unheard": [
        _message(),
        _attempt("claimed"),
        "UPDATE switchboard.attempts SET state = 'finished', finished_at = now() - interval '1 minute'",
    ],
    "attempt left open": [_message("FINAL", final=True), _attempt()],
    "attempt in no line": [_message(), _attempt(before="NULL")],
    "item without attempt": [_message(), _attempt("cancelled"), _LANE.format(waiting=1, in_flight=0), _ITEM],
    "lane count": [_LANE.format(waiting=1, in_flight=0)],
    "lane in flight": [_LANE.format(waiting=0, in_flight=1)],
    "callback in no stream": [_EVENT.format(project=_PROJECT)],
    "stream count": [_EVENT.format(project=_PROJECT), _STREAM],
}


@pytest.mark.parametrize("name", PLANTED)
async def test_what_is_planted_is_found_by_its_check_alone(database: str, name: str) -> None:
    connection = await asyncpg.connect(database)
    try:
        subject = mint()
        for statement in PLANTED[name]:
            await connection.execute(statement, *([subject] if "$1" in statement else []))

        found = await verify(connection, settle_seconds=0)

        assert [finding.check for finding in found] == [name]
    finally:
        await connection.close()


async def test_a_lane_that_counts_right_is_left_alone(database: str) -> None:
    connection = await asyncpg.connect(database)
    try:
        subject = mint()
        await connection.execute(_message(), subject)
        await connection.execute(_attempt("claimed", lanes="{lane}"), subject)
        await connection.execute(_LANE.format(waiting=0, in_flight=1))

        assert await verify(connection, settle_seconds=0) == []
    finally:
        await connection.close()


async def test_what_is_still_on_its_way_is_left_alone(database: str) -> None:
    connection = await asyncpg.connect(database)
    try:
        await connection.execute(_message(due="-1 minute"), mint())

        assert await verify(connection, settle_seconds=300) == []
    finally:
        await connection.close()


def test_every_check_is_planted_for() -> None:
    # A constraint of the table keeps what the last one looks for out of a database that is whole.
    assert {check.name for check in CHECKS} - PLANTED.keys() == {"expired untried"}

"""What planning under lock promises, on a real database."""

from datetime import datetime, timedelta

import asyncpg
import pytest

from switchboard.ids import AccountKey, AppId, MessageId
from switchboard.lanes import Ask, Ended, GateClosed, Limits, Slot, Waiting, account_lane, dispatch_lane
from switchboard.lanes import release, reserve

LIMITS = Limits(per_second=20, max_in_flight=100)
LANE = dispatch_lane(AppId("app"), "SMS")
ACCOUNT = account_lane(AccountKey("smsc"))
NOW = datetime.fromisoformat("2026-03-01T12:00:00Z")


def ask(number: int, **changes: object) -> Ask:
    values = {
        "message_id": MessageId(f"message-{number}"), "step": 0, "submission": 1, "dispatch_lane": LANE,
        "dispatch_limits": LIMITS, **changes,
    }  # fmt: skip
    return Ask(**values)  # type: ignore[arg-type]


@pytest.fixture
async def connection(database: str):
    connection = await asyncpg.connect(database)
    yield connection
    await connection.close()


async def test_an_idle_lane_gives_slots_up_to_100_ms_ahead_and_the_rest_wait(connection):
    async with connection.transaction():
        decisions = await reserve(connection, [ask(n) for n in range(4)], NOW)

    assert [d.slot_at - NOW for d in decisions[:2]] == [timedelta(0), timedelta(milliseconds=50)]
    assert decisions[2:] == [Waiting(LANE, 1), Waiting(LANE, 2)]

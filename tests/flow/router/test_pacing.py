"""Lanes as the router uses them: provider accounts, priority, closed gates, purges, deleted apps, rates."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace
from tests.flow.router.conftest import CHAT, PHONE, SMS, TELEGRAM, Router
from tests.flow.router.line import Line

from switchboard.channel.outcome import Rejected
from switchboard.content import AppMessage, TextMessage
from switchboard.identity import ChannelIdentity, ChannelName
from switchboard.ids import LaneId, MessageId
from switchboard.lanes import operate
from switchboard.lanes.gone import GoneApps
from switchboard.reason import Reason, ReasonCode
from switchboard.records import AttemptFinished, MessageAccepted, TimerFired
from switchboard.rules.route import Route
from switchboard.testing import wait_until

LONG = AppMessage(text_message=TextMessage("x" * 400))


@pytest.fixture
def line(router: Router) -> Line:
    return Line(router)


def lane_of(router: Router, channel: str = "SMS") -> LaneId:
    return LaneId(f"dispatch:{router.app.id}:{channel}")


async def waiting(router: Router, channel: str = "") -> list[str]:
    rows = await router.context.pool.fetch(
        "SELECT message_id FROM lane_items WHERE lane LIKE $1 ORDER BY priority, sequence", f"%{channel}"
    )
    return [row["message_id"] for row in rows]


def statuses(callbacks: Sequence[Any]) -> list[str]:
    reports = [msgspec.json.decode(callback.body).get("message_delivery_report") for callback in callbacks]
    return [report["status"] for report in reports if report]


async def fill(router: Router, **fields: Any) -> list[MessageAccepted]:
    """Plan more than may start at once."""
    records = [router.accepted(PHONE, **fields) for _ in range(5)]
    await router.plan(*records)
    return records


async def test_an_account_is_paced_in_parts_over_all_its_apps(router: Router, make_router: Any, line: Line) -> None:
    await router.context.configuration.store.put_account(
        SMS, "main", b'{"host": "127.0.0.1", "system_id": "sb", "account_messages_per_second": 0.1}'
    )

    async def is_heard() -> bool:
        [account] = await router.context.configuration.accounts(SMS)
        return bool(account.settings.account_rate == 0.1)

    await wait_until(is_heard)
    other: Router = await make_router()
    first = replace(router.accepted(PHONE), message=LONG)
    await router.plan(first)
    await other.plan(second := other.accepted(PHONE))

    # Three parts at one in ten seconds hold the account for thirty, whichever app comes next.
    assert [order.message_id for order in await router.dispatched(SMS)] == [first.message_id]
    await line.drain(15)
    assert line.granted == []
    await line.drain(15)
    assert line.granted == [second.message_id]
    rate = await router.context.pool.fetchval("SELECT interval_ns FROM lanes WHERE id = 'account:SMS:main'")
    assert rate == 10_000_000_000


async def test_high_goes_before_normal_in_one_lane(router: Router, line: Line) -> None:
    await fill(router)
    normal = await waiting(router)
    urgent = router.accepted(PHONE, high_priority=True)
    await router.plan(urgent)

    await line.drain(1)

    assert line.granted[0] == urgent.message_id
    while await waiting(router):
        await line.drain(1)
    assert line.granted[1:] == normal


async def test_what_waits_at_a_gate_that_closes_goes_to_the_other_channel(router: Router, line: Line) -> None:
    # Planned by chat first: the lane on SMS is full of messages that have nowhere else to go.
    alone = await fill(router)
    both = [router.accepted(PHONE, CHAT) for _ in range(3)]
    await router.plan(*both)
    await router.context.pool.execute(
        "UPDATE lanes SET gate = 'closed', fail_streak = 10, probe_at = now() + interval '60 s'"
        " WHERE id = $1", lane_of(router),
    )  # fmt: skip

    await line.drain()

    assert [record.message_id for record in line.told] == [record.message_id for record in both]
    moved = {order.message_id for order in await router.dispatched(TELEGRAM)}
    assert moved | set(await waiting(router, "TELEGRAM")) == {record.message_id for record in both}
    assert statuses(await router.callbacks()) == ["SWITCHING_CHANNEL"] * 3
    assert set(await waiting(router, "SMS")) <= {record.message_id for record in alone}


async def test_purged_messages_end_failed_and_are_told(router: Router, line: Line) -> None:
    await fill(router)
    gone = await waiting(router)

    told = await operate.purge(router.context.pool, lane_of(router), line.tell)

    assert told == len(gone) > 0
    assert await waiting(router) == []
    assert (await router.lane())["waiting"] == 0
    assert statuses(await router.callbacks()) == ["FAILED"] * told


async def test_what_waits_of_a_deleted_app_ends_with_unknown_app(router: Router, line: Line) -> None:
    await fill(router, callback_url="https://quay.example/reports")
    gone = await waiting(router)
    sweep = GoneApps(router.context.pool, line.tell)
    assert not await sweep.run_once()
    assert line.told == []

    await router.context.configuration.store.delete_app(router.app.id)
    await sweep.run_once()

    assert gone
    assert {record.message_id for record in line.told} == set(gone)
    assert await waiting(router) == []
    assert {await router.failed_with(MessageId(message_id)) for message_id in gone} == {ReasonCode.UNKNOWN_APP}
    # The app's webhooks went with it; a message's own URL is still told.
    assert statuses(await router.callbacks()) == ["FAILED"] * len(gone)
    assert not await sweep.run_once()


async def test_a_retry_of_a_deleted_app_is_not_made(router: Router) -> None:
    sent = router.accepted(PHONE, CHAT)
    await router.plan(sent)
    await router.context.configuration.store.delete_app(router.app.id)

    async def is_heard() -> bool:
        return await router.context.configuration.app(router.app.id) is None

    await wait_until(is_heard)
    rejected = Rejected(Reason(ReasonCode.CHANNEL_REJECT, "no"))
    await router.tell(AttemptFinished(sent.message_id, 0, 1, rejected, datetime.now(UTC)))

    assert await router.failed_with(sent.message_id) is ReasonCode.UNKNOWN_APP
    assert await router.dispatched(TELEGRAM) == []


async def test_a_new_rate_holds_for_those_who_wait(router: Router, line: Line) -> None:
    await router.plan(*[router.accepted(PHONE) for _ in range(40)])
    await operate.set_rate(router.context.pool, router.app.id, 1)

    await line.drain(0.5)

    # Twenty a second would have let ten go.
    assert len(line.granted) == 1
    assert (await router.lane())["interval_ns"] == 1_000_000_000


async def test_a_message_may_pass_more_closed_gates_than_one(router: Router) -> None:
    closed = [ChannelName(name) for name in ("RCS", "VIBERBM", "MMS")]
    await router.plan(sent := router.accepted(CHAT, PHONE))
    first, last = (await router.message(sent.message_id)).route.steps
    between = [replace(last, identity=ChannelIdentity(channel, PHONE.identity)) for channel in closed]
    pool = router.context.pool
    await pool.execute("UPDATE messages SET route = $1", msgspec.json.encode(Route((first, *between, last))))
    await pool.executemany(
        "INSERT INTO lanes (id, kind, interval_ns, max_in_flight, tat, gate, probe_at)"
        " VALUES ($1, 'dispatch', 50000000, 1000, '2020-01-01Z', 'closed', switchboard.now() + interval '1 hour')",
        [(lane_of(router, channel),) for channel in closed],
    )

    refused = Rejected(Reason(ReasonCode.CHANNEL_REJECT, "no"))
    await router.tell(AttemptFinished(sent.message_id, 0, 1, refused, datetime.now(UTC)))

    assert [order.step for order in await router.dispatched(SMS)] == [4]
    assert statuses(await router.callbacks()) == ["SWITCHING_CHANNEL"] * 4


@pytest.mark.parametrize("why", ["its record is seen again", "nobody claimed it in time"])
async def test_who_has_a_slot_in_line_does_not_pass_those_before(router: Router, line: Line, why: str) -> None:
    sent = await fill(router)
    in_line = await waiting(router)
    out = [order.message_id for order in await router.dispatched(SMS)]
    await line.lease_and_die(1)

    if why == "its record is seen again":
        await router.plan(sent[-1])
    else:
        await router.context.pool.execute("UPDATE clock SET shift = shift + interval '31 s'")
        due_at = (await router.message(sent[-1].message_id)).progress.claim_due_at
        assert due_at is not None
        await router.tell(TimerFired(sent[-1].message_id, due_at))
    assert [order.message_id for order in await router.dispatched(SMS)] == out

    # Whoever takes the lane over publishes in the order of the line.
    await line.drain(11)
    assert [order.message_id for order in await router.dispatched(SMS)] == out + in_line
    state = await router.context.pool.fetchrow(
        "SELECT state, send_before > switchboard.now() AS in_time FROM attempts WHERE message_id = $1", in_line[-1]
    )
    assert state is not None
    assert (state["state"], state["in_time"]) == ("planned", True)

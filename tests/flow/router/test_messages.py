"""The router on a real database and broker: what records lead to, and that a second sight of them leads to the same."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from msgspec.structs import replace
from tests.flow.router.conftest import CHAT, PHONE, SMS, TELEGRAM, Router

from switchboard.bus import BadRecords, Record
from switchboard.channel.outcome import Accepted, FailedForNow, Rejected
from switchboard.content import ContactMessage, TextMessage
from switchboard.ids import MessageId, mint
from switchboard.reason import Reason, ReasonCode
from switchboard.records import (
    AttemptFinished,
    MessageReceived,
    ReceiptReceived,
    RetractMessage,
    StepAbandoned,
    TimerFired,
)
from switchboard.rules.progress import Phase
from switchboard.rules.route import Route
from switchboard.status import Status
from switchboard.store import timeline
from switchboard.timeline import Kind
from switchboard.topics import DISPATCH, MESSAGES_ACCEPTED

REJECTED = Reason(ReasonCode.CHANNEL_REJECT, "no")


def finished(message_id, outcome, step=0, submission=1, at=None):
    return AttemptFinished(message_id, step, submission, outcome, at or datetime.now(UTC))


def receipt(message_id, status, step=0, submission=1, provider_id="p1", **fields):
    return ReceiptReceived(message_id, step, submission, provider_id, status, datetime.now(UTC), **fields)


def told(callbacks):
    """What callbacks say, in order: the status, or SUBMIT."""
    said = []
    for callback in callbacks:
        body = msgspec.json.decode(callback.body)
        report = body.get("message_delivery_report")
        said.append(report["status"] if report else "SUBMIT")
    return said


async def test_a_message_is_planned_dispatched_and_told_about_until_it_is_delivered(router: Router):
    sent = router.accepted(PHONE)

    await router.plan(sent)
    await router.tell(finished(sent.message_id, Accepted(("p1",))))
    await router.tell(receipt(sent.message_id, Status.DELIVERED, channel_metadata={"operator": "24001"}))

    orders = await router.dispatched(SMS)
    assert [(order.message_id, order.step, order.submission) for order in orders] == [(sent.message_id, 0, 1)]
    assert orders[0].identity == PHONE
    callbacks = await router.callbacks()
    assert told(callbacks) == ["SUBMIT", "QUEUED_ON_CHANNEL", "DELIVERED"]
    assert [callback.sequence for callback in callbacks] == [1, 2, 3]
    body = msgspec.json.decode(callbacks[-1].body)
    assert body["correlation_id"] == "corr-5521"
    assert body["message_delivery_report"]["metadata"] == "order-5521"
    facts = msgspec.json.decode(body["message_metadata"])
    assert (set(facts), facts["operator"]) == ({"sms_batch_id", "operator"}, "24001")
    message = await router.message(sent.message_id)
    assert (message.progress.phase, message.progress.status) == (Phase.FINAL, Status.DELIVERED)


async def test_a_rejection_fails_over_to_the_next_channel(router: Router):
    sent = router.accepted(PHONE, CHAT)

    await router.plan(sent)
    await router.tell(finished(sent.message_id, Rejected(REJECTED)))
    await router.tell(finished(sent.message_id, Accepted(("777000:1",)), 1, 2))

    [order] = await router.dispatched(TELEGRAM)
    assert (order.step, order.submission, order.identity) == (1, 2, CHAT)
    assert told(await router.callbacks()) == ["SWITCHING_CHANNEL", "SUBMIT", "QUEUED_ON_CHANNEL"]
    assert (await router.message(sent.message_id)).progress.is_final


async def test_records_seen_again_write_nothing_and_publish_the_same_ids(router: Router):
    sent = router.accepted(PHONE)
    accepted = finished(sent.message_id, Accepted(("p1",)))
    for _ in range(2):
        await router.plan(sent)
    for _ in range(2):
        await router.tell(accepted)

    orders = await router.dispatched(SMS)
    assert len(orders) == 2
    assert orders[0] == orders[1]
    callbacks = await router.callbacks()
    assert len(callbacks) == 4
    assert len({callback.callback_id for callback in callbacks}) == 2
    assert len({bytes(callback.body) for callback in callbacks}) == 2
    async with router.context.pool.acquire() as connection:
        moments = await timeline.read(connection, sent.message_id)
    assert [moment.kind for moment in moments] == [Kind.PLANNED, Kind.OUTCOME]


async def test_a_planned_record_seen_again_after_the_attempt_was_claimed_dispatches_nothing(router: Router):
    sent = router.accepted(PHONE)
    await router.plan(sent)
    await router.context.pool.execute("UPDATE attempts SET state = 'claimed', claimed_at = switchboard.now()")

    await router.plan(sent)

    assert len(await router.dispatched(SMS)) == 1


async def test_a_planned_record_seen_again_after_its_time_to_be_claimed_ran_out_gets_it_anew(router: Router):
    sent = router.accepted(PHONE)
    await router.plan(sent)
    await router.context.pool.execute("UPDATE clock SET shift = '40 s'")

    await router.plan(sent)

    first, again = await router.dispatched(SMS)
    assert again.send_before > first.send_before + timedelta(seconds=30)
    stored = await router.context.pool.fetchval("SELECT send_before FROM attempts")
    assert stored == again.send_before


async def test_of_a_purged_message_nothing_is_published_again(router: Router):
    sent = router.accepted(PHONE)
    await router.plan(sent)
    await router.context.pool.execute("UPDATE messages SET body = NULL")

    await router.plan(sent)

    assert len(await router.dispatched(SMS)) == 1


async def test_a_retry_is_dispatched_when_its_time_comes(router: Router):
    sent = router.accepted(PHONE)
    await router.plan(sent)
    await router.tell(finished(sent.message_id, FailedForNow(REJECTED, retry_after_seconds=60)))
    waiting = await router.message(sent.message_id)
    assert waiting.progress.retry_at is not None

    await router.tell(TimerFired(sent.message_id, waiting.progress.retry_at))
    assert len(await router.dispatched(SMS)) == 1

    await router.context.pool.execute("UPDATE clock SET shift = '61 s'")
    await router.tell(TimerFired(sent.message_id, waiting.progress.retry_at))

    assert [order.submission for order in await router.dispatched(SMS)] == [1, 2]


async def test_an_attempt_nobody_claims_is_published_once_more_and_then_tried_again_later(router: Router):
    sent = router.accepted(PHONE)
    await router.plan(sent)
    notes = []
    for seconds in (31, 62):
        await router.context.pool.execute("UPDATE clock SET shift = make_interval(secs => $1)", seconds)
        due_at = (await router.message(sent.message_id)).progress.claim_due_at
        assert due_at is not None
        await router.tell(TimerFired(sent.message_id, due_at))
        row = await router.context.pool.fetchrow("SELECT state, republished FROM attempts")
        assert row is not None
        notes.append(((await router.message(sent.message_id)).progress.phase, row["state"], row["republished"]))

    assert notes == [("SENDING", "planned", True), ("RETRYING", "cancelled", True)]
    assert [order.submission for order in await router.dispatched(SMS)] == [1, 1]


async def test_when_its_ttl_is_up_a_channel_that_can_is_asked_to_take_the_message_back(router: Router):
    await router.plan(sent := router.accepted(PHONE, ttl_seconds=30))
    [step] = (await router.message(sent.message_id)).route.steps
    route = Route((replace(step, can_retract=True),))
    await router.context.pool.execute("UPDATE messages SET route = $1", msgspec.json.encode(route))
    await router.tell(finished(sent.message_id, Accepted(("p1", "p2"))))
    await router.context.pool.execute("UPDATE clock SET shift = '31 s'")

    for _ in range(2):
        await router.tell(TimerFired(sent.message_id, sent.accepted_at + timedelta(seconds=30)))

    orders = [one for one in await router._all(DISPATCH, SMS) if isinstance(one, RetractMessage)]
    assert {(one.message_id, one.step, one.submission, one.identity, one.provider_ids) for one in orders} == {
        (sent.message_id, 0, 1, PHONE, ("p1", "p2"))
    }
    assert not (await router.message(sent.message_id)).progress.is_final


async def test_a_timer_acts_on_an_outcome_that_was_recorded_and_never_told(router: Router):
    sent = router.accepted(PHONE)
    await router.plan(sent)
    await router.context.pool.execute(
        "UPDATE attempts SET state = 'finished', claimed_at = now(), finished_at = now(), outcome = $1",
        msgspec.json.encode(Accepted(("p1",))),
    )

    timer = TimerFired(sent.message_id, sent.accepted_at)
    await router.tell(timer)
    await router.tell(finished(sent.message_id, Accepted(("p1",))))
    assert told(await router.callbacks()) == ["SUBMIT", "QUEUED_ON_CHANNEL"]

    await router.tell(timer)

    callbacks = await router.callbacks()
    assert told(callbacks) == ["SUBMIT", "SUBMIT", "QUEUED_ON_CHANNEL", "QUEUED_ON_CHANNEL"]
    assert len({callback.callback_id for callback in callbacks}) == 2


async def test_receipts_act_on_an_outcome_that_was_recorded_and_never_told(router: Router):
    sent = router.accepted(PHONE)
    await router.plan(sent)
    await router.context.pool.execute(
        "UPDATE attempts SET state = 'finished', claimed_at = now(), finished_at = now(), outcome = $1",
        msgspec.json.encode(Accepted(("p1", "p2"))),
    )

    await router.tell(receipt(sent.message_id, Status.DELIVERED, provider_id="p1"))
    await router.tell(receipt(sent.message_id, Status.DELIVERED, provider_id="p2"))

    assert told(await router.callbacks()) == ["SUBMIT", "QUEUED_ON_CHANNEL", "DELIVERED"]
    message = await router.message(sent.message_id)
    assert (message.progress.phase, message.progress.status) == (Phase.FINAL, Status.DELIVERED)
    assert (await router.lane())["in_flight"] == 0


async def test_lanes_count_what_is_in_flight_and_what_waits(router: Router):
    first, *others = [router.accepted(PHONE) for _ in range(5)]
    await router.plan(first, *others)
    lane = await router.lane()
    assert lane["in_flight"] + lane["waiting"] == 5
    assert lane["waiting"] > 0

    await router.tell(finished(first.message_id, Accepted(("p1",))))

    after = await router.lane()
    assert after["in_flight"] == lane["in_flight"] - 1


async def test_an_expired_message_leaves_its_lane(router: Router):
    messages = [router.accepted(PHONE, ttl_seconds=30) for _ in range(5)]
    await router.plan(*messages)
    waiting = [row["message_id"] for row in await router.context.pool.fetch("SELECT message_id FROM lane_items")]
    await router.context.pool.execute("UPDATE clock SET shift = '31 s'")

    for message_id in waiting:
        await router.tell(TimerFired(MessageId(message_id), messages[0].accepted_at))

    lane = await router.lane()
    assert lane["waiting"] == 0
    assert await router.failed_with(MessageId(waiting[0])) is ReasonCode.MESSAGE_EXPIRED


async def test_an_abandoned_step_moves_on(router: Router):
    sent = router.accepted(PHONE, CHAT)
    await router.plan(sent)

    await router.tell(StepAbandoned(sent.message_id, 0, 1, REJECTED))

    assert [order.step for order in await router.dispatched(TELEGRAM)] == [1]
    state = await router.context.pool.fetchval("SELECT state FROM attempts WHERE step = 0")
    assert state == "cancelled"


async def test_a_message_of_a_deleted_app_fails_at_once(router: Router):
    sent = router.accepted(PHONE)
    await router.context.pool.execute("UPDATE apps SET deleted_at = now()")
    await router.context.configuration.hears()

    await router.plan(sent)

    assert await router.failed_with(sent.message_id) is ReasonCode.UNKNOWN_APP


async def test_a_message_without_a_channel_fails_and_says_why(router: Router):
    sent = router.accepted(PHONE, channel_priority_order=(TELEGRAM,))

    await router.plan(sent)

    [callback] = await router.callbacks()
    report = msgspec.json.decode(callback.body)["message_delivery_report"]
    assert (report["status"], report["reason"]["code"]) == ("FAILED", "NO_CHANNEL_IDENTITY_FOR_CONTACT")


async def test_a_broken_record_is_left_to_the_bus_and_its_neighbours_are_planned(router: Router):
    good = router.accepted(PHONE)
    broken = Record("t", 0, 99, b"k", b"{", {"type": b"MessageAccepted"}, 0)

    with pytest.raises(BadRecords) as raised:
        await router.plan_raw(broken, router.record(MESSAGES_ACCEPTED, good))
    assert list(raised.value.failures) == [0]

    assert (await router.message(good.message_id)).progress.phase is Phase.SENDING


async def test_a_message_from_a_person_is_kept_and_told_once_per_sight_with_one_id(router: Router):
    now = datetime.now(UTC)
    record = MessageReceived(
        MessageId(mint()), router.app.project_id, router.app.id, PHONE,
        ContactMessage(text_message=TextMessage("Thank you")), "mo-1", now, now, "46701239999", {"operator": "24001"},
    )  # fmt: skip

    await router.receive(record)
    await router.receive(record)

    callbacks = await router.callbacks()
    assert len({callback.callback_id for callback in callbacks}) == 1
    body = msgspec.json.decode(callbacks[0].body)
    assert body["message"]["contact_message"]["text_message"]["text"] == "Thank you"
    assert body["message"]["sender_id"] == "46701239999"
    assert await router.context.pool.fetchval("SELECT count(*) FROM messages WHERE direction = 'TO_APP'") == 1

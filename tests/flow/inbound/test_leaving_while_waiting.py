"""People who leave while messages to them wait in a lane."""

from typing import Any

import pytest
from tests.flow.inbound.conftest import CHAT, PHONE, Listener
from tests.flow.router.conftest import SMS, TELEGRAM
from tests.flow.router.line import Line

from switchboard.identity import ChannelIdentity, ChannelName
from switchboard.ids import MessageId
from switchboard.lanes import operate
from switchboard.reason import ReasonCode
from switchboard.records import MessageAccepted, TimerFired
from switchboard.rules.consent import ConsentMode, ConsentSettings, ContentType
from switchboard.trigger import Trigger

PRIMARY = ConsentSettings(ConsentMode.PRIMARY)
SECONDARY = ConsentSettings(ConsentMode.SECONDARY)
OTHER = ChannelIdentity(SMS, "46701230002")


async def line_up(listener: Listener, line: Line, *recipients: ChannelIdentity, **fields: Any) -> MessageAccepted:
    """Plan a message that waits, for its lane is paused."""
    first = listener.router.accepted(recipients[0], is_confirmation=True)
    await listener.accept(first)
    await operate.pause(listener.pool, (await listener.router.lane())["id"])
    waiting = listener.router.accepted(*recipients, **fields)
    await listener.accept(waiting)
    assert await listener.pool.fetchval("SELECT message_id FROM lane_items") == waiting.message_id
    return waiting


async def resume(listener: Listener, line: Line) -> None:
    await operate.resume(listener.pool, (await listener.router.lane())["id"])
    await line.drain(1)


async def ordered(listener: Listener, channel: ChannelName) -> set[MessageId]:
    return {order.message_id for order in await listener.router.dispatched(channel)}


async def test_it_is_not_sent_and_fails(listen):
    listener: Listener = await listen(consent=PRIMARY)
    line = Line(listener.router)
    waiting = await line_up(listener, line, PHONE)
    await listener.hear(listener.said("STOP"))

    await resume(listener, line)
    await line.hear()

    assert waiting.message_id not in await ordered(listener, SMS)
    assert await listener.router.failed_with(waiting.message_id) is ReasonCode.RECIPIENT_NOT_OPTED_IN
    reports = [body["message_delivery_report"] for body in await listener.told(Trigger.MESSAGE_DELIVERY)]
    assert [(one["message_id"], one["status"]) for one in reports] == [(waiting.message_id, "FAILED")]


async def test_it_leaves_the_lane_as_if_it_had_never_waited(listen):
    listener: Listener = await listen(consent=PRIMARY)
    line = Line(listener.router)
    await line_up(listener, line, PHONE)
    before = (await listener.router.lane())["in_flight"]
    await listener.hear(listener.said("STOP"))

    await resume(listener, line)
    await line.hear()
    await line.drain(1)

    lane = await listener.router.lane()
    assert (lane["waiting"], lane["in_flight"]) == (0, before)
    assert lane["gate"] == "open"
    assert await listener.pool.fetchval("SELECT count(*) FROM lane_items") == 0


async def test_it_goes_to_the_channel_that_was_not_left(listen):
    listener: Listener = await listen(consent=PRIMARY)
    line = Line(listener.router)
    waiting = await line_up(listener, line, PHONE, CHAT)
    await listener.hear(listener.said("STOP"))

    await resume(listener, line)
    await line.hear()

    assert waiting.message_id not in await ordered(listener, SMS)
    assert waiting.message_id in await ordered(listener, TELEGRAM)


async def test_what_no_adapter_has_claimed_is_not_published_once_more(listen):
    listener: Listener = await listen(consent=PRIMARY)
    await listener.accept(sent := listener.router.accepted(PHONE))
    await listener.hear(listener.said("STOP"))
    await listener.pool.execute("UPDATE attempts SET send_before = switchboard.now()")
    due = "UPDATE messages SET claim_due_at = switchboard.now(), next_due = switchboard.now() RETURNING next_due"

    await listener.attempts(TimerFired(sent.message_id, await listener.pool.fetchval(due)))

    assert len(await listener.router.dispatched(SMS)) == 1
    assert await listener.router.failed_with(sent.message_id) is ReasonCode.RECIPIENT_NOT_OPTED_IN
    lane = await listener.router.lane()
    assert (lane["waiting"], lane["in_flight"]) == (0, 0)


async def test_told_twice_it_ends_once(listen):
    listener: Listener = await listen(consent=PRIMARY)
    line = Line(listener.router)
    await line_up(listener, line, PHONE)
    await listener.hear(listener.said("STOP"))
    await resume(listener, line)

    told = await line.hear()
    await line.hear()

    assert len(told) == 1
    assert len(await listener.told(Trigger.MESSAGE_DELIVERY)) == 1


async def test_it_goes_if_the_person_came_back_before_its_turn(listen):
    listener: Listener = await listen(consent=PRIMARY)
    line = Line(listener.router)
    waiting = await line_up(listener, line, PHONE)
    await listener.hear(listener.said("STOP"))
    await listener.hear(listener.said("START"))

    await resume(listener, line)

    assert waiting.message_id in await ordered(listener, SMS)


@pytest.mark.parametrize(
    ("consent", "fields"),
    [
        (SECONDARY, {}),
        (ConsentSettings(), {}),
        (PRIMARY, {"is_confirmation": True}),
    ],
)
async def test_it_goes_where_consent_does_not_stop_it(listen, consent, fields):
    listener: Listener = await listen(consent=consent)
    line = Line(listener.router)
    waiting = await line_up(listener, line, PHONE, **fields)
    await listener.hear(listener.said("STOP"))

    await resume(listener, line)

    assert waiting.message_id in await ordered(listener, SMS)


async def test_others_in_the_same_line_go(listen):
    listener: Listener = await listen(consent=PRIMARY)
    line = Line(listener.router)
    marketing = {"content_type": ContentType.CONTENT_MARKETING}
    leaves = await line_up(listener, line, PHONE, **marketing)
    stays = listener.router.accepted(OTHER, **marketing)
    await listener.accept(stays)
    await listener.hear(listener.said("STOP MARKETING"))

    await resume(listener, line)

    assert await ordered(listener, SMS) >= {stays.message_id}
    assert leaves.message_id not in await ordered(listener, SMS)

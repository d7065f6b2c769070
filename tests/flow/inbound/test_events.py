"""Events in both directions, the unmapped, and news of accounts, through the router."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.flow.inbound.conftest import CHAT, PHONE, Listener
from tests.flow.router.conftest import SMS, TELEGRAM

from switchboard.bus import DeadLetterCause, Record
from switchboard.bus.policy import DeadLetterReason
from switchboard.channel.outcome import Accepted, FailedForNow, Rejected, Unknown
from switchboard.configuration import DispatchRetentionPolicy
from switchboard.content import ContactEvent, ContactMessageEvent, Empty, Reaction, ReactionAction
from switchboard.ids import ProjectId
from switchboard.reason import Reason, ReasonCode
from switchboard.records import (
    ChannelEvent,
    DispatchEvent,
    EventFinished,
    EventOverdue,
    EventReceived,
    ProcessingMode,
    UnsupportedReceived,
)
from switchboard.store.events import claim
from switchboard.store.inbound_sweeps import EventSweep
from switchboard.topics import DISPATCH, MESSAGES_ACCEPTED
from switchboard.trigger import Trigger
from switchboard_router.dead_letters import OnDeadLetter

WHY = Reason(ReasonCode.CHANNEL_FAILURE, "away")


def now() -> datetime:
    return datetime.now(UTC)


async def orders(listener: Listener) -> list[DispatchEvent]:
    found = await listener.router._all(DISPATCH, TELEGRAM)
    return [record for record in found if isinstance(record, DispatchEvent)]


async def reports(listener: Listener) -> list[Any]:
    return [body["event_delivery_report"] for body in await listener.told(Trigger.EVENT_DELIVERY)]


async def test_an_event_is_dispatched_and_delivered_when_its_channel_took_it(listener: Listener):
    await listener.accept(sent := listener.event("composing_event", CHAT))
    await listener.attempts(EventFinished(sent.event_id, Accepted(()), now()))

    [order] = await orders(listener)
    assert (order.event_id, order.identity, order.event) == (sent.event_id, CHAT, sent.event)
    assert await reports(listener) == [
        {
            "event_id": sent.event_id,
            "status": "DELIVERED",
            "channel_identity": {"channel": "TELEGRAM", "identity": CHAT.identity, "app_id": ""},
            "contact_id": "",
            "metadata": "tag-1",
            "processing_mode": "DISPATCH",
        }
    ]


async def test_a_channel_without_the_event_fails_it_at_once(listener: Listener):
    await listener.accept(listener.event("composing_event", PHONE))

    [report] = await reports(listener)
    assert report["status"] == "FAILED"
    assert report["reason"]["code"] == "BAD_REQUEST"
    assert report["reason"]["description"] == "SMS does not support composing_event."
    assert await listener.router._all(DISPATCH, SMS) == []


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        (Rejected(Reason(ReasonCode.RECIPIENT_NOT_OPTED_IN)), "RECIPIENT_NOT_OPTED_IN"),
        (FailedForNow(WHY), "CHANNEL_FAILURE"),
        (Unknown(Reason(ReasonCode.UNKNOWN)), "UNKNOWN"),
    ],
)
async def test_every_other_outcome_is_a_failure(listener: Listener, outcome, code):
    await listener.accept(sent := listener.event("composing_event", CHAT))
    await listener.attempts(EventFinished(sent.event_id, outcome, now()))

    [report] = await reports(listener)
    assert (report["status"], report["reason"]["code"]) == ("FAILED", code)


async def test_records_of_events_seen_again_lead_to_the_same_again(listener: Listener):
    sent = listener.event("composing_event", CHAT)
    finished = EventFinished(sent.event_id, Accepted(()), now())
    for record in (sent, sent):
        await listener.accept(record)
    for _ in range(2):
        await listener.attempts(finished)
    await listener.accept(sent)

    told = [one for one in await listener.router.callbacks() if one.trigger is Trigger.EVENT_DELIVERY]
    assert len(told) == 3
    assert len({(one.callback_id, bytes(one.body)) for one in told}) == 1
    assert len(set(await orders(listener))) == 1


async def test_a_claimed_event_is_not_dispatched_again(listener: Listener):
    await listener.accept(sent := listener.event("composing_event", CHAT))
    assert await claim(listener.pool, sent.event_id, 40)
    assert not await claim(listener.pool, sent.event_id, 40)

    await listener.accept(sent)

    assert len(await orders(listener)) == 1


@pytest.mark.parametrize(("claimed", "code"), [(False, "CHANNEL_FAILURE"), (True, "UNKNOWN")])
async def test_an_event_nobody_tells_about_fails_in_time(listener: Listener, claimed, code):
    await listener.accept(sent := listener.event("composing_event", CHAT))
    if claimed:
        await claim(listener.pool, sent.event_id, 40)
    told: list[EventOverdue] = []

    async def tell(records):
        told.extend(records)

    async def settled():
        return None

    await EventSweep(listener.pool, tell, settled).run_once()
    assert told == []
    await listener.pool.execute("UPDATE events SET due_at = switchboard.now() - interval '1 second'")
    await EventSweep(listener.pool, tell, settled).run_once()
    await listener.attempts(*told)

    [report] = await reports(listener)
    assert (report["event_id"], report["status"], report["reason"]["code"]) == (sent.event_id, "FAILED", code)


async def test_a_deadline_that_has_not_passed_ends_nothing(listener: Listener):
    await listener.accept(sent := listener.event("composing_event", CHAT))
    await listener.attempts(EventOverdue(sent.event_id, now() - timedelta(days=1)))

    assert await reports(listener) == []


async def test_the_outcome_after_the_deadline_changes_nothing(listener: Listener):
    await listener.accept(sent := listener.event("composing_event", CHAT))
    await listener.pool.execute("UPDATE events SET due_at = switchboard.now()")
    await listener.attempts(EventOverdue(sent.event_id, now()))
    await listener.attempts(EventFinished(sent.event_id, Accepted(()), now()))

    assert {report["status"] for report in await reports(listener)} == {"FAILED"}


async def test_an_event_of_an_unknown_app_fails(listener: Listener):
    await listener.accept(listener.event("composing_event", CHAT, project_id=ProjectId("another")))

    [report] = await reports(listener)
    assert report["reason"]["code"] == "UNKNOWN_APP"


async def test_a_dead_record_ends_its_event(listener: Listener):
    sent = listener.event("composing_event", CHAT)
    record = Record("t", 0, 0, b"k", b"{", MESSAGES_ACCEPTED.headers(sent), 0)

    for _ in range(2):
        await OnDeadLetter(listener.router.context)(
            record, DeadLetterCause(DeadLetterReason.PERMANENT, "Permanent", "no JSON", 1)
        )

    [report] = await reports(listener)
    assert (report["event_id"], report["reason"]["code"]) == (sent.event_id, "INTERNAL_ERROR")


async def test_an_event_goes_to_its_own_callback_url(listener: Listener):
    await listener.accept(listener.event("composing_event", PHONE, callback_url="http://127.0.0.1:1/own"))

    [callback] = [one for one in await listener.router.callbacks() if one.trigger is Trigger.EVENT_DELIVERY]
    assert (callback.webhook_id, callback.target) == ("", "http://127.0.0.1:1/own")


async def test_a_contact_event_is_kept_and_told_once(listener: Listener):
    event = listener.fact(EventReceived, "event_id", contact_event=ContactEvent(composing_event=Empty()))
    for _ in range(2):
        await listener.hear(event)

    [body] = await listener.told(Trigger.EVENT_INBOUND)
    told = body["event"]
    assert (told["id"], told["direction"], told["contact_event"]) == (event.event_id, "TO_APP", {"composing_event": {}})
    assert "contact_message_event" not in told
    assert await listener.pool.fetchval("SELECT count(*) FROM events") == 1


async def test_a_reaction_is_a_contact_message_event(listener: Listener):
    reaction = Reaction("👍", ReactionAction.REACT, "01K098EK8NWJ47TAN9ZT24MNPZ")
    await listener.hear(
        listener.fact(EventReceived, "event_id", contact_message_event=ContactMessageEvent(reaction_event=reaction))
    )

    [body] = await listener.told(Trigger.EVENT_INBOUND)
    assert body["event"]["contact_message_event"]["reaction_event"]["emoji"] == "👍"


async def test_events_of_conversations_name_contact_and_conversation(listen):
    listener: Listener = await listen(processing_mode=ProcessingMode.CONVERSATION)
    await listener.hear(listener.fact(EventReceived, "event_id", contact_event=ContactEvent(composing_event=Empty())))
    await listener.accept(sent := listener.event("composing_event", CHAT))
    await listener.attempts(EventFinished(sent.event_id, Accepted(()), now()))

    [inbound] = await listener.told(Trigger.EVENT_INBOUND)
    [created] = await listener.told(Trigger.CONTACT_CREATE)
    [started] = await listener.told(Trigger.CONVERSATION_START)
    contact_id = created["contact_create_notification"]["contact"]["id"]
    assert inbound["event"]["contact_id"] == contact_id
    conversation = started["conversation_start_notification"]["conversation"]
    assert inbound["event"]["conversation_id"] == conversation["id"]
    [report] = await reports(listener)
    assert report["contact_id"] == contact_id


async def test_an_event_to_a_contact_by_its_id_goes_to_the_contacts_channel(listen):
    listener: Listener = await listen(processing_mode=ProcessingMode.CONVERSATION)
    await listener.hear(listener.fact(EventReceived, "event_id", contact_event=ContactEvent(composing_event=Empty())))
    [created] = await listener.told(Trigger.CONTACT_CREATE)
    contact_id = created["contact_create_notification"]["contact"]["id"]

    await listener.accept(listener.event("composing_event", contact_id=contact_id))
    await listener.accept(listener.event("composing_event", contact_id="01K098EK8NWJ47TAN9ZT24MNPZ"))

    assert [order.identity for order in await orders(listener)] == [CHAT]
    [report] = await reports(listener)
    assert report["reason"]["code"] == "CONTACT_NOT_FOUND"


async def test_what_has_no_mapping_is_passed_on_raw(listener: Listener):
    fact = listener.fact(UnsupportedReceived, "unsupported_id", payload='{"update_id":7}')
    for _ in range(2):
        await listener.hear(fact)

    [body] = await listener.told(Trigger.UNSUPPORTED)
    told = body["unsupported_callback"]
    assert (told["channel"], told["payload"], told["id"]) == ("TELEGRAM", '{"update_id":7}', fact.unsupported_id)


async def test_news_of_an_account_are_a_channel_event(listener: Listener):
    await listener.hear(
        listener.fact(
            ChannelEvent, "channel_event_id", None, channel=TELEGRAM, event_type="QUALITY_RATING_CHANGED",
            additional_data={"quality_rating": "MEDIUM"},
        )
    )  # fmt: skip

    [body] = await listener.told(Trigger.CHANNEL_EVENT)
    assert body["channel_event_notification"] == {
        "channel_event": {
            "channel": "TELEGRAM",
            "event_type": "QUALITY_RATING_CHANGED",
            "additional_data": {"quality_rating": "MEDIUM"},
        }
    }


async def test_records_of_messages_and_events_share_a_batch(listener: Listener):
    sent, event = listener.router.accepted(PHONE), listener.event("composing_event", CHAT)
    await listener.accept(sent, event, listener.question(CHAT))
    finished = EventFinished(event.event_id, Accepted(()), now())
    await listener.attempts(finished)

    assert len(await listener.router.dispatched(SMS)) == 1
    assert [report["status"] for report in await reports(listener)] == ["DELIVERED"]


@pytest.mark.parametrize(("days", "kept"), [(0, False), (7, True)])
async def test_what_an_event_said_is_purged_by_the_apps_retention(listen, days, kept):
    listener: Listener = await listen(dispatch_retention_policy=DispatchRetentionPolicy(ttl_days=days))
    event = listener.fact(EventReceived, "event_id", contact_event=ContactEvent(composing_event=Empty()))
    await listener.hear(event)

    async def tell(records):
        raise AssertionError(records)

    async def settled():
        return now() + timedelta(minutes=1)

    await EventSweep(listener.pool, tell, settled).run_once()

    assert await listener.pool.fetchval("SELECT body IS NOT NULL FROM events") is kept
    await listener.hear(event)
    told = [one for one in await listener.router.callbacks() if one.trigger is Trigger.EVENT_INBOUND]
    assert len(told) == (2 if kept else 1)

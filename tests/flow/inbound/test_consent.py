"""Consent through the router: keywords, blocked sends, what channels tell and what refusals teach."""

from datetime import UTC, datetime
from typing import Any

import pytest
from tests.flow.inbound.conftest import CHAT, PHONE, Listener
from tests.flow.router.conftest import SMS, TELEGRAM

from switchboard.channel.outcome import Accepted, FailedForNow, Rejected
from switchboard.identity import ChannelIdentity
from switchboard.reason import Reason, ReasonCode
from switchboard.records import (
    AttemptFinished,
    OptInReceived,
    OptOutReceived,
    ProcessingMode,
    ReceiptReceived,
    TimerFired,
)
from switchboard.rules.consent import (
    TEXTS,
    ConsentList,
    ConsentMode,
    ConsentSettings,
    ContentType,
    Keyword,
    Wish,
)
from switchboard.status import Status
from switchboard.trigger import Trigger

PRIMARY = ConsentSettings(ConsentMode.PRIMARY)
SECONDARY = ConsentSettings(ConsentMode.SECONDARY)
LEFT = Reason(ReasonCode.RECIPIENT_NOT_OPTED_IN, "bot was blocked by the user")


def statuses(bodies: list[Any]) -> list[str]:
    return [body["message_delivery_report"]["status"] for body in bodies]


async def test_stop_puts_a_person_on_the_list_tells_the_app_and_is_confirmed(listen):
    listener: Listener = await listen(consent=PRIMARY)

    await listener.hear(stop := listener.said("Stop"))

    assert await listener.lists() == {ConsentList.OPT_OUT_ALL}
    [record] = await listener.audit()
    assert (record.origin, record.operation, record.list_type) == ("ORIGIN_MO", "OPERATION_INSERT", "OPT_OUT_ALL")
    [inbound] = await listener.told(Trigger.MESSAGE_INBOUND)
    assert inbound["message"]["contact_message"]["text_message"]["text"] == "Stop"
    [opt_out] = await listener.told(Trigger.OPT_OUT)
    notification = opt_out["opt_out_notification"]
    assert notification == {
        "request_id": notification["request_id"],
        "contact_id": "",
        "channel": "SMS",
        "identity": PHONE.identity,
        "status": "OPT_OUT_SUCCEEDED",
        "processing_mode": "DISPATCH",
    }
    [answer] = await listener.confirmations()
    assert answer.message.text_message is not None
    assert answer.message.text_message.text == TEXTS[Wish.OPT_OUT, "en"]
    assert answer.channel_properties == {"SMS_SENDER": stop.sender_id}
    assert answer.identities == (PHONE,)


async def test_the_confirmation_itself_is_not_blocked(listen):
    listener: Listener = await listen(consent=PRIMARY)
    await listener.hear(listener.said("STOP"))

    await listener.accept(*await listener.confirmations())

    assert len(await listener.router.dispatched(SMS)) == 1


async def test_a_message_to_somebody_who_left_fails_before_any_attempt(listen):
    listener: Listener = await listen(consent=PRIMARY)
    await listener.hear(listener.said("STOP"))

    await listener.accept(sent := listener.router.accepted(PHONE))

    assert await listener.router.failed_with(sent.message_id) is ReasonCode.RECIPIENT_NOT_OPTED_IN
    assert statuses(await listener.told(Trigger.MESSAGE_DELIVERY)) == ["FAILED"]
    assert await listener.router.dispatched(SMS) == []


@pytest.mark.parametrize(
    ("word", "content_type", "goes"),
    [
        ("STOP MARKETING", ContentType.CONTENT_MARKETING, False),
        ("STOP MARKETING", ContentType.CONTENT_NOTIFICATION, True),
        ("STOP MARKETING", ContentType.CONTENT_UNKNOWN, True),
        ("STOP NOTIFICATION", ContentType.CONTENT_NOTIFICATION, False),
        ("STOP", ContentType.CONTENT_NOTIFICATION, False),
    ],
)
async def test_what_is_blocked_depends_on_the_kind_of_message(listen, word, content_type, goes):
    listener: Listener = await listen(consent=PRIMARY)
    await listener.hear(listener.said(word))

    await listener.accept(listener.router.accepted(PHONE, content_type=content_type))

    assert bool(await listener.router.dispatched(SMS)) is goes


async def test_start_brings_a_person_back(listen):
    listener: Listener = await listen(consent=PRIMARY)
    await listener.hear(listener.said("STOP"))
    await listener.hear(listener.said("START"))

    await listener.accept(listener.router.accepted(PHONE))

    assert await listener.lists() == set()
    assert [one.operation for one in await listener.audit()] == ["OPERATION_INSERT", "OPERATION_DELETE"]
    assert len(await listener.told(Trigger.OPT_IN)) == 1
    assert len(await listener.router.dispatched(SMS)) == 1


async def test_a_keyword_seen_again_changes_and_tells_nothing_new(listen):
    listener: Listener = await listen(consent=PRIMARY)
    stop, start = listener.said("STOP"), listener.said("START")
    for record in (stop, start, stop):
        await listener.hear(record)

    assert await listener.lists() == set()
    assert len(await listener.audit()) == 2
    assert len(await listener.told(Trigger.OPT_OUT)) == 1
    assert len(await listener.confirmations()) == 2


async def test_stop_twice_is_an_update(listen):
    listener: Listener = await listen(consent=PRIMARY)
    await listener.hear(listener.said("STOP"))
    await listener.hear(listener.said("QUIT"))

    assert [one.operation for one in await listener.audit()] == ["OPERATION_INSERT", "OPERATION_UPDATE"]


async def test_one_person_on_two_channels_may_leave_and_come_back_in_one_batch(listen):
    listener: Listener = await listen(consent=PRIMARY)
    same = ChannelIdentity(TELEGRAM, PHONE.identity)

    await listener.hear(listener.said("STOP"), listener.said("START", same), listener.said("STOP", same))

    operations = [one.operation for one in await listener.audit()]
    assert sorted(operations) == ["OPERATION_DELETE", "OPERATION_INSERT", "OPERATION_INSERT"]
    assert await listener.lists() == {ConsentList.OPT_OUT_ALL}


async def test_help_is_answered_and_changes_nothing(listen):
    own = ConsentSettings(ConsentMode.PRIMARY, texts={"HELP:en": "Harbour notices. Reply STOP to leave."})
    listener: Listener = await listen(consent=own)
    await listener.hear(listener.said("help"))

    [answer] = await listener.confirmations()
    assert answer.message.text_message is not None
    assert answer.message.text_message.text == "Harbour notices. Reply STOP to leave."
    assert await listener.audit() == []
    assert await listener.told(Trigger.OPT_OUT) == []


async def test_the_apps_own_word_counts(listen):
    own = ConsentSettings(ConsentMode.PRIMARY, (Keyword("abmelden", Wish.OPT_OUT, "de"),))
    listener: Listener = await listen(consent=own)
    await listener.hear(listener.said("Abmelden"))

    assert await listener.lists() == {ConsentList.OPT_OUT_ALL}


async def test_in_the_secondary_mode_the_app_is_told_and_nothing_is_blocked_or_answered(listen):
    listener: Listener = await listen(consent=SECONDARY)
    await listener.hear(listener.said("STOP"))

    await listener.accept(listener.router.accepted(PHONE))

    assert len(await listener.told(Trigger.OPT_OUT)) == 1
    assert await listener.lists() == {ConsentList.OPT_OUT_ALL}
    assert await listener.confirmations() == []
    assert len(await listener.router.dispatched(SMS)) == 1


async def test_without_consent_management_stop_is_a_text_like_any_other(listener: Listener):
    await listener.hear(listener.said("STOP"))
    await listener.accept(listener.router.accepted(PHONE))

    assert len(await listener.told(Trigger.MESSAGE_INBOUND)) == 1
    assert await listener.told(Trigger.OPT_OUT) == []
    assert await listener.lists() == set()
    assert len(await listener.router.dispatched(SMS)) == 1


async def test_consent_is_looked_at_again_before_the_next_channel(listen):
    listener: Listener = await listen(consent=PRIMARY)
    await listener.accept(sent := listener.router.accepted(CHAT, PHONE))
    await listener.hear(listener.said("STOP"))

    refused = Rejected(Reason(ReasonCode.CHANNEL_REJECT, "no"))
    await listener.attempts(AttemptFinished(sent.message_id, 0, 1, refused, datetime.now(UTC)))

    assert await listener.router.dispatched(SMS) == []
    assert await listener.router.failed_with(sent.message_id) is ReasonCode.RECIPIENT_NOT_OPTED_IN
    assert statuses(await listener.told(Trigger.MESSAGE_DELIVERY)) == ["SWITCHING_CHANNEL", "FAILED"]


async def test_who_left_on_one_channel_is_written_to_on_another(listen):
    listener: Listener = await listen(consent=PRIMARY)
    await listener.hear(listener.fact(OptOutReceived, "opt_out_id", CHAT))

    await listener.accept(listener.router.accepted(CHAT, PHONE))

    assert await listener.router.dispatched(TELEGRAM) == []
    assert len(await listener.router.dispatched(SMS)) == 1


@pytest.mark.parametrize("consent", [PRIMARY, ConsentSettings()])
async def test_an_opt_out_that_a_channel_tells_is_called_back_and_kept_where_consent_is_on(listen, consent):
    listener: Listener = await listen(consent=consent)
    fact = listener.fact(OptOutReceived, "opt_out_id", CHAT)
    for _ in range(2):
        await listener.hear(fact)

    [body] = await listener.told(Trigger.OPT_OUT)
    assert body["opt_out_notification"]["channel"] == "TELEGRAM"
    assert await listener.lists(CHAT) == ({ConsentList.OPT_OUT_ALL} if consent.is_on else set())


async def test_an_opt_in_that_a_channel_tells_brings_back(listen):
    listener: Listener = await listen(consent=PRIMARY)
    await listener.hear(listener.fact(OptOutReceived, "opt_out_id", CHAT))
    await listener.hear(listener.fact(OptInReceived, "opt_in_id", CHAT))

    assert await listener.lists(CHAT) == set()
    assert len(await listener.told(Trigger.OPT_IN)) == 1


@pytest.mark.parametrize(("kind", "name"), [(OptInReceived, "opt_in_id"), (OptOutReceived, "opt_out_id")])
async def test_in_conversation_mode_who_leaves_or_comes_back_is_a_contact(listen, kind, name):
    listener: Listener = await listen(processing_mode=ProcessingMode.CONVERSATION)
    first, second = listener.fact(kind, name, CHAT), listener.fact(kind, name, CHAT)
    for fact in (first, second, first):
        await listener.hear(fact)

    [created] = await listener.told(Trigger.CONTACT_CREATE)
    contact = created["contact_create_notification"]["contact"]
    assert [one["identity"] for one in contact["channel_identities"]] == [CHAT.identity]
    told = await listener.told(Trigger.OPT_IN) + await listener.told(Trigger.OPT_OUT)
    named = [body.get("opt_in_notification") or body["opt_out_notification"] for body in told]
    assert [one["contact_id"] for one in named] == [contact["id"]] * 2
    assert await listener.pool.fetchval("SELECT count(*) FROM conversations") == 0


async def test_a_refusal_that_says_the_person_left_is_learned(listen):
    listener: Listener = await listen(consent=PRIMARY)
    await listener.accept(sent := listener.router.accepted(CHAT))
    for _ in range(2):
        await listener.attempts(AttemptFinished(sent.message_id, 0, 1, Rejected(LEFT), datetime.now(UTC)))
    await listener.hear(*[one for one in await listener.learned() if isinstance(one, OptOutReceived)][:1])

    assert await listener.lists(CHAT) == {ConsentList.OPT_OUT_ALL}
    assert len({one.opt_out_id for one in await listener.learned() if isinstance(one, OptOutReceived)}) == 1
    assert len(await listener.told(Trigger.OPT_OUT)) == 1


async def test_a_receipt_that_says_the_person_left_is_learned(listen):
    listener: Listener = await listen(consent=PRIMARY)
    await listener.accept(sent := listener.router.accepted(PHONE))
    at = datetime.now(UTC)
    await listener.attempts(AttemptFinished(sent.message_id, 0, 1, Accepted(("p1",)), at))
    await listener.attempts(ReceiptReceived(sent.message_id, 0, 1, "p1", Status.FAILED, at, LEFT))

    [opt_out] = await listener.learned()
    assert isinstance(opt_out, OptOutReceived)
    assert opt_out.identity == PHONE


async def test_without_consent_management_nothing_is_learned(listener: Listener):
    await listener.accept(sent := listener.router.accepted(CHAT))
    await listener.attempts(AttemptFinished(sent.message_id, 0, 1, Rejected(LEFT), datetime.now(UTC)))

    assert await listener.learned() == []


async def test_in_conversation_mode_the_contact_is_named(listen):
    listener: Listener = await listen(consent=PRIMARY, processing_mode=ProcessingMode.CONVERSATION)
    await listener.hear(listener.said("STOP"))

    [inbound] = await listener.told(Trigger.MESSAGE_INBOUND)
    [opt_out] = await listener.told(Trigger.OPT_OUT)
    assert opt_out["opt_out_notification"]["contact_id"] == inbound["message"]["contact_id"] != ""


async def test_a_closed_gate_leads_nobody_to_a_channel_they_left(listen):
    listener: Listener = await listen(consent=PRIMARY)
    await listener.accept(sent := listener.router.accepted(CHAT, PHONE))
    await listener.hear(listener.said("STOP"))
    await listener.attempts(
        AttemptFinished(sent.message_id, 0, 1, FailedForNow(LEFT, retry_after_seconds=60), datetime.now(UTC))
    )
    closed = "UPDATE lanes SET gate = 'closed', probe_at = switchboard.now() + interval '1 hour'"
    await listener.pool.execute(closed)
    due = "UPDATE messages SET retry_at = switchboard.now(), next_due = switchboard.now() RETURNING next_due"
    await listener.attempts(TimerFired(sent.message_id, await listener.pool.fetchval(due)))

    assert await listener.router.dispatched(SMS) == []
    assert await listener.router.failed_with(sent.message_id) is ReasonCode.RECIPIENT_NOT_OPTED_IN

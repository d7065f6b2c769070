"""Bodies are the reference's examples, byte for byte but for white space."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sinch.domains.conversation.sinch_events.v1.conversation_sinch_event import ConversationSinchEvent

from switchboard.callbacks import bodies
from switchboard.callbacks.bodies import BODIES, PAYLOADS, Payload, body
from switchboard.callbacks.compact import encode_content, javascript_number, timestamp
from switchboard.contact import Contact, DuplicatedIdentity
from switchboard.content import AppMessage, ContactMessage, ContactMessageEvent
from switchboard.conversation import Conversation
from switchboard.identity import ChannelIdentity, ChannelName
from switchboard.ids import AppId, ContactId, ConversationId
from switchboard.reason import Reason, ReasonCode
from switchboard.records import ProcessingMode
from switchboard.status import Status
from switchboard.trigger import Trigger

SAMPLES = Path(__file__).parent / "samples"
APP, PROJECT = "01K07KW4XC9S346Q3D25VT4F5V", "5a0d1c3e-7b44-4f0e-9f2d-2f6d5a8c1b90"
CONTACT, CONVERSATION = "01K06TM94A7E3S3E28JT97KB6C", "01K08C9K0GX45HY43KWJRP1XPA"
MESSAGE = "01K098EK8NWJ47TAN9ZT24MNPZ"
SMS = ChannelIdentity(ChannelName("SMS"), "46701230001")
MODE = ProcessingMode.CONVERSATION


def at(text: str) -> datetime:
    return datetime.fromisoformat(f"2025-07-16T{text}+00:00")


def whole(trigger: Trigger, payload: Payload, when: str, **more: Any) -> bytes:
    facts = {"app_id": APP, "project_id": PROJECT, "accepted_at": at(when), "event_at": at(when)}
    return body(trigger, payload, **{**facts, **more})


def message_delivery() -> bytes:
    return bodies.delivery_report(
        app_id=APP,
        project_id=PROJECT,
        message_id=MESSAGE,
        status=Status.FAILED,
        identity=SMS,
        accepted_at=at("09:30:00.120"),
        event_at=at("09:30:02.481553"),
        mode=MODE,
        reason=Reason(ReasonCode.RECIPIENT_NOT_REACHABLE, "The handset did not answer."),
        metadata="order-5521",
        channel_metadata={"sms_batch_id": "01K098EKZ0QY7B1N2J5RT8W4DX"},
        correlation_id="corr-5521",
        contact_id=CONTACT,
        conversation_id=CONVERSATION,
    )


def message_submit() -> bytes:
    return bodies.submit_notification(
        app_id=APP,
        project_id=PROJECT,
        message_id=MESSAGE,
        identity=SMS,
        message=msgspec.convert({"text_message": {"text": "The ferry leaves at noon."}}, AppMessage),
        accepted_at=at("09:30:00.120"),
        event_at=at("09:30:00.380"),
        mode=MODE,
        metadata="order-5521",
        correlation_id="corr-5521",
        contact_id=CONTACT,
        conversation_id=CONVERSATION,
    )


def message_inbound() -> bytes:
    return bodies.inbound_message(
        app_id=APP,
        project_id=PROJECT,
        message_id="01K06NCCCGTQM83XSSSS6YS3C4",
        identity=SMS,
        message=msgspec.convert({"text_message": {"text": "Thank you"}}, ContactMessage),
        accepted_at=at("09:41:10.184581"),
        event_at=at("09:41:09.900"),
        mode=MODE,
        sender_id="46701239999",
        channel_metadata={"operator": "24001"},
        conversation_metadata=msgspec.Raw(b'{ "ticket": "T-88" }'),
        correlation_id="corr-5521",
        contact_id=CONTACT,
        conversation_id=CONVERSATION,
    )


def event_delivery() -> bytes:
    return bodies.event_delivery_report(
        app_id=APP,
        project_id=PROJECT,
        event_id="01K08F88QJZ3DJ8FSSZ5AWSH8V",
        status=Status.DELIVERED,
        identity=ChannelIdentity(ChannelName("MESSENGER"), "7746490198930851", APP),
        accepted_at=at("09:42:00.100"),
        event_at=at("09:42:00.700"),
        mode=MODE,
        contact_id=CONTACT,
    )


def event_inbound() -> bytes:
    reaction = {
        "emoji": "👍",
        "action": "REACTION_ACTION_REACT",
        "message_id": MESSAGE,
        "reaction_category": "like",
    }
    return bodies.inbound_event(
        app_id=APP,
        project_id=PROJECT,
        event_id="01K08F88QJZ3DJ8FSSZ5AWSH8V",
        identity=ChannelIdentity(ChannelName("WHATSAPP"), "46701230001"),
        event=msgspec.convert({"reaction_event": reaction}, ContactMessageEvent),
        accepted_at=at("09:43:00.100"),
        event_at=at("09:42:59.900"),
        mode=MODE,
        contact_id=CONTACT,
        conversation_id=CONVERSATION,
    )


def conversation_start() -> bytes:
    conversation = Conversation(ConversationId(CONVERSATION), AppId(APP), ContactId(CONTACT))
    payload = bodies.ConversationNotification(conversation=conversation)
    return whole(Trigger.CONVERSATION_START, payload, "09:30:00.125")


def contact_create() -> bytes:
    contact = Contact(ContactId(CONTACT), (SMS,), (SMS.channel,), "Unknown")
    payload = bodies.ContactNotification(contact=contact)
    return whole(Trigger.CONTACT_CREATE, payload, "09:30:00.122", app_id="")


def contact_identities_duplication() -> bytes:
    duplicated = DuplicatedIdentity(channel=SMS.channel, contact_ids=(CONTACT, "01K07RGBJA43DZVMXXQKFBF5KZ"))
    payload = bodies.DuplicatedIdentities(duplicated_identities=(duplicated,))
    return whole(Trigger.CONTACT_IDENTITIES_DUPLICATION, payload, "11:00:00", app_id="")


def capability() -> bytes:
    payload = bodies.CapabilityNotification(
        request_id="01K09G3R1JQY77ZXYYK596NGYA",
        contact_id=CONTACT,
        channel=ChannelName("RCS"),
        identity="46701230001",
        capability_status=bodies.CapabilityStatus.CAPABILITY_PARTIAL,
        channel_capabilities=("RICHCARD_STANDALONE", "ACTION_DIAL"),
    )
    return whole(Trigger.CAPABILITY, payload, "12:00:00", event_at=at("12:00:01"))


BUILDERS: list[Callable[[], bytes]] = [
    message_delivery, message_submit, message_inbound, event_delivery, event_inbound, conversation_start,
    contact_create, contact_identities_duplication, capability,
]  # fmt: skip


def compact_sample(name: str) -> bytes:
    """The reference's example without white space. What may be null or left out is left out (section 2)."""
    sample = msgspec.json.decode((SAMPLES / f"{name}.json").read_bytes())
    if name == "message_inbound":
        # The sample's accept_time differs from its accepted_time by 5 ms; ours are one moment.
        sample["message"]["accept_time"] = sample["accepted_time"]
        del sample["message"]["contact_message"]["reply_to"]
    if name == "event_inbound":
        sample["event"]["accept_time"] = sample["accepted_time"]
    return encode_content(sample)


@pytest.mark.parametrize("build", BUILDERS, ids=lambda build: build.__name__)
def test_a_body_is_the_reference_example(build: Callable[[], bytes]) -> None:
    assert build().decode() == compact_sample(build.__name__).decode()


def test_the_smart_conversation_example_fits_its_type() -> None:
    sample = compact_sample("smart_conversation")
    typed = msgspec.json.decode(sample, type=BODIES[Trigger.SMART_CONVERSATION])

    assert encode_content(typed) == sample


def test_every_trigger_has_a_body_and_one_payload_key() -> None:
    assert set(BODIES) == set(Trigger) == set(PAYLOADS)
    for trigger, kind in BODIES.items():
        names = [field.name for field in msgspec.structs.fields(kind)]  # type: ignore[arg-type]
        assert names == [
            "app_id", "project_id", "accepted_time", "event_time", PAYLOADS[trigger][0], "message_metadata",
            "correlation_id",
        ]  # fmt: skip


def test_a_payload_of_another_trigger_is_refused() -> None:
    payload = bodies.ConversationNotification(
        conversation=Conversation(ConversationId("c"), AppId(APP), ContactId(CONTACT))
    )

    with pytest.raises(TypeError, match="CAPABILITY carries CapabilityNotification"):
        whole(Trigger.CAPABILITY, payload, "12:00:00")


@pytest.mark.parametrize("status", [Status.QUEUED_ON_CHANNEL, Status.DELIVERED, Status.READ])
def test_a_reason_is_told_only_with_a_failure(status: Status) -> None:
    told = bodies.delivery_report(
        app_id=APP, project_id=PROJECT, message_id=MESSAGE, status=status, identity=SMS, accepted_at=at("09:30:00"),
        event_at=at("09:30:00"), mode=ProcessingMode.DISPATCH, reason=Reason(ReasonCode.UNKNOWN),
    )  # fmt: skip

    assert b'"reason"' not in told
    assert b'"contact_id":""' in told
    assert b'"conversation_id":""' in told


def test_sms_facts_stand_in_the_order_of_the_contract_with_the_parts_as_a_number() -> None:
    facts = {"operator": "24001", "number_of_message_parts": "2", "sms_batch_id": "B"}

    assert bodies.channel_metadata_text(facts) == (
        '{"sms_batch_id":"B","number_of_message_parts":2,"operator":"24001"}'
    )
    assert bodies.channel_metadata_text({}) == ""


@pytest.mark.parametrize(
    ("raw", "written"),
    [
        (b'{ "a" : 1.0 }', b'{"a":1}'),
        (b'{"a":-0.0,"b":1e21,"c":1E-7}', b'{"a":0,"b":1e+21,"c":1e-7}'),
        (b'{"a":"caf\\u00e9 \\/ \\u2028"}', '{"a":"café / \u2028"}'.encode()),
        (b'{"b":1,"a":2}', b'{"b":1,"a":2}'),
        (b'{"a":"1.0 and , : "}', b'{"a":"1.0 and , : "}'),
        (b'{"a":"\\u0001\\n"}', b'{"a":"\\u0001\\n"}'),
    ],
)
def test_json_of_clients_is_written_as_javascript_would(raw: bytes, written: bytes) -> None:
    assert encode_content(msgspec.Raw(raw)) == written


@pytest.mark.parametrize(
    ("value", "spelled"),
    [
        (0.1, "0.1"), (1.0, "1"), (-2.5, "-2.5"), (100.0, "100"), (1e20, "100000000000000000000"), (1e21, "1e+21"),
        (1.5e300, "1.5e+300"), (1e-6, "0.000001"), (1e-7, "1e-7"), (1.25e-9, "1.25e-9"), (5e-324, "5e-324"),
        (123456.789, "123456.789"), (59.334591, "59.334591"), (-0.0, "0"),
        (123456789012345680000.0, "123456789012345680000"), (1.7976931348623157e308, "1.7976931348623157e+308"),
    ],
)  # fmt: skip
def test_numbers_are_spelled_as_javascript_spells_them(value: float, spelled: str) -> None:
    assert javascript_number(value) == spelled


def test_times_have_milliseconds_or_microseconds_and_are_utc() -> None:
    assert timestamp(at("12:00:00")) == "2025-07-16T12:00:00.000Z"
    assert timestamp(at("12:00:00.120")) == "2025-07-16T12:00:00.120Z"
    assert timestamp(at("12:00:00.120001")) == "2025-07-16T12:00:00.120001Z"
    assert timestamp(datetime.fromisoformat("2025-07-16T14:00:00+02:00")) == "2025-07-16T12:00:00.000Z"
    with pytest.raises(ValueError, match="aware"):
        timestamp(datetime(2025, 7, 16, tzinfo=UTC).replace(tzinfo=None))


@pytest.mark.parametrize("build", [message_delivery, message_submit, message_inbound], ids=lambda b: b.__name__)
def test_the_official_client_parses_what_is_posted(build: Callable[[], bytes]) -> None:
    event = ConversationSinchEvent().parse_event(build())

    assert (event.app_id, event.project_id, event.correlation_id) == (APP, PROJECT, "corr-5521")
    assert type(event).__name__ != "ConversationSinchEventBase"

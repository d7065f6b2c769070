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


IDENTITY = '{"channel":"SMS","identity":"46701230001","app_id":""}'
CONTACT_TOLD = (
    f'{{"id":"{CONTACT}","channel_identities":[{IDENTITY}],"channel_priority":["SMS"],"display_name":"Unknown",'
    '"email":"","external_id":"","metadata":"","language":"UNSPECIFIED"}'
)
CONVERSATION_TOLD = (
    f'{{"id":"{CONVERSATION}","app_id":"{APP}","contact_id":"{CONTACT}","last_received":"1970-01-01T00:00:00Z",'
    '"active_channel":"CHANNEL_UNSPECIFIED","active":true,"metadata":"","metadata_json":null,"correlation_id":""}'
)
a_contact = Contact(ContactId(CONTACT), (SMS,), (SMS.channel,), "Unknown")
a_conversation = bodies.ConversationNotification(
    conversation=Conversation(ConversationId(CONVERSATION), AppId(APP), ContactId(CONTACT))
)

#: What the reference shows as a payload alone: the trigger, what we say, and the bytes between the envelope's fields.
PAYLOAD_EXAMPLES: list[tuple[Trigger, Payload, str]] = [
    (
        Trigger.CONVERSATION_STOP,
        a_conversation,
        f'"conversation_stop_notification":{{"conversation":{CONVERSATION_TOLD}}}',
    ),
    (
        Trigger.CONVERSATION_DELETE,
        a_conversation,
        f'"conversation_delete_notification":{{"conversation":{CONVERSATION_TOLD}}}',
    ),
    (
        Trigger.CONTACT_UPDATE,
        bodies.ContactNotification(contact=a_contact),
        f'"contact_update_notification":{{"contact":{CONTACT_TOLD}}}',
    ),
    (
        Trigger.CONTACT_DELETE,
        bodies.ContactNotification(contact=a_contact),
        f'"contact_delete_notification":{{"contact":{CONTACT_TOLD}}}',
    ),
    (
        Trigger.CONTACT_MERGE,
        bodies.ContactMerge(preserved_contact=a_contact, deleted_contact=a_contact),
        f'"contact_merge_notification":{{"preserved_contact":{CONTACT_TOLD},"deleted_contact":{CONTACT_TOLD}}}',
    ),
    (
        Trigger.UNSUPPORTED,
        bodies.UnsupportedCallback(
            channel=ChannelName("MESSENGER"),
            payload='{"raw":"…"}',
            processing_mode=MODE,
            id="01K08F88QJZ3DJ8FSSZ5AWSH8V",
            contact_id=CONTACT,
            conversation_id=CONVERSATION,
            channel_identity=SMS,
        ),
        '"unsupported_callback":{"channel":"MESSENGER","payload":"{\\"raw\\":\\"…\\"}","processing_mode":"CONVERSATION",'
        f'"id":"01K08F88QJZ3DJ8FSSZ5AWSH8V","contact_id":"{CONTACT}","conversation_id":"{CONVERSATION}",'
        f'"channel_identity":{IDENTITY}}}',
    ),
    (
        Trigger.OPT_IN,
        bodies.ConsentNotification(
            request_id="ask-1",
            channel=SMS.channel,
            identity=SMS.identity,
            status=bodies.ConsentStatus.OPT_IN_FAILED,
            error_details=bodies.ErrorDetails(description="no"),
            processing_mode=ProcessingMode.DISPATCH,
        ),
        '"opt_in_notification":{"request_id":"ask-1","contact_id":"","channel":"SMS","identity":"46701230001",'
        '"status":"OPT_IN_FAILED","error_details":{"description":"no"},"processing_mode":"DISPATCH"}',
    ),
    (
        Trigger.OPT_OUT,
        bodies.ConsentNotification(
            request_id="ask-1",
            contact_id=CONTACT,
            channel=SMS.channel,
            identity=SMS.identity,
            status=bodies.ConsentStatus.OPT_OUT_SUCCEEDED,
            processing_mode=MODE,
        ),
        f'"opt_out_notification":{{"request_id":"ask-1","contact_id":"{CONTACT}","channel":"SMS",'
        '"identity":"46701230001","status":"OPT_OUT_SUCCEEDED","processing_mode":"CONVERSATION"}',
    ),
    (
        Trigger.CHANNEL_EVENT,
        bodies.ChannelEventNotification(
            channel_event=bodies.ChannelEvent(
                channel=ChannelName("WHATSAPP"),
                event_type="WHATS_APP_QUALITY_RATING_CHANGED",
                additional_data=msgspec.Raw(b'{ "quality_rating": "MEDIUM" }'),
            )
        ),
        '"channel_event_notification":{"channel_event":{"channel":"WHATSAPP",'
        '"event_type":"WHATS_APP_QUALITY_RATING_CHANGED","additional_data":{"quality_rating":"MEDIUM"}}}',
    ),
    (
        Trigger.RECORD_NOTIFICATION,
        bodies.RecordNotification(
            entity_id=MESSAGE,
            record_status=bodies.RecordStatus.EVENT_RECORD_STORED,
            processing_mode=MODE,
            channel_identity=SMS,
            contact_id=CONTACT,
            conversation_id=CONVERSATION,
            reason=Reason(ReasonCode.UNKNOWN, "why"),
        ),
        f'"record_notification":{{"entity_id":"{MESSAGE}","record_status":"EVENT_RECORD_STORED",'
        f'"processing_mode":"CONVERSATION","channel_identity":{IDENTITY},"contact_id":"{CONTACT}",'
        f'"conversation_id":"{CONVERSATION}","reason":{{"code":"UNKNOWN","description":"why",'
        '"sub_code":"UNSPECIFIED_SUB_CODE","channel_code":""}}',
    ),
    (
        Trigger.BATCH_STATUS_UPDATE,
        bodies.BatchStatusUpdate(
            batch_id="01K09G3R1JQY77ZXYYK596NGYA",
            batch_status="BATCH_STATUS_PROCESSED",
            additional_data=bodies.BatchAdditionalData(
                message_batch_data=bodies.MessageBatchData(send_after="2025-07-16T12:00:00.000Z")
            ),
        ),
        '"batch_status_update_notification":{"batch_id":"01K09G3R1JQY77ZXYYK596NGYA",'
        '"batch_status":"BATCH_STATUS_PROCESSED","batch_type":"BATCH_TYPE_MESSAGES","additional_data":'
        '{"message_batch_data":{"send_after":"2025-07-16T12:00:00.000Z","batch_metadata":{}}}}',
    ),
]


@pytest.mark.parametrize(("trigger", "payload", "told"), PAYLOAD_EXAMPLES, ids=lambda value: str(value)[:24])
def test_a_payload_is_spelled_as_the_reference_shows_it(trigger: Trigger, payload: Payload, told: str) -> None:
    moment = "2025-07-16T12:00:00.000Z"

    assert whole(trigger, payload, "12:00:00").decode() == (
        f'{{"app_id":"{APP}","project_id":"{PROJECT}","accepted_time":"{moment}","event_time":"{moment}",'
        f'{told},"message_metadata":"","correlation_id":""}}'
    )


def test_a_redacted_message_is_an_inbound_message_under_its_own_key() -> None:
    inbound = msgspec.json.decode(message_inbound(), type=BODIES[Trigger.MESSAGE_INBOUND])
    redacted = whole(Trigger.MESSAGE_INBOUND_SMART_CONVERSATION_REDACTION, inbound.message, "12:00:00")

    assert b',"message_redaction":{"id":"01K06NCCCGTQM83XSSSS6YS3C4","direction":"TO_APP",' in redacted


def test_every_trigger_of_the_contract_has_an_example() -> None:
    samples = {name.stem.upper() for name in SAMPLES.iterdir()} | {trigger.value for trigger, _, _ in PAYLOAD_EXAMPLES}
    redaction, own = Trigger.MESSAGE_INBOUND_SMART_CONVERSATION_REDACTION, ("ENDPOINT_SUSPENDED", "WEBHOOK_TEST")

    assert {trigger.value for trigger in Trigger} - samples == {"SMART_CONVERSATIONS", redaction.value, *own}


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


@pytest.mark.parametrize(
    "told",
    [build() for build in BUILDERS[3:]] + [whole(trigger, said, "12:00:00") for trigger, said, _ in PAYLOAD_EXAMPLES],
)
def test_the_official_client_takes_the_envelope_of_payloads_it_has_no_type_for(told: bytes) -> None:
    event = ConversationSinchEvent().parse_event(told)

    assert event.project_id == PROJECT
    assert event.event_time is not None

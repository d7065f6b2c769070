"""`messages:send`: what is accepted is in the topic, what is refused is not."""

import asyncio
from datetime import datetime
from typing import Any

import msgspec
import pytest
from tests.flow.ingress.conftest import OTHER_PROJECT, PROJECT, Client, Serve, Topic, a_send, basic, make_app

from switchboard.configuration import App, ConfigurationStore
from switchboard.content import AppMessage, TextMessage
from switchboard.identity import ChannelIdentity, ChannelName
from switchboard.ids import AppId, is_ulid, mint, time_of
from switchboard.records import MessageAccepted, ProcessingMode
from switchboard.rules.progress import OnUnknown
from switchboard.rules.route import StepWish, Success
from switchboard.store.pool import Pool
from switchboard.testing import wait_until

SMS, TELEGRAM = ChannelName("SMS"), ChannelName("TELEGRAM")
BOTH = {
    "identified_by": {
        "channel_identities": [
            {"channel": "SMS", "identity": "+46701230001"},
            {"channel": "TELEGRAM", "identity": " 123456"},
        ]
    }
}


async def test_a_message_is_in_the_topic_when_the_client_is_told_so(call: Client, app: App, topic: Topic) -> None:
    answer = await call("POST", "/messages:send", a_send(app))
    [(key, record, headers)] = await topic.read()

    assert answer.status == 200
    assert set(answer.json) == {"message_id", "accepted_time"}
    assert is_ulid(answer.json["message_id"])
    assert datetime.fromisoformat(answer.json["accepted_time"]) == time_of(answer.json["message_id"])
    assert answer.json["accepted_time"].endswith("Z")
    assert record == MessageAccepted(
        message_id=answer.json["message_id"],
        project_id=PROJECT,
        app_id=app.id,
        accepted_at=time_of(answer.json["message_id"]),
        message=AppMessage(text_message=TextMessage("The ferry leaves at noon.")),
        mode=ProcessingMode.DISPATCH,
        identities=(ChannelIdentity(SMS, "46701230001"),),
    )
    assert headers["type"] == b"MessageAccepted"
    assert headers["message_id"].decode() == answer.json["message_id"]
    assert len(key) == 16
    assert b"46701230001" not in key


async def test_everything_a_send_can_say_is_in_the_record(call: Client, app: App, topic: Topic) -> None:
    answer = await call(
        "POST",
        "/messages:send",
        a_send(
            app,
            recipient=BOTH,
            callback_url="https://quay.example/reports",
            channel_priority_order=["TELEGRAM", "SMS"],
            channel_properties={"SMS_SENDER": "Quay", "TELEGRAM_DISABLE_LINK_PREVIEW": "TRUE"},
            message_metadata="order-5521",
            conversation_metadata={"ticket": "T-88", "a": {"b": None}},
            conversation_metadata_update_strategy="REPLACE",
            queue="HIGH_PRIORITY",
            ttl="60s",
            processing_strategy="DISPATCH_ONLY",
            correlation_id="corr-5521",
            message_content_type="CONTENT_NOTIFICATION",
            channel_steps=[
                {"channel": "TELEGRAM", "success": "SUBMITTED"},
                {"channel": "SMS", "wait_seconds": 30},
            ],
            on_unknown="FAIL_OVER",
        ),
        headers={"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
    )
    [record] = await topic.messages()

    assert answer.status == 200
    assert record.identities == (ChannelIdentity(SMS, "46701230001"), ChannelIdentity(TELEGRAM, "123456"))
    assert record.channel_priority_order == (TELEGRAM, SMS)
    assert record.channel_properties == {"SMS_SENDER": "Quay", "TELEGRAM_DISABLE_LINK_PREVIEW": "TRUE"}
    assert record.metadata == "order-5521"
    assert record.conversation_metadata == {"ticket": "T-88", "a": {"b": None}}
    assert record.correlation_id == "corr-5521"
    assert record.callback_url == "https://quay.example/reports"
    assert record.high_priority
    assert record.ttl_seconds == 60
    assert record.channel_steps == (StepWish(TELEGRAM, Success.SUBMITTED), StepWish(SMS, Success.DELIVERED, 30))
    assert record.on_unknown is OnUnknown.FAIL_OVER
    assert record.traceparent == "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def test_one_persons_sends_have_one_key_and_others_another(call: Client, app: App, topic: Topic) -> None:
    other = {"identified_by": {"channel_identities": [{"channel": "SMS", "identity": "46701230002"}]}}
    for body in (a_send(app), a_send(app, recipient=BOTH), a_send(app, recipient=other)):
        assert (await call("POST", "/messages:send", body)).status == 200
    keys = {record.identities[0].identity: key for key, record, _ in await topic.read()}

    assert len(keys) == len(set(keys.values())) == 2


CAMEL_AND_NULLS = b"""{"appId": "%s", "recipient": {"contactId": null, "identifiedBy": {"channelIdentities":
 [{"channel": "SMS", "identity": "46701230001"}]}}, "messageMetadata": "m", "ttl": null, "channelPriorityOrder": null,
 "channelProperties": {"SMS_SENDER": "1"}, "conversationMetadata": {"keepThis": {"andThis": null}},
 "message": {"textMessage": null, "agent": null, "cardMessage": {"title": "A", "choices": [{"urlMessage":
 {"title": "t", "url": "https://a.example"}, "postbackData": "p"}], "mediaMessage": {"url": "https://a.example/x.png",
 "thumbnailUrl": null}, "messageProperties": {"whatsappHeader": "w"}}}}"""


async def test_camel_case_and_nulls_are_taken_and_free_form_maps_left_alone(
    call: Client, app: App, topic: Topic
) -> None:
    answer = await call("POST", "/messages:send", CAMEL_AND_NULLS % app.id.encode(), raw=True)
    [record] = await topic.messages()

    assert answer.status == 200
    assert record.metadata == "m"
    assert record.conversation_metadata == {"keepThis": {"andThis": None}}
    assert msgspec.json.decode(msgspec.json.encode(record.message)) == {
        "card_message": {
            "title": "A",
            "media_message": {"url": "https://a.example/x.png"},
            "choices": [{"url_message": {"title": "t", "url": "https://a.example"}, "postback_data": "p"}],
            "message_properties": {"whatsapp_header": "w"},
        }
    }


SENDS = "recipient.identified_by.channel_identities"
REFUSED: list[tuple[str, dict[str, Any], list[str]]] = [
    ("no app", {"app_id": None}, ["app_id"]),
    ("app id is no ULID", {"app_id": "123"}, ["app_id"]),
    ("app id of a wrong type", {"app_id": 1}, ["app_id"]),
    ("no recipient", {"recipient": None}, ["recipient"]),
    ("an empty recipient", {"recipient": {}}, ["recipient"]),
    ("a contact in dispatch mode", {"recipient": {"contact_id": "01K06TM94A7E3S3E28JT97KB6C"}},
     ["recipient.contact_id"]),
    ("contact and identities", {"recipient": {"contact_id": "x", **BOTH}}, ["recipient", "recipient.contact_id"]),
    ("no identities", {"recipient": {"identified_by": {"channel_identities": []}}}, [SENDS]),
    ("an unknown channel", {"recipient": {"identified_by": {"channel_identities":
     [{"channel": "PIGEON", "identity": "1"}]}}}, [f"{SENDS}[0].channel"]),
    ("the zero channel", {"channel_priority_order": ["CHANNEL_UNSPECIFIED"]}, ["channel_priority_order[0]"]),
    ("a channel the app has not", {"channel_priority_order": ["SMS", "RCS"]}, ["channel_priority_order[1]"]),
    ("a channel twice in the order", {"channel_priority_order": ["SMS", "SMS"]}, ["channel_priority_order[1]"]),
    ("a channel twice", {"recipient": {"identified_by": {"channel_identities":
     [{"channel": "SMS", "identity": "1"}, {"channel": "SMS", "identity": "2"}]}}}, [f"{SENDS}[1].channel"]),
    ("no number", {"recipient": {"identified_by": {"channel_identities":
     [{"channel": "SMS", "identity": "Ada"}]}}}, [f"{SENDS}[0].identity"]),
    ("an empty identity", {"recipient": {"identified_by": {"channel_identities":
     [{"channel": "SMS", "identity": " "}]}}}, [f"{SENDS}[0].identity"]),
    ("no message", {"message": None}, ["message"]),
    ("an empty message", {"message": {}}, ["message"]),
    ("two contents", {"message": {"text_message": {"text": "a"}, "location_message":
     {"title": "t", "coordinates": {"latitude": 1, "longitude": 2}}}}, ["message"]),
    ("an empty text", {"message": {"text_message": {"text": ""}}}, ["message.text_message.text"]),
    ("a text that is none", {"message": {"text_message": {"text": 5}}}, ["message.text_message.text"]),
    ("an unknown enum", {"message": {"card_message": {"title": "t", "height": "HUGE"}}},
     ["message.card_message.height"]),
    ("a bad callback URL", {"callback_url": "quay.example"}, ["callback_url"]),
    ("a long callback URL", {"callback_url": "https://quay.example/" + "x" * 722}, ["callback_url"]),
    ("an unknown property", {"channel_properties": {"SMOKE": "1"}}, ["channel_properties.SMOKE"]),
    ("a long property", {"channel_properties": {"SMS_SENDER": "x" * 1025}}, ["channel_properties.SMS_SENDER"]),
    ("long metadata", {"message_metadata": "x" * 1025}, ["message_metadata"]),
    ("conversation metadata that is no object", {"conversation_metadata": [1]}, ["conversation_metadata"]),
    ("long conversation metadata", {"conversation_metadata": {"k": "x" * 2048}}, ["conversation_metadata"]),
    ("a long correlation id", {"correlation_id": "x" * 129}, ["correlation_id"]),
    ("what no database keeps in a correlation id", {"correlation_id": "a\x00b"}, ["correlation_id"]),
    ("what no database keeps in metadata", {"message_metadata": "a\x00b"}, ["message_metadata"]),
    ("what no database keeps in a name", {"conversation_metadata": {"a": {"\x00": 1}}}, ["conversation_metadata"]),
    ("a ttl without unit", {"ttl": "60"}, ["ttl"]),
    ("a ttl with a fraction", {"ttl": "3.5s"}, ["ttl"]),
    ("a short ttl", {"ttl": "2s"}, ["ttl"]),
    ("a long ttl", {"ttl": "315576000001s"}, ["ttl"]),
    ("an unknown queue", {"queue": "EXPRESS"}, ["queue"]),
    ("an unknown strategy", {"processing_strategy": "MAYBE"}, ["processing_strategy"]),
    ("a step of a channel that is not tried", {"channel_steps": [{"channel": "TELEGRAM", "success": "SUBMITTED"}]},
     ["channel_steps[0].channel"]),
    ("a step that waits too shortly", {"channel_steps": [{"channel": "SMS", "wait_seconds": 9}]},
     ["channel_steps[0].wait_seconds"]),
    ("a wait that is none", {"channel_steps": [{"channel": "SMS", "wait_seconds": "60"}]},
     ["channel_steps[0].wait_seconds"]),
    ("an unknown success", {"channel_steps": [{"channel": "SMS", "success": "SEEN"}]}, ["channel_steps[0].success"]),
    ("a success never reported", {"channel_steps": [{"channel": "SMS", "success": "READ", "wait_seconds": 60}]},
     ["channel_steps[0].success"]),
    ("an unknown answer to doubt", {"on_unknown": "RETRY"}, ["on_unknown"]),
    ("several at once", {"ttl": "x", "correlation_id": "x" * 129, "message": {"text_message": {"text": ""}}},
     ["message.text_message.text", "ttl", "correlation_id"]),
]  # fmt: skip


async def test_bad_requests_name_their_fields_and_leave_nothing_in_the_topic(
    call: Client, app: App, topic: Topic
) -> None:
    for name, change, fields in REFUSED:
        body = {key: value for key, value in (a_send(app) | change).items() if value is not None}
        answer = await call("POST", "/messages:send", body)
        assert (answer.status, name) == (400, name)
        assert (answer.fields, name) == (fields, name)
        assert answer.error["message"].startswith(fields[0] + ":"), name
    assert await topic.messages() == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"\xff\xfe",
        b'{"app_id": "\\ud800"}',
        b'{"app_id":1e999}',
        b"[" * 5000,
        b'{"a":' * 5000,
        b'{"conversation_metadata":' + b'{"a":' * 120 + b"1" + b"}" * 121,
        b'{"message":{"explicit_channel_message":{"SMS":1}}}',
    ],
    ids=range(12),
)
async def test_what_is_no_json_object_is_a_bad_request(call: Client, body: bytes) -> None:
    answer = await call("POST", "/messages:send", body, raw=True)

    assert answer.status == 400
    assert answer.error["status"] == "INVALID_ARGUMENT"


async def test_no_text_however_odd_is_more_than_accepted_or_refused(call: Client, app: App) -> None:
    for odd in ("\\u0000", "\\ud83d", "\\udc00\\ud800", "\\ud83d\\ude00", "\\\\", "é", "\u2028"):
        raw = msgspec.json.encode(a_send(app, message_metadata="ODD")).replace(b"ODD", odd.encode())
        answer = await call("POST", "/messages:send", raw, raw=True)
        assert answer.status in (200, 400), odd


async def test_a_body_needs_its_content_type(call: Client, app: App) -> None:
    for wrong in ("", "text/plain"):
        answer = await call("POST", "/messages:send", a_send(app), headers={"content-type": wrong})
        assert answer.status == 400
        assert answer.fields == ["Content-Type"]
    for right in ("application/json; charset=utf-8", "Application/JSON"):
        answer = await call("POST", "/messages:send", a_send(app), headers={"content-type": right})
        assert answer.status == 200


async def test_a_body_over_the_limit_is_refused(serve: Serve, app: App, topic: Topic) -> None:
    call = await serve(max_body_bytes=2_000)
    long = a_send(app, message={"text_message": {"text": "x" * 200_000}})

    for headers in ({}, {"content-length": "200300"}):
        answer = await call("POST", "/messages:send", long, headers=headers)
        assert answer.status == 413
        assert answer.error["status"] == "INVALID_ARGUMENT"
    assert await topic.messages() == []


async def test_an_app_that_is_not_the_projects_is_not_found(call: Client, app: App, store: ConfigurationStore) -> None:
    others = make_app(project_id=OTHER_PROJECT)
    await store.insert_app(others)

    for app_id in (AppId(mint()), others.id):
        answer = await call("POST", "/messages:send", a_send(app, app_id=app_id))
        assert answer.status == 404
        assert answer.error["status"] == "NOT_FOUND"


async def test_the_check_of_ids_can_be_switched_off(serve: Serve, app: App) -> None:
    call = await serve(strict_ids=False)

    assert (await call("POST", "/messages:send", a_send(app, app_id="123"))).status == 404
    assert (await call("POST", "/messages:send", a_send(app, app_id=""))).status == 400
    assert (await call("POST", "/messages:send", a_send(app, app_id="a\x00b"))).status == 404


async def test_an_unconfigured_channel_can_be_accepted_to_fail_later(serve: Serve, app: App, topic: Topic) -> None:
    call = await serve(unconfigured_channel="fail")
    recipient = {"identified_by": {"channel_identities": [{"channel": "RCS", "identity": "46701230001"}]}}
    answer = await call("POST", "/messages:send", a_send(app, recipient=recipient))
    [record] = await topic.messages()

    assert answer.status == 200
    assert record.identities == (ChannelIdentity(ChannelName("RCS"), "46701230001"),)


async def test_a_message_of_explicit_payloads_needs_one_for_each_channel_tried(call: Client, app: App) -> None:
    explicit = {"explicit_channel_message": {"SMS": "raw"}}

    assert (await call("POST", "/messages:send", a_send(app, message=explicit))).status == 200
    answer = await call("POST", "/messages:send", a_send(app, message=explicit, recipient=BOTH))
    assert answer.fields == ["message"]
    answer = await call(
        "POST", "/messages:send", a_send(app, message=explicit, recipient=BOTH, channel_priority_order=["SMS"])
    )
    assert answer.status == 200


async def test_the_same_request_with_a_key_is_one_message(call: Client, app: App, topic: Topic) -> None:
    key = {"idempotency-key": "order-5521"}
    first = await call("POST", "/messages:send", a_send(app), headers=key)
    again = await call("POST", "/messages:send", a_send(app), headers=key)
    plain = await call("POST", "/messages:send", a_send(app))

    assert first.status == 200
    assert again.body == first.body
    assert plain.json["message_id"] != first.json["message_id"]
    assert len(await topic.messages()) == 2


async def test_a_key_whose_message_may_be_lost_publishes_it_again_with_the_first_id(
    call: Client, app: App, topic: Topic, pool: Pool
) -> None:
    key = {"idempotency-key": "order-5521"}
    first = await call("POST", "/messages:send", a_send(app), headers=key)
    await pool.execute("UPDATE switchboard.idempotency SET published = false")  # as after a crash before the mark
    again = await call("POST", "/messages:send", a_send(app), headers=key)
    one, two = await topic.messages()

    assert again.body == first.body
    assert one == two


async def test_a_key_of_another_request_is_a_conflict(call: Client, app: App, topic: Topic) -> None:
    key = {"idempotency-key": "order-5521"}
    await call("POST", "/messages:send", a_send(app), headers=key)
    answer = await call("POST", "/messages:send", a_send(app, ttl="60s"), headers=key)

    assert answer.status == 409
    assert answer.error["status"] == "ALREADY_EXISTS"
    assert len(await topic.messages()) == 1


async def test_two_requests_with_one_key_at_once_are_one_message(call: Client, app: App, topic: Topic) -> None:
    key = {"idempotency-key": "order-5521"}
    answers = await asyncio.gather(*(call("POST", "/messages:send", a_send(app), headers=key) for _ in range(8)))

    assert {answer.status for answer in answers} == {200}
    assert len({answer.body for answer in answers}) == 1
    assert len({record.message_id for record in await topic.messages()}) == 1


async def test_a_key_is_forgotten_after_its_time(call: Client, app: App, pool: Pool) -> None:
    key = {"idempotency-key": "order-5521"}
    first = await call("POST", "/messages:send", a_send(app), headers=key)
    await pool.execute("UPDATE switchboard.idempotency SET accepted_at = accepted_at - interval '49 hours'")
    again = await call("POST", "/messages:send", a_send(app, ttl="60s"), headers=key)

    assert again.status == 200
    assert again.json["message_id"] != first.json["message_id"]


async def test_a_key_that_is_none_is_refused(call: Client, app: App, topic: Topic) -> None:
    for key in ("x" * 256, "caf\xe9", "a\tb"):
        answer = await call("POST", "/messages:send", a_send(app), headers={"idempotency-key": key})
        assert answer.fields == ["Idempotency-Key"]
    assert await topic.messages() == []


async def test_a_project_over_its_rate_is_told_when_to_come_again(serve: Serve, app: App) -> None:
    call = await serve(project_requests_per_second=2)
    answers = [await call("POST", "/messages:send", a_send(app)) for _ in range(6)]
    refused = next(answer for answer in answers if answer.status == 429)

    assert answers[0].status == 200
    assert refused.error["status"] == "RESOURCE_EXHAUSTED"
    assert refused.headers["retry-after"] == "1"


async def test_an_app_with_a_full_line_is_told_when_to_come_again(call: Client, app: App, pool: Pool) -> None:
    await pool.execute(
        "INSERT INTO switchboard.lanes (id, kind, interval_ns, max_in_flight, tat, waiting)"
        " SELECT 'dispatch:' || $1 || ':' || c, 'dispatch', 1000, 1, switchboard.now(), 250000"
        " FROM unnest(ARRAY['SMS', 'TELEGRAM']) AS c",
        app.id,
    )

    async def refusal() -> Any:
        answer = await call("POST", "/messages:send", a_send(app))
        return answer if answer.status == 429 else None

    refused = await wait_until(refusal)
    assert refused.error["status"] == "RESOURCE_EXHAUSTED"
    assert int(refused.headers["retry-after"]) > 0


async def test_a_conversation_app_sends_to_contacts_and_identities(
    call: Client, store: ConfigurationStore, topic: Topic
) -> None:
    other = make_app(processing_mode=ProcessingMode.CONVERSATION)
    await store.insert_app(other)
    to_contact = a_send(other, recipient={"contact_id": mint()})
    said = {"conversation_metadata": {"a": 1}, "conversation_metadata_update_strategy": "MERGE_PATCH"}

    assert (await call("POST", "/messages:send", a_send(other, **said))).status == 200
    assert (await call("POST", "/messages:send", to_contact)).status == 200
    assert (await call("POST", "/messages:send", a_send(other, processing_strategy="DISPATCH_ONLY"))).status == 200

    sent = sorted(await topic.messages(), key=lambda message: message.message_id)
    assert [message.mode for message in sent] == ["CONVERSATION", "CONVERSATION", "DISPATCH"]
    assert (sent[0].conversation_metadata, sent[0].patches_metadata) == ({"a": 1}, True)
    assert (sent[1].contact_id, sent[1].identities) == (to_contact["recipient"]["contact_id"], ())


async def test_in_dispatch_mode_a_contact_is_refused(call: Client, app: App, store: ConfigurationStore) -> None:
    other = make_app(processing_mode=ProcessingMode.CONVERSATION)
    await store.insert_app(other)
    recipient = {"contact_id": mint()}

    for body in (
        a_send(app, recipient=recipient),
        a_send(other, recipient=recipient, processing_strategy="DISPATCH_ONLY"),
    ):
        assert (await call("POST", "/messages:send", body)).fields == ["recipient.contact_id"]
    both = recipient | a_send(other)["recipient"]
    assert (await call("POST", "/messages:send", a_send(other, recipient=both))).fields == ["recipient"]
    assert (await call("POST", "/messages:send", a_send(other, recipient={}))).fields == ["recipient"]


async def test_another_projects_key_sends_nothing(call: Client, app: App, topic: Topic) -> None:
    answer = await call("POST", "/messages:send", a_send(app), headers={"authorization": basic("other")})

    assert answer.status == 403
    assert await topic.messages() == []

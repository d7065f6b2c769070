"""Bodies: both spellings of names, nulls as absence, refusals that name the field."""

from typing import Any

import msgspec
import pytest

from switchboard.content import AppMessage, ContactMessage, GenericEvent
from switchboard_ingress.body import MAX_DEPTH, Body, camel
from switchboard_ingress.errors import BadRequest
from switchboard_ingress.requests import SendRequest

MESSAGES = Body(AppMessage)


def fields(refused: pytest.ExceptionInfo[BadRequest]) -> list[tuple[str, str]]:
    return [(violation.field, violation.description) for violation in refused.value.violations]


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ({"textMessage": {"text": "x"}}, {"text_message": {"text": "x"}}),
        ({"text_message": {"text": "camelCase: \"aB\":"}}, {"text_message": {"text": "camelCase: \"aB\":"}}),
        ({"textMessage": {"text": "x"}, "cardMessage": None}, {"text_message": {"text": "x"}}),
        ({"textMessage": {"text": "x"}, "unknownField": {"aB": 1}}, {"text_message": {"text": "x"}}),
        ({"textMessage": {"text": "camel"}, "text_message": {"text": "snake"}}, {"text_message": {"text": "snake"}}),
        ({"textMessage": {"text": "camel"}, "text_message": None}, {"text_message": {"text": "camel"}}),
        ({"card_message": {"title": "t", "choices": None}}, {"card_message": {"title": "t"}}),
        (
            {"carouselMessage": {"cards": [{"mediaMessage": {"url": "u", "thumbnailUrl": "t"}}]}},
            {"carousel_message": {"cards": [{"media_message": {"url": "u", "thumbnail_url": "t"}}]}},
        ),
        (
            {"templateMessage": {"omniTemplate": {"templateId": "t", "version": "1", "parameters": {"aB": "C"}}}},
            {"template_message": {"omni_template": {"template_id": "t", "version": "1", "parameters": {"aB": "C"}}}},
        ),
        (
            {"channelSpecificMessage": {"WHATSAPP": {"messageType": "FLOWS", "message": {
                "flowId": "1", "flowCta": "x", "flowActionPayload": {"data": {"keepMe": None}}}}}},
            {"channel_specific_message": {"WHATSAPP": {"message_type": "FLOWS", "message": {
                "flow_id": "1", "flow_cta": "x", "flow_action_payload": {"data": {"keepMe": None}}}}}},
        ),
    ],
    ids=range(10),
)  # fmt: skip
def test_names_are_respelled_where_types_know_them(given: dict[str, Any], read: dict[str, Any]) -> None:
    message = MESSAGES.read(msgspec.json.encode(given))

    assert msgspec.json.decode(msgspec.json.encode(message)) == read


def test_free_form_payloads_keep_their_names_and_nulls() -> None:
    event = Body(GenericEvent).read(b'{"payload":{"textMessage":null,"a":[{"bC":1}]}}')

    assert event.payload == {"textMessage": None, "a": [{"bC": 1}]}


def test_a_contacts_message_is_read_in_both_spellings() -> None:
    message = Body(ContactMessage).read(b'{"replyTo":{"messageId":"m"},"textMessage":{"text":"x"}}')

    assert message.reply_to is not None
    assert message.reply_to.message_id == "m"


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        (b"{}", "app_id"),
        (b'{"app_id":"a","recipient":{"identified_by":{}},"message":{}}',
         "recipient.identified_by.channel_identities"),
        (b'{"app_id":"a","recipient":{},"message":{"text_message":{}}}', "message.text_message.text"),
        (b'{"appId":"a","recipient":{},"message":{"textMessage":{}}}', "message.text_message.text"),
        (b'{"app_id":1}', "app_id"),
        (b'{"app_id":"a","recipient":{},"message":{},"queue":"X"}', "queue"),
        (b'[]', ""),
        (b'{"app_id":"a","recipient":{},"message":{},"channel_properties":{"SMS_SENDER":1}}',
         "channel_properties[...]"),
    ],
)  # fmt: skip
def test_a_refusal_names_the_field_in_the_apis_spelling(raw: bytes, field: str) -> None:
    with pytest.raises(BadRequest) as refused:
        Body(SendRequest).read(raw)

    assert [name for name, _ in fields(refused)] == [field]


def test_a_body_may_be_nested_only_so_deep() -> None:
    deep = (
        b'{"text_message":{"text":"' + b"[{" * MAX_DEPTH + b'"},"x":' + b"[" * (MAX_DEPTH - 1) + b"]" * (MAX_DEPTH - 1)
    )
    assert MESSAGES.read(deep + b"}").text_message is not None

    with pytest.raises(BadRequest, match="nested"):
        MESSAGES.read(b'{"x":' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}")


@pytest.mark.parametrize(("name", "spelled"), [("app_id", "appId"), ("id", "id"), ("a_b_c", "aBC")])
def test_camel_case_is_the_protocols_own(name: str, spelled: str) -> None:
    assert camel(name) == spelled

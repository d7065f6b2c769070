"""Content as SMS: text of every kind, parts, and what one account sends."""

import pytest

from switchboard.channel.errors import Unsupported
from switchboard.content import (
    AppMessage,
    Choice,
    ChoiceMessage,
    Coordinates,
    LocationMessage,
    MediaMessage,
    OmniOverride,
    OmniTemplate,
    TemplateMessage,
    TextMessage,
    UrlChoice,
)
from switchboard.identity import ChannelName
from switchboard.ids import MessageId
from switchboard.reason import ReasonCode
from switchboard_channels.sms.account import SmscAccount
from switchboard_channels.sms.encoding import DefaultAlphabet
from switchboard_channels.sms.manifest import MANIFEST
from switchboard_channels.sms.render import (
    attempt_reference,
    preview,
    render,
    text_of,
    units,
    validity_period,
)

ACCOUNT = SmscAccount(host="smsc", system_id="switchboard", default_sender="Acme")  # type: ignore[call-arg]
SMS = ChannelName("SMS")


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (AppMessage(text_message=TextMessage("Hi")), "Hi"),
        (AppMessage(media_message=MediaMessage("https://quay.example/a.jpg")), "https://quay.example/a.jpg"),
        (
            AppMessage(
                choice_message=ChoiceMessage(
                    (
                        Choice(text_message=TextMessage("Morning")),
                        Choice(url_message=UrlChoice("Book", "https://quay.example/b")),
                    ),
                    TextMessage("When?"),
                )
            ),
            "When?\n\n> MORNING\n> Book: https://quay.example/b",
        ),
        (
            AppMessage(location_message=LocationMessage("Berth 12", Coordinates(55.610479, 12.998))),
            "Berth 12: https://www.google.com/maps/search/?api=1&query=55.610477,12.998",
        ),
        (
            AppMessage(
                text_message=TextMessage("for all"),
                explicit_channel_omni_message={SMS: OmniOverride(text_message=TextMessage("for SMS"))},
            ),
            "for SMS",
        ),
        (
            AppMessage(text_message=TextMessage("for all"), explicit_channel_message={SMS: "as it is"}),
            "as it is",
        ),
    ],
)
def test_content_becomes_the_text_of_the_contract(message: AppMessage, text: str) -> None:
    assert text_of(message) == text


@pytest.mark.parametrize(
    "message",
    [AppMessage(), AppMessage(template_message=TemplateMessage(omni_template=OmniTemplate("t", "1")))],
)
def test_content_sms_cannot_carry_is_refused(message: AppMessage) -> None:
    with pytest.raises(Unsupported):
        text_of(message)


def test_units_are_parts() -> None:
    assert units(AppMessage(text_message=TextMessage("a" * 161)), {}) == 2


def test_plain_punctuation_is_only_where_the_account_asks_for_it() -> None:
    message = AppMessage(text_message=TextMessage("“Hi”"))
    plain = ACCOUNT.model_copy(update={"plain_punctuation": True})

    assert render(message, "4670", {}, ACCOUNT).data_coding == 8
    assert render(message, "4670", {}, plain).parts == (b'"Hi"',)


def test_the_part_limit_is_kept_and_nothing_is_cut_off() -> None:
    message = AppMessage(text_message=TextMessage("a" * 161))
    properties = {"SMS_MAX_NUMBER_OF_MESSAGE_PARTS": "1"}

    with pytest.raises(Unsupported) as refused:
        render(message, "4670", properties, ACCOUNT)
    assert refused.value.reason.code is ReasonCode.MESSAGE_SPLIT_REQUIRED
    assert len(render(message, "4670", {"SMS_MAX_NUMBER_OF_MESSAGE_PARTS": "2"}, ACCOUNT).parts) == 2


def test_another_default_alphabet_is_spoken() -> None:
    latin = ACCOUNT.model_copy(update={"default_alphabet": DefaultAlphabet.LATIN1})
    rendered = render(AppMessage(text_message=TextMessage("für @")), "4670", {}, latin)

    assert (rendered.data_coding, rendered.parts) == (0, ("für @".encode("latin-1"),))


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0, "000000000001000R"),
        (1, "000000000001000R"),
        (600, "000000001000000R"),
        (3_661, "000000010101000R"),
        (86_400, "000001000000000R"),
        (30 * 86_400, "000003000000000R"),
    ],
)
def test_a_ttl_is_written_as_a_relative_time(seconds: int, written: str) -> None:
    assert validity_period(seconds, 72 * 3600) == written
    assert len(written) == 16


def test_the_reference_of_an_attempt_is_always_the_same() -> None:
    assert attempt_reference("01.1.1") == attempt_reference("01.1.1")
    assert attempt_reference("01.1.1") != attempt_reference("01.1.2")


def test_a_preview_shows_the_parts_as_the_account_cuts_them() -> None:
    message = AppMessage(text_message=TextMessage("Grüße aus dem Hafen — " * 4))
    seen = preview(message, "46701230001", MessageId("0" * 26), {}, ACCOUNT)
    plain = preview(
        message, "46701230001", MessageId("0" * 26), {}, ACCOUNT.model_copy(update={"plain_punctuation": True})
    )

    assert (seen.units, seen.encoding) == (2, "UCS2")
    assert "".join(part["text"] for part in seen.submissions) == message.text_message.text  # type: ignore[union-attr]
    assert {part["sender"] for part in seen.submissions} == {"Acme"}
    assert (plain.units, plain.encoding) == (1, "GSM7")


def test_a_preview_refuses_what_sending_would() -> None:
    with pytest.raises(Unsupported) as refused:
        preview(
            AppMessage(text_message=TextMessage("x" * 200)), "46701230001", MessageId("0" * 26),
            {"SMS_MAX_NUMBER_OF_MESSAGE_PARTS": "1"}, None,
        )  # fmt: skip

    assert refused.value.reason.code is ReasonCode.MESSAGE_SPLIT_REQUIRED


@pytest.mark.parametrize(
    ("settings", "rate"),
    [
        ({}, 20.0),
        ({"max_binds": 5}, 50.0),
        ({"account_messages_per_second": 12.5}, 12.5),
        ({"messages_per_second": None}, None),
        ({"messages_per_second": None, "account_messages_per_second": 12.5}, 12.5),
    ],
)
def test_an_account_goes_as_fast_as_it_says_or_as_its_binds_together(
    settings: dict[str, float | None], rate: float | None
) -> None:
    assert MANIFEST.rate_of(ACCOUNT.model_copy(update=settings)) == rate

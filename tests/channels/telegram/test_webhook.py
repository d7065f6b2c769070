"""Who may post to Telegram's webhook, and what is called afterwards."""

import pytest

from switchboard.channel.contract import Account, UnsupportedFact
from switchboard.channel.errors import InvalidWebhook, NotConfigured
from switchboard.ids import AccountKey
from switchboard_channels.telegram.adapter import TelegramAdapter
from switchboard_channels.telegram.postback import button, pressed
from switchboard_channels.telegram.webhook import secret_of

from .test_samples import ACCOUNT, ADAPTER, MESSAGE, TOKEN, Telegram, posted

OK = {"status": 200, "body": {"ok": True, "result": True}}


@pytest.mark.parametrize("secret", ["", "wrong", secret_of(ACCOUNT)[:-1], "é"])
def test_a_request_without_the_secret_is_refused(secret: str) -> None:
    with pytest.raises(InvalidWebhook):
        ADAPTER.parse_webhook(posted(b'{"update_id": 1}', secret), ACCOUNT)


def test_a_body_that_is_not_json_is_refused() -> None:
    with pytest.raises(InvalidWebhook):
        ADAPTER.parse_webhook(posted(b"hello"), ACCOUNT)


@pytest.mark.parametrize("body", [b"[]", b"{}", b'{"update_id": "x"}', b'{"update_id": 4, "message": {"date": "?"}}'])
def test_an_update_of_another_shape_is_kept_raw(body: bytes) -> None:
    (fact,) = ADAPTER.parse_webhook(posted(body), ACCOUNT).facts

    assert isinstance(fact, UnsupportedFact)
    assert fact.payload == body.decode()


def test_the_app_s_own_secret_is_used_where_telegram_can_carry_it() -> None:
    own = Account(AccountKey("a"), {"token": TOKEN, "callback_secret": "harbour_42"})
    strange = Account(AccountKey("a"), {"token": TOKEN, "callback_secret": "with spaces"})

    assert secret_of(own) == "harbour_42"
    assert secret_of(strange) not in ("with spaces", secret_of(ACCOUNT))
    assert len(secret_of(strange)) == 64


async def test_a_pressed_button_stops_turning() -> None:
    provider = Telegram([OK])
    query = b'{"update_id": 1, "callback_query": {"id": "q7", "from": {"id": 777000}, "data": "x"}}'
    (follow_up,) = ADAPTER.parse_webhook(posted(query), ACCOUNT).follow_ups
    await follow_up(provider)

    assert provider.requests == [{"method": "answerCallbackQuery", "parameters": {"callback_query_id": "q7"}}]


async def test_the_webhook_is_registered_with_its_secret() -> None:
    provider = Telegram([OK])
    await ADAPTER.register_webhook(ACCOUNT, "https://in.test/channels/TELEGRAM/1", provider)

    (request,) = provider.requests
    assert request["method"] == "setWebhook"
    assert request["parameters"] == {
        "url": "https://in.test/channels/TELEGRAM/1",
        "secret_token": secret_of(ACCOUNT),
        "allowed_updates": ["message", "callback_query", "my_chat_member"],
    }


async def test_a_refused_registration_says_why() -> None:
    refused = {"ok": False, "error_code": 400, "description": "Bad Request: bad webhook: HTTPS url must be provided"}
    provider = Telegram([{"status": 400, "body": refused}])
    with pytest.raises(NotConfigured, match="HTTPS url"):
        await ADAPTER.register_webhook(ACCOUNT, "http://in.test/", provider)


@pytest.mark.parametrize("token", ["", "1:a/../b", "1:a?b"])
async def test_a_malformed_token_is_the_app_s_to_mend(token: str) -> None:
    with pytest.raises(NotConfigured) as raised:
        await TelegramAdapter().register_webhook(Account(AccountKey("a"), {"token": token}), "u", Telegram([]))

    assert "a/../b" not in str(raised.value)


@pytest.mark.parametrize(
    ("caption", "postback", "comes_back"),
    [
        ("Yes", None, f"{MESSAGE}_Yes"),
        ("Yes", "", ""),
        ("Yes", "a:b:c", "a:b:c"),
        ("Yes", "x" * 35, "x" * 35),
        ("ü" * 17, None, f"{MESSAGE}_{'ü' * 17}"),
    ],
)
def test_a_short_postback_travels_in_the_button(caption: str, postback: str | None, comes_back: str) -> None:
    made = button(MESSAGE, 0, caption, postback)
    read = pressed(made.data)

    assert len(made.data.encode()) <= 64
    assert (read.message_id, read.postback, read.key, made.key) == (MESSAGE, comes_back, "", "")


@pytest.mark.parametrize(
    ("caption", "postback", "kept"),
    [("Yes", "x" * 36, "x" * 36), ("ü" * 18, None, f"{MESSAGE}_{'ü' * 18}"), ("Yes", "😀" * 9, "😀" * 9)],
)
def test_a_long_postback_is_kept_under_the_key_in_the_button(caption: str, postback: str | None, kept: str) -> None:
    made = button(MESSAGE, 3, caption, postback)

    assert len(made.data.encode()) <= 64
    assert (made.key, made.kept) == (f"{MESSAGE}:3", kept)
    assert pressed(made.data).key == made.key


@pytest.mark.parametrize("data", ["", "x", "c:short:y", f"z:{MESSAGE}:y"])
def test_data_of_a_foreign_button_comes_back_as_it_is(data: str) -> None:
    assert pressed(data) == pressed(data).__class__("", data)

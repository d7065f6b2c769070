"""The TELEGRAM adapter runs against the simulator unmodified: both were written from the same facts, apart."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from switchboard.channel.contract import Account, Attempt, InboundFact, OptOutFact, SendResult, WebhookRequest
from switchboard.channel.outcome import Accepted, FailedForNow, Rejected, Unknown
from switchboard.content import AppMessage
from switchboard.http.pooled import PooledHttpClient
from switchboard.identity import ChannelIdentity, ChannelName
from switchboard.ids import AccountKey, AppId, MessageId, attempt_id, mint
from switchboard.reason import ReasonCode
from switchboard.testing import wait_until
from switchboard_channels.telegram.adapter import TelegramAdapter, TelegramSettings
from switchboard_simulator.phones import now

MESSAGES: dict[str, dict[str, Any]] = {
    "text": {"text_message": {"text": "Hello <b>&"}},
    "picture": {"media_message": {"url": "https://a.example/picture.jpg"}},
    "film": {"media_message": {"url": "https://a.example/film.mp4"}},
    "paper": {"media_message": {"url": "https://a.example/paper.pdf"}},
    "choices": {
        "choice_message": {
            "text_message": {"text": "Coming?"},
            "choices": [
                {"text_message": {"text": "Yes"}, "postback_data": "y" * 200},
                {"url_message": {"title": "Menu", "url": "https://a.example/menu"}},
                {"call_message": {"title": "Call us", "phone_number": "+46701234567"}},
            ],
        }
    },
    "card": {
        "card_message": {
            "title": "Boots",
            "description": "Warm",
            "media_message": {"url": "https://a.example/boots.jpg"},
            "choices": [{"text_message": {"text": "Buy"}, "postback_data": "buy"}],
        }
    },
    "carousel": {
        "carousel_message": {
            "cards": [{"title": "One", "description": "First"}, {"title": "Two", "description": "Second"}]
        }
    },
    "place": {
        "location_message": {
            "title": "Our shop", "label": "Street 1", "coordinates": {"latitude": 59.3, "longitude": 18.0},
        }
    },
    "contact": {
        "contact_info_message": {
            "name": {"full_name": "Ann Lee", "first_name": "Ann"},
            "phone_numbers": [{"phone_number": "+46701234567", "type": "Mobile"}],
        }
    },
}  # fmt: skip


class Adapter:
    """The adapter with an account of this test's bot."""

    def __init__(self, simulator: Any, http: PooledHttpClient) -> None:
        self.adapter = TelegramAdapter(TelegramSettings(api_url=simulator.base))
        self.account = Account(AccountKey("bot"), {"token": simulator.token, "callback_secret": "sesame"})
        self.http = http

    async def send(self, chat: int, message: dict[str, Any] | None = None) -> SendResult:
        message_id = MessageId(mint())
        attempt = Attempt(
            message_id,
            attempt_id(message_id, 0, 1),
            AppId(mint()),
            ChannelIdentity(ChannelName("TELEGRAM"), str(chat)),
            msgspec.convert(message or MESSAGES["text"], AppMessage),
        )
        return await self.adapter.send(attempt, self.account, self.http)


@pytest.fixture
async def adapter(simulator: Any) -> AsyncIterator[Adapter]:
    http = PooledHttpClient()
    yield Adapter(simulator, http)
    await http.close()


@pytest.mark.parametrize("kind", MESSAGES)
async def test_every_kind_of_message_reaches_the_phone(simulator: Any, adapter: Adapter, kind: str) -> None:
    result = await adapter.send(777, MESSAGES[kind])

    assert isinstance(result.outcome, Accepted), result
    phone = simulator.world.phones.get("TELEGRAM", "777")
    assert {id for message in phone.messages for id in message.provider_ids} == set(result.outcome.provider_ids)


OUTCOMES: list[tuple[str, type[Any], ReasonCode]] = [
    ("9901", Rejected, ReasonCode.RECIPIENT_INVALID_CHANNEL_IDENTITY),
    ("9902", Rejected, ReasonCode.RECIPIENT_NOT_OPTED_IN),
    ("9903", Rejected, ReasonCode.CHANNEL_BAD_CONFIGURATION),
    ("9905", FailedForNow, ReasonCode.CHANNEL_FAILURE),
    ("9908", FailedForNow, ReasonCode.RATE_LIMITED),
    ("9929", Rejected, ReasonCode.RECIPIENT_NOT_OPTED_IN),
    ("9940", Rejected, ReasonCode.RECIPIENT_NOT_REACHABLE),
    ("9941", Rejected, ReasonCode.MEDIA_NOT_REACHABLE),
    ("9942", Rejected, ReasonCode.MEDIA_TYPE_UNSUPPORTED),
    ("9943", Rejected, ReasonCode.MEDIA_TOO_LARGE),
]


@pytest.mark.parametrize(("ending", "outcome", "code"), OUTCOMES, ids=[case[0] for case in OUTCOMES])
async def test_a_magic_chats_refusal_is_understood(
    adapter: Adapter, ending: str, outcome: type[Any], code: ReasonCode
) -> None:
    result = await adapter.send(int("700000" + ending))

    assert isinstance(result.outcome, outcome)
    assert result.outcome.reason.code is code


async def test_a_magic_chat_without_an_answer_leaves_it_unknown(simulated: Any) -> None:
    http = PooledHttpClient()
    async with simulated(hold_seconds=0.05) as simulator:
        adapter = Adapter(simulator, http)
        outcomes = {
            ending: (await adapter.send(int("700000" + ending))).outcome
            for ending in ("9909", "9910", "9912", "9913", "9928")
        }
    await http.close()

    assert {ending: type(outcome) for ending, outcome in outcomes.items()} == dict.fromkeys(outcomes, Unknown)


async def test_what_people_do_is_understood(simulator: Any, adapter: Adapter) -> None:
    await adapter.adapter.register_webhook(adapter.account, f"{simulator.base}/receiver/bot", adapter.http)
    await adapter.send(777, MESSAGES["choices"])

    await simulator.say(777, "Hi there")
    await simulator.control("PUT", "phones/TELEGRAM/777", blocked=True, to=str(simulator.bot_id))
    await wait_until(lambda: len(simulator.callbacks()) >= 2)
    first, second = simulator.world.receivers.need("bot").kept
    facts = [
        fact
        for callback in (first, second)
        for fact in adapter.adapter.parse_webhook(
            WebhookRequest("POST", "/", {}, callback.headers, callback.body.encode(), now()), adapter.account
        ).facts
    ]

    text, gone = facts
    assert isinstance(text, InboundFact)
    assert (text.identity, text.message.text_message.text) == ("777", "Hi there")  # type: ignore[union-attr]
    assert isinstance(gone, OptOutFact)

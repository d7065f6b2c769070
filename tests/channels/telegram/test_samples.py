"""Telegram by its samples: content and the Bot API's answers, updates and their facts. A new case is a new file."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

import switchboard_channels.telegram as telegram
from switchboard.channel.contract import Account, Attempt, Fact, WebhookRequest
from switchboard.channel.outcome import Outcome
from switchboard.content import AppMessage
from switchboard.http.client import HttpAnswer, NoAnswer, NotSent
from switchboard.identity import ChannelIdentity, ChannelName
from switchboard.ids import AccountKey, AppId, AttemptId, MessageId
from switchboard_channels.telegram.adapter import TelegramAdapter, TelegramSettings
from switchboard_channels.telegram.webhook import SECRET_HEADER, secret_of

SAMPLES: Final = Path(telegram.__file__).parent / "samples"
TOKEN: Final = "110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw"
MESSAGE: Final = MessageId("01K06TM94A7E3S3E28JT97KB6C")
ACCOUNT: Final = Account(AccountKey("app:1:TELEGRAM"), {"token": TOKEN})
RECEIVED_AT: Final = datetime(2026, 3, 1, 12, tzinfo=UTC)
ADAPTER: Final = TelegramAdapter(TelegramSettings(api_url="http://bot.test/"))


def samples(kind: str) -> list[Any]:
    return [pytest.param(path, id=path.stem) for path in sorted((SAMPLES / kind).glob("*.json"))]


def read(path: Path) -> dict[str, Any]:
    return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])


class Telegram:
    """Answers as recorded and remembers what it was asked."""

    def __init__(self, answers: list[Any]) -> None:
        self._answers = list(answers)
        self.requests: list[dict[str, Any]] = []

    async def request(
        self,
        method: str,
        url: str,
        *,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        timeout_seconds: float | None = None,
    ) -> HttpAnswer:
        base, _, name = url.rpartition("/")
        assert (method, base) == ("POST", f"http://bot.test/bot{TOKEN}")
        self.requests.append({"method": name, "parameters": msgspec.json.decode(body)})
        answer = self._answers.pop(0)
        if answer == "not sent":
            raise NotSent("no connection: Connection refused")
        if answer == "no answer":
            raise NoAnswer("operation timed out")
        content = answer["body"] if isinstance(answer["body"], str) else msgspec.json.encode(answer["body"]).decode()
        return HttpAnswer(answer["status"], {}, content.encode())


def attempt(sample: Mapping[str, Any]) -> Attempt:
    return Attempt(
        message_id=MESSAGE,
        attempt_id=AttemptId(f"{MESSAGE}.0.1"),
        app_id=AppId("1"),
        identity=ChannelIdentity(ChannelName("TELEGRAM"), sample.get("chat", "777000")),
        message=msgspec.convert(sample["message"], AppMessage),
        channel_properties=sample.get("properties", {}),
    )


@pytest.mark.parametrize("path", samples("sends"))
async def test_a_message_becomes_these_requests_and_this_outcome(path: Path) -> None:
    sample = read(path)
    provider = Telegram(sample["answers"])
    result = await ADAPTER.send(attempt(sample), ACCOUNT, provider)

    assert provider.requests == sample["requests"]
    assert result.outcome == msgspec.convert(sample["outcome"], Outcome)
    assert [exchange.operation for exchange in result.exchanges] == sample["exchanges"]
    assert ADAPTER.postbacks(attempt(sample)) == sample.get("kept_postbacks", {})
    assert TOKEN not in repr(result)


@pytest.mark.parametrize("path", samples("updates"))
def test_an_update_becomes_these_facts(path: Path) -> None:
    sample = read(path)
    answer = ADAPTER.parse_webhook(posted(msgspec.json.encode(sample["update"])), ACCOUNT)

    assert list(answer.facts) == msgspec.convert(sample["facts"], list[Fact])
    assert answer.status == 200
    assert len(answer.follow_ups) == sample.get("follow_ups", 0)


def posted(body: bytes, secret: str = secret_of(ACCOUNT)) -> WebhookRequest:
    return WebhookRequest("POST", "/channels/TELEGRAM/1", {}, {SECRET_HEADER: secret}, body, RECEIVED_AT)

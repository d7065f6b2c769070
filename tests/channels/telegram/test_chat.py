"""What a bot does besides sending, by the Bot API's answers."""

import msgspec
import pytest

from switchboard.channel.outcome import Accepted, FailedForNow, Rejected, Unknown
from switchboard.content import AppEvent
from switchboard.http.client import HttpAnswer, NoAnswer, NotSent
from switchboard.reason import ReasonCode
from switchboard_channels.telegram.chat import act, look_up
from switchboard_channels.telegram.send import BotApi

TYPING = msgspec.json.decode(b'{"composing_event":{}}', type=AppEvent)
NO_CHAT = b'{"ok":false,"error_code":400,"description":"Bad Request: chat not found"}'
BLOCKED = b'{"ok":false,"error_code":403,"description":"Forbidden: bot was blocked by the user"}'


class Http:
    """Answers every request alike, and remembers them."""

    def __init__(self, answer):
        self.answer = answer
        self.asked = []

    async def request(self, method, url, *, body=b"", headers=None, timeout_seconds=None):
        self.asked.append((url.rsplit("/", 1)[1], msgspec.json.decode(body)))
        if isinstance(self.answer, Exception):
            raise self.answer
        status, content = self.answer
        return HttpAnswer(status, {}, content)


def bot(answer):
    http = Http(answer)
    return BotApi(http, "https://bots.example", "1:token"), http


async def test_typing_is_a_chat_action():
    api, http = bot((200, b'{"ok":true,"result":true}'))

    result = await act(api, TYPING, "777000")

    assert http.asked == [("sendChatAction", {"chat_id": "777000", "action": "typing"})]
    assert result.outcome == Accepted(())
    assert [exchange.operation for exchange in result.exchanges] == ["sendChatAction"]


@pytest.mark.parametrize(
    ("answer", "outcome", "code"),
    [
        ((400, NO_CHAT), Rejected, ReasonCode.RECIPIENT_INVALID_CHANNEL_IDENTITY),
        ((403, BLOCKED), Rejected, ReasonCode.RECIPIENT_NOT_OPTED_IN),
        ((502, b'{"ok":false,"error_code":502,"description":"Bad Gateway"}'), FailedForNow, ReasonCode.CHANNEL_FAILURE),
        ((200, b"<html>"), Unknown, ReasonCode.UNKNOWN),
        (NotSent("refused"), FailedForNow, ReasonCode.CHANNEL_FAILURE),
        (NoAnswer("timeout"), Unknown, ReasonCode.UNKNOWN),
    ],
)
async def test_what_an_answer_means_for_an_event(answer, outcome, code):
    api, _ = bot(answer)

    result = await act(api, TYPING, "777000")

    assert isinstance(result.outcome, outcome)
    assert result.outcome.reason.code is code


async def test_another_event_is_refused_without_a_call():
    api, http = bot((200, b'{"ok":true,"result":true}'))

    result = await act(api, msgspec.json.decode(b'{"composing_end_event":{}}', type=AppEvent), "777000")

    assert isinstance(result.outcome, Rejected)
    assert http.asked == []


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        ((200, b'{"ok":true,"result":{"id":777000}}'), "CAPABILITY_FULL"),
        ((400, NO_CHAT), "NO_CAPABILITY"),
        ((403, BLOCKED), "NO_CAPABILITY"),
        ((401, b'{"ok":false,"error_code":401,"description":"Unauthorized"}'), "CAPABILITY_UNKNOWN"),
        ((429, b'{"ok":false,"error_code":429,"description":"Too Many Requests"}'), "CAPABILITY_UNKNOWN"),
        (NoAnswer("timeout"), "CAPABILITY_UNKNOWN"),
    ],
)
async def test_what_an_answer_says_about_a_chat(answer, status):
    api, http = bot(answer)

    told = await look_up(api, "777000")

    assert told.status == status
    assert (told.reason is None) is (status != "CAPABILITY_UNKNOWN")
    assert http.asked == [("getChat", {"chat_id": "777000"})]

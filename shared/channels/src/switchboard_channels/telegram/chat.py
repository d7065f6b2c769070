"""What a bot does in a chat besides sending: it shows that it is typing, and looks whether it knows the chat."""

import asyncio
from datetime import UTC, datetime
from typing import Final

import msgspec

from switchboard.channel.contract import Capability, Exchange, SendResult
from switchboard.channel.outcome import Accepted, FailedForNow, Outcome, Rejected, Unknown
from switchboard.content import AppEvent
from switchboard.http.client import HttpAnswer, NoAnswer, NotSent
from switchboard.reason import Reason, ReasonCode
from switchboard_channels.telegram.codes import classify
from switchboard_channels.telegram.render import Call
from switchboard_channels.telegram.send import BotAnswer, BotApi

CALL_SECONDS: Final = 4.0
#: Refusals that say that the bot cannot write to the chat.
_OUT_OF_REACH: Final = frozenset(
    {
        ReasonCode.RECIPIENT_INVALID_CHANNEL_IDENTITY,
        ReasonCode.RECIPIENT_NOT_OPTED_IN,
        ReasonCode.RECIPIENT_NOT_REACHABLE,
        ReasonCode.NO_PERMISSION,
    }
)


async def act(bot: BotApi, event: AppEvent, chat_id: str) -> SendResult:
    """Carry an event out. Telegram has one that fits: `sendChatAction` with "typing"."""
    if event.composing_event is None:
        return SendResult(Rejected(Reason(ReasonCode.BAD_REQUEST, "TELEGRAM supports composing_event only.")))
    started_at = datetime.now(UTC)
    outcome, answer = await _submit(bot, Call("sendChatAction", {"chat_id": chat_id, "action": "typing"}))
    return SendResult(outcome, (Exchange("sendChatAction", answer, started_at, datetime.now(UTC)),))


async def look_up(bot: BotApi, chat_id: str) -> Capability:
    """Ask for the chat: a bot knows those who have written to it."""
    outcome, _ = await _submit(bot, Call("getChat", {"chat_id": chat_id}))
    match outcome:
        case Accepted():
            return Capability("CAPABILITY_FULL")
        case Rejected(reason=reason) if reason.code in _OUT_OF_REACH:
            return Capability("NO_CAPABILITY")
        case _:
            return Capability("CAPABILITY_UNKNOWN", reason=outcome.reason)


async def _submit(bot: BotApi, call: Call) -> tuple[Outcome, str]:
    """The outcome of one call, and the answer in a word."""
    try:
        async with asyncio.timeout(CALL_SECONDS):
            answer = await bot.call(call, CALL_SECONDS)
    except NotSent as error:
        return FailedForNow(Reason(ReasonCode.CHANNEL_FAILURE, f"Telegram cannot be reached: {error}")), "not sent"
    except (NoAnswer, TimeoutError):
        return Unknown(Reason(ReasonCode.UNKNOWN, "Telegram did not answer.")), "no answer"
    return _judge(answer), str(answer.status)


def _judge(answer: HttpAnswer) -> Outcome:
    try:
        said = msgspec.json.decode(answer.body, type=BotAnswer)
    except msgspec.DecodeError:
        return Unknown(Reason(ReasonCode.UNKNOWN, "Telegram's answer cannot be read."))
    if said.ok:
        return Accepted(())
    return classify(said.error_code or answer.status, said.description, said.parameters.retry_after)

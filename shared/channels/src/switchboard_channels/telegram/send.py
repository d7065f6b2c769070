"""The exchange with the Bot API: the calls of a message, one after the other, until one is not taken."""

import asyncio
from datetime import UTC, datetime
from typing import Final

import msgspec
from msgspec import Raw, Struct

from switchboard.channel.contract import Exchange, SendResult
from switchboard.channel.outcome import Accepted, FailedForNow, Outcome, PartlyAccepted, Rejected, Unknown
from switchboard.http.client import HttpAnswer, HttpClient, NoAnswer, NotSent
from switchboard.reason import Reason, ReasonCode
from switchboard_channels.telegram.codes import classify
from switchboard_channels.telegram.manifest import MANIFEST
from switchboard_channels.telegram.render import Call

#: All calls of a message together; the host gives up a little later.
SEND_SECONDS: Final = MANIFEST.send_timeout_seconds - 1.0
_HEADERS: Final = {"content-type": "application/json"}


class Parameters(Struct, frozen=True):
    retry_after: float | None = None
    #: The group became a supergroup under this id.
    migrate_to_chat_id: int | None = None


class BotAnswer(Struct, frozen=True):
    """What every method answers."""

    ok: bool
    result: Raw = Raw(b"null")
    error_code: int = 0
    description: str = ""
    parameters: Parameters = Parameters()


class SentChat(Struct, frozen=True):
    id: int


class SentMessage(Struct, frozen=True):
    message_id: int
    chat: SentChat

    @property
    def provider_id(self) -> str:
        """Ids of messages are unique per chat only (channel-providers 15.7)."""
        return f"{self.chat.id}:{self.message_id}"


class BotApi:
    """One bot of the Bot API."""

    def __init__(self, http: HttpClient, base_url: str, token: str) -> None:
        self._http = http
        self._base = f"{base_url}/bot{token}"

    async def call(self, call: Call, timeout_seconds: float) -> HttpAnswer:
        """Call a method. Raises NotSent or NoAnswer."""
        return await self._http.request(
            "POST",
            f"{self._base}/{call.method}",
            body=msgspec.json.encode(call.parameters),
            headers=_HEADERS,
            timeout_seconds=timeout_seconds,
        )


async def send(bot: BotApi, calls: tuple[Call, ...]) -> SendResult:
    """Make the calls in order and tell what became of the message as a whole."""
    deadline = asyncio.get_running_loop().time() + SEND_SECONDS
    taken: list[str] = []
    exchanges: list[Exchange] = []
    for number, call in enumerate(calls, start=1):
        operation = call.method if len(calls) == 1 else f"{call.method} {number}/{len(calls)}"
        outcome = await _submit(bot, call, operation, deadline, exchanges)
        match outcome:
            case Accepted(ids):
                taken.extend(ids)
            case Unknown(reason):
                return SendResult(Unknown(reason, tuple(taken)), tuple(exchanges))
            case Rejected(reason) | FailedForNow(reason) if taken:
                return SendResult(PartlyAccepted(tuple(taken), reason), tuple(exchanges))
            case refused:
                return SendResult(refused, tuple(exchanges))
    return SendResult(Accepted(tuple(taken)), tuple(exchanges))


async def _submit(bot: BotApi, call: Call, operation: str, deadline: float, exchanges: list[Exchange]) -> Outcome:
    outcome, answer = await _exchange(bot, call, operation, deadline, exchanges)
    if answer is not None and (moved_to := answer.parameters.migrate_to_chat_id) is not None:
        # Nothing was taken: the group only has another id now. The router could not know the new one.
        moved = Call(call.method, {**call.parameters, "chat_id": moved_to})
        outcome, _ = await _exchange(bot, moved, f"{operation} (moved)", deadline, exchanges)
    return outcome


async def _exchange(
    bot: BotApi, call: Call, operation: str, deadline: float, exchanges: list[Exchange]
) -> tuple[Outcome, BotAnswer | None]:
    started_at = datetime.now(UTC)

    def note(answer: str, detail: str = "") -> None:
        exchanges.append(Exchange(operation, answer, started_at, datetime.now(UTC), detail[:200]))

    left = deadline - asyncio.get_running_loop().time()
    if left <= 0:
        return FailedForNow(Reason(ReasonCode.CHANNEL_FAILURE, "The parts before took all the time.")), None
    try:
        answer = await bot.call(call, left)
    except NotSent as error:
        note("not sent", str(error))
        return FailedForNow(Reason(ReasonCode.CHANNEL_FAILURE, f"Telegram cannot be reached: {error}")), None
    except NoAnswer as error:
        note("no answer", str(error))
        return Unknown(Reason(ReasonCode.UNKNOWN, "Telegram did not answer.")), None
    said = _decoded(answer)
    note(str(answer.status), said.description if said and not said.ok else "")
    return judge(answer.status, said), said


def judge(status: int, answer: BotAnswer | None) -> Outcome:
    """What an HTTP status and the decoded answer (None: not the Bot API's) mean. Pure."""
    if answer is None:
        if status < 300:
            return Unknown(Reason(ReasonCode.UNKNOWN, "Telegram's answer cannot be read."))
        return classify(status, "", None)
    if not answer.ok:
        return classify(answer.error_code or status, answer.description, answer.parameters.retry_after)
    try:
        sent = msgspec.json.decode(answer.result, type=SentMessage | list[SentMessage])
    except msgspec.DecodeError:
        return Unknown(Reason(ReasonCode.UNKNOWN, "Telegram's answer does not name the message."))
    messages = sent if isinstance(sent, list) else [sent]
    return Accepted(tuple(message.provider_id for message in messages))


def _decoded(answer: HttpAnswer) -> BotAnswer | None:
    try:
        return msgspec.json.decode(answer.body, type=BotAnswer)
    except msgspec.DecodeError:
        return None

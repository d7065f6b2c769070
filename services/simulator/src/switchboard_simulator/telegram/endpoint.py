"""`/bot{token}/{method}`: the Bot API on its real wire format, with its refusals and its bad days."""

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from switchboard_simulator.answers import Cut, Hang
from switchboard_simulator.body import Malformed, TooLarge, read_body, read_fields
from switchboard_simulator.faults import Fault, FaultBook, FaultKind
from switchboard_simulator.journal import Journal, Submission
from switchboard_simulator.telegram.bots import Bot, Bots
from switchboard_simulator.telegram.files import Files
from switchboard_simulator.telegram.magic import TEN_TIMES, MagicChats
from switchboard_simulator.telegram.methods import (
    SENDING_METHODS,
    Fields,
    read_action,
    read_chat,
    read_outgoing,
    recipient_of,
    text_of,
)
from switchboard_simulator.telegram.objects import chat_object
from switchboard_simulator.telegram.people import CHANNEL, People
from switchboard_simulator.telegram.refused import PREFIXES, Refused, bad_request, too_many
from switchboard_simulator.telegram.updates import UpdatePoster

_MOST_BODY_BYTES: Final = 52_000_000
_GARBAGE: Final = b"<!doctype html><title>Welcome</title><p>Please sign in to this network.</p>"


class BotApi:
    """Plays Telegram towards the bots."""

    def __init__(
        self, *, bots: Bots, people: People, files: Files, faults: FaultBook, magic: MagicChats,
        poster: UpdatePoster, journal: Journal, clock: Callable[[], datetime],
        stopping: asyncio.Event, hold_seconds: float,
    ) -> None:  # fmt: skip
        self._bots = bots
        self._people = people
        self._files = files
        self._faults = faults
        self._magic = magic
        self._poster = poster
        self._journal = journal
        self._clock = clock
        self._stopping = stopping
        self._hold_seconds = hold_seconds
        self._others: Mapping[str, Callable[[Bot, Fields], Any]] = {
            "getMe": lambda bot, _: bot.user() | {"can_join_groups": True, "supports_inline_queries": False},
            "getChat": lambda _, fields: chat_object(read_chat(fields)),
            "getFile": self._get_file,
            "getWebhookInfo": lambda bot, _: bot.webhook_info(),
            "setWebhook": self._set_webhook,
            "deleteWebhook": self._delete_webhook,
            "sendChatAction": self._chat_action,
            "answerCallbackQuery": self._answer_callback_query,
        }
        names = (*self._others, *SENDING_METHODS)
        # The Bot API does not look at the case of a method's name.
        self._names = {name.lower(): name for name in names}

    async def call(self, request: Request) -> Response:
        """Carry out one call."""
        try:
            bot = self._bots.of_token(request.path_params["token"])
            method = self._names.get(request.path_params["method"].lower())
            if method is None:
                raise Refused(404, "Not Found")
            body = await read_body(request, _MOST_BODY_BYTES)
            fields = read_fields(request.headers.get("content-type", ""), request.url.query, body)
        except TooLarge:
            return _refusal(Refused(413, "Request Entity Too Large"))
        except Malformed as error:
            return _refusal(bad_request(f"can't parse the request: {error}"))
        except Refused as refused:
            return _refusal(refused)
        self._poster.start(bot)
        return await self._with_faults(bot, method, fields)

    async def download(self, request: Request) -> Response:
        """`/file/bot{token}/files/{file_id}/{name}`: a file as `getFile` named it."""
        try:
            self._bots.of_token(request.path_params["token"])
        except Refused as refused:
            return _refusal(refused)
        file = self._files.get(request.path_params["file_id"])
        if file is None or file.name != request.path_params["name"]:
            return _refusal(Refused(404, "Not Found"))
        return Response(file.content, media_type=file.content_type)

    async def _with_faults(self, bot: Bot, method: str, fields: Fields) -> Response:
        is_send = method in SENDING_METHODS
        recipient = recipient_of(fields)
        fault = self._faults.take(CHANNEL, recipient, method, is_send=is_send)
        if fault is None and is_send:
            fault = self._magic.fault(recipient, text_of(method, fields))
        if fault is None:
            return self._carry_out(bot, method, fields, None)
        if fault.delay_seconds:
            await self._pause(fault.delay_seconds)
        match fault.kind:
            case FaultKind.REJECT | FaultKind.SERVER_ERROR | FaultKind.THROTTLE:
                refused = _refused(fault, recipient)
                self._log(bot, method, fields, False, "", str(refused.code), fault)
                return _refusal(refused)
            case FaultKind.TIMEOUT_BEFORE_ACCEPT:
                self._log(bot, method, fields, False, "", "none", fault)
                return Hang(self._stopping, self._hold_seconds)
            case FaultKind.CUT_BEFORE_ACCEPT:
                self._log(bot, method, fields, False, "", "cut", fault)
                return Cut()
            case FaultKind.TIMEOUT_AFTER_ACCEPT | FaultKind.CUT_AFTER_ACCEPT | FaultKind.GARBAGE:
                answer = self._carry_out(bot, method, fields, fault)
                return self._spoil(answer, fault.kind) if answer.status_code == 200 else answer
            case _:
                # SLOW, SILENCE and DUPLICATE; receipts, which other faults are about, TELEGRAM does not have.
                return self._carry_out(bot, method, fields, fault)

    def _spoil(self, answer: Response, kind: FaultKind) -> Response:
        if kind is FaultKind.TIMEOUT_AFTER_ACCEPT:
            return Hang(self._stopping, self._hold_seconds)
        if kind is FaultKind.CUT_AFTER_ACCEPT:
            return Cut()
        return Response(_GARBAGE, media_type="text/html")

    def _carry_out(self, bot: Bot, method: str, fields: Fields, fault: Fault | None) -> Response:
        try:
            if method in SENDING_METHODS:
                return _result(self._send(bot, method, fields, fault))
            return _result(self._others[method](bot, fields))
        except Refused as refused:
            if method in SENDING_METHODS:
                self._log(bot, method, fields, False, "", str(refused.code), fault)
            return _refusal(refused)

    def _send(self, bot: Bot, method: str, fields: Fields, fault: Fault | None) -> Any:
        outgoing = read_outgoing(method, fields)
        self._people.check_reachable(outgoing.chat_id)
        self._people.check_reply(outgoing)
        ids = [bot.next_message_id() for _ in range(max(1, len(outgoing.attachments)))]
        provider_id = ",".join(f"{outgoing.chat_id}:{message_id}" for message_id in ids)
        # The line comes first: what is shown and answered below is on record whatever happens.
        self._log(bot, method, fields, True, provider_id, _answer_of(fault), fault)
        shown = fault is None or fault.kind is not FaultKind.SILENCE
        messages = self._people.receive(bot, outgoing, ids, shown=shown)
        return messages if method == "sendMediaGroup" else messages[0]

    def _log(
        self, bot: Bot, method: str, fields: Fields, accepted: bool, provider_id: str, answer: str,
        fault: Fault | None,
    ) -> None:  # fmt: skip
        self._journal.append(
            Submission(
                at=self._clock(), channel=CHANNEL, account=bot.account, operation=method,
                recipient=recipient_of(fields), text=text_of(method, fields), accepted=accepted,
                provider_id=provider_id, answer=answer, fault=fault.kind if fault else "",
            )
        )  # fmt: skip

    def _set_webhook(self, bot: Bot, fields: Fields) -> bool:
        bot.set_webhook(fields)
        return True

    def _delete_webhook(self, bot: Bot, fields: Fields) -> bool:
        bot.delete_webhook(fields)
        return True

    def _chat_action(self, _: Bot, fields: Fields) -> bool:
        self._people.check_reachable(read_chat(fields))
        read_action(fields)
        return True

    def _answer_callback_query(self, _: Bot, fields: Fields) -> bool:
        self._people.answered(fields.get("callback_query_id", ""))
        return True

    def _get_file(self, _: Bot, fields: Fields) -> dict[str, Any]:
        file = self._files.get(str(fields.get("file_id", "")))
        if file is None:
            raise bad_request("invalid file_id")
        return {
            "file_id": file.file_id,
            "file_unique_id": file.file_id[-12:],
            "file_size": len(file.content),
            "file_path": file.path,
        }

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return


def _answer_of(fault: Fault | None) -> str:
    match fault:
        case Fault(kind=FaultKind.TIMEOUT_AFTER_ACCEPT):
            return "none"
        case Fault(kind=FaultKind.CUT_AFTER_ACCEPT):
            return "cut"
        case _:
            return "200"


def _refused(fault: Fault, recipient: str) -> Refused:
    if fault.kind is FaultKind.THROTTLE:
        return too_many(fault.retry_after_seconds)
    code = fault.code or (500 if fault.kind is FaultKind.SERVER_ERROR else 400)
    description = fault.description or PREFIXES.get(code, "Error")
    migrate_to = fault.migrate_to
    if migrate_to == TEN_TIMES:
        migrate_to = -abs(int(recipient)) * 10
    retry_after = fault.retry_after_seconds if code == 429 else None
    return Refused(code, description, retry_after=retry_after, migrate_to=migrate_to)


def _result(result: Any) -> Response:
    return Response(msgspec.json.encode({"ok": True, "result": result}), media_type="application/json")


def _refusal(refused: Refused) -> Response:
    headers = {} if refused.retry_after is None else {"retry-after": str(refused.retry_after)}
    return Response(msgspec.json.encode(refused.body()), refused.code, headers, media_type="application/json")

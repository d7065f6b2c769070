"""`/control/…`: everything a test or a command can ask of the simulated world, as JSON.

Wrong input answers 400, something that is not there 404, something that makes no sense now 409, each with
`{"error": "what is wrong and what to do"}`.
"""

import base64
import binascii
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, field
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from switchboard_simulator.body import TooLarge, read_body
from switchboard_simulator.faults import OF_RECEIPTS, Fault, FaultRule
from switchboard_simulator.feed import Fact
from switchboard_simulator.receiver.behaviour import Behaviour
from switchboard_simulator.smsc.centre import NobodyBound, UnknownMessage
from switchboard_simulator.smsc.screen import CHANNEL as SMS
from switchboard_simulator.telegram.people import CHANNEL as TELEGRAM
from switchboard_simulator.telegram.people import CannotDo, Spoken
from switchboard_simulator.world import World

_MOST_BODY_BYTES = 30_000_000
_MOST_LISTED = 1000

T = TypeVar("T")
Handler = Callable[[Request], Awaitable[Response]]


class ControlError(Exception):
    """Something a caller of the control API did wrong."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class FaultOrder(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /control/faults`."""

    channel: str
    kind: str
    recipient: str = "*"
    operation: str = "*"
    count: int | None = 1
    skip: int = 0
    code: int = 0
    description: str = ""
    delay_seconds: float = 0.0
    retry_after_seconds: int = 1
    migrate_to: int | None = None


class MediaOrder(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file a person sends."""

    kind: str
    content_base64: str
    name: str = "file"
    content_type: str = "application/octet-stream"


class InboundOrder(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /control/inbound`: a person writes."""

    channel: str
    #: The person: a number on SMS, a chat id on TELEGRAM.
    sender: str = field(name="from")
    #: Whom they write to: one of our numbers, a bot's id or user name. "": the last that wrote to them.
    to: str = ""
    text: str = ""
    media: MediaOrder | None = None
    location: tuple[float, float] | None = None
    contact: tuple[str, str] | None = None
    #: The id of the message on the phone that this answers.
    reply_to: str = ""
    #: SMS: how often the SMSC delivers it, or each of its parts.
    times: Annotated[int, Meta(ge=1, le=10)] = 1


class PressOrder(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /control/press`: a person presses a button."""

    channel: str
    recipient: str
    message_id: str
    #: The button's data, or its words.
    button: str


class ReceiptOrder(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /control/receipts`: the SMSC reports on a message it took, whatever it reported before."""

    provider_id: str
    #: The word of the receipt's text form: DELIVRD, UNDELIV, EXPIRED, REJECTD …
    state: str = "DELIVRD"
    #: The vendor's error number, as the receipt spells it.
    error: str = "000"


class PhoneOrder(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`PUT /control/phones/{channel}/{recipient}`."""

    blocked: bool
    #: Which bot to tell.
    to: str = ""


class ReceiverOrder(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`PUT /control/receivers/{name}`. What is absent stays as it is; a null secret is forgotten."""

    #: Several while a secret is being changed: callbacks may be signed with any of them.
    secret: str | tuple[str, ...] | UnsetType | None = UNSET
    behaviour: Behaviour | UnsetType = UNSET


class Control:
    """The control API over one world."""

    def __init__(self, world: World) -> None:
        self._world = world

    def routes(self) -> list[BaseRoute]:
        """Every path and method."""
        table: list[tuple[str, str, Handler]] = [
            ("GET", "/control/state", self._state),
            ("POST", "/control/reset", self._reset),
            ("GET", "/control/events", self._events),
            ("GET", "/control/magic", self._magic),
            ("GET", "/control/faults", self._list_faults),
            ("POST", "/control/faults", self._add_fault),
            ("DELETE", "/control/faults", self._clear_faults),
            ("DELETE", "/control/faults/{id}", self._remove_fault),
            ("POST", "/control/inbound", self._inbound),
            ("POST", "/control/press", self._press),
            ("POST", "/control/receipts", self._receipt),
            ("GET", "/control/phones", self._phones),
            ("GET", "/control/phones/{channel}/{recipient}", self._phone),
            ("PUT", "/control/phones/{channel}/{recipient}", self._set_phone),
            ("GET", "/control/telegram/bots", self._bots),
            ("GET", "/control/receivers", self._receivers),
            ("GET", "/control/receivers/{name}", self._receiver),
            ("PUT", "/control/receivers/{name}", self._set_receiver),
            ("DELETE", "/control/receivers/{name}", self._forget_receiver),
            ("GET", "/control/receivers/{name}/callbacks", self._callbacks),
        ]
        return [Route(path, _answering(handler), methods=[method]) for method, path, handler in table]

    async def _state(self, _: Request) -> Response:
        world = self._world
        return _json(
            {
                "phones": len(world.phones),
                "faults": len(list(world.faults)),
                "bots": len(list(world.bots)),
                "receivers": {receiver.name: receiver.received for receiver in world.receivers},
                "ports": world.ports,
            }
        )

    async def _reset(self, _: Request) -> Response:
        self._world.reset()
        return _json({})

    async def _events(self, _: Request) -> Response:
        async def lines() -> Any:
            async for fact in self._world.feed.watch():
                yield _event(fact)

        return StreamingResponse(lines(), media_type="text/event-stream", headers={"cache-control": "no-store"})

    async def _magic(self, _: Request) -> Response:
        return _json({"magic": self._world.magic_recipients()})

    async def _list_faults(self, _: Request) -> Response:
        return _json({"faults": [*self._world.faults]})

    async def _add_fault(self, request: Request) -> Response:
        order = await _read(request, FaultOrder)
        details = msgspec.structs.asdict(order)
        rule = {name: details.pop(name) for name in ("channel", "recipient", "operation", "count", "skip")}
        if order.channel not in self._world.channels:
            raise ControlError(400, f"channel is expected to be one of {', '.join(self._world.channels)}")
        fault = msgspec.convert(details, Fault)
        if fault.kind in OF_RECEIPTS and order.channel != SMS:
            raise ControlError(400, f"{order.channel} reports nothing, so {fault.kind} makes no sense there")
        return _json(self._world.faults.add(FaultRule(fault=fault, **rule)))

    async def _clear_faults(self, _: Request) -> Response:
        self._world.faults.clear()
        return _json({})

    async def _remove_fault(self, request: Request) -> Response:
        if not self._world.faults.remove(request.path_params["id"]):
            raise ControlError(404, "there is no such fault; it may be used up")
        return _json({})

    async def _inbound(self, request: Request) -> Response:
        order = await _read(request, InboundOrder)
        if order.channel == TELEGRAM:
            message_id = self._world.people.say(_chat(order.sender), _spoken(order), order.to)
            return _json({"message_id": str(message_id)})
        if order.channel == SMS:
            if not order.to:
                raise ControlError(400, "on SMS `to` is expected: the number the person writes to")
            return _json({"message_id": self._world.smsc.say(order.sender, order.to, order.text, times=order.times)})
        raise ControlError(400, f"channel is expected to be one of {', '.join(self._world.channels)}")

    async def _press(self, request: Request) -> Response:
        order = await _read(request, PressOrder)
        if order.channel != TELEGRAM:
            raise ControlError(400, "only messages on TELEGRAM have buttons")
        self._world.people.press(_chat(order.recipient), order.message_id, order.button)
        return _json({})

    async def _receipt(self, request: Request) -> Response:
        order = await _read(request, ReceiptOrder)
        self._world.smsc.report(order.provider_id, order.state, order.error)
        return _json({})

    async def _phones(self, request: Request) -> Response:
        return _json({"phones": self._world.phones.recent(_limit(request))})

    async def _phone(self, request: Request) -> Response:
        phone = self._world.phones.get(request.path_params["channel"], request.path_params["recipient"])
        if phone is None:
            raise ControlError(404, "nobody wrote to or from that phone yet")
        return _json(phone)

    async def _set_phone(self, request: Request) -> Response:
        order = await _read(request, PhoneOrder)
        if request.path_params["channel"] != TELEGRAM:
            raise ControlError(400, "only people on TELEGRAM can block")
        self._world.people.block(_chat(request.path_params["recipient"]), order.blocked, order.to)
        return _json({})

    async def _bots(self, _: Request) -> Response:
        bots = [
            {"id": bot.id, "username": bot.username, "account": bot.account, "webhook": bot.webhook_info()}
            for bot in self._world.bots
        ]
        return _json({"bots": bots})

    async def _receivers(self, _: Request) -> Response:
        return _json({"receivers": [receiver.summary() for receiver in self._world.receivers]})

    async def _receiver(self, request: Request) -> Response:
        receiver = self._world.receivers.get(request.path_params["name"])
        if receiver is None:
            raise ControlError(404, "nothing was sent to that receiver yet, nor was it set up")
        return _json(receiver.summary())

    async def _set_receiver(self, request: Request) -> Response:
        order = await _read(request, ReceiverOrder)
        receiver = self._world.receivers.need(request.path_params["name"])
        if order.secret is not UNSET:
            receiver.secrets = (order.secret,) if isinstance(order.secret, str) else order.secret or ()
        if order.behaviour is not UNSET:
            receiver.behave(order.behaviour)
        return _json(receiver.summary())

    async def _forget_receiver(self, request: Request) -> Response:
        self._world.receivers.forget(request.path_params["name"])
        return _json({})

    async def _callbacks(self, request: Request) -> Response:
        receiver = self._world.receivers.get(request.path_params["name"])
        kept = [] if receiver is None else list(receiver.kept)[-_limit(request) :]
        return _json({"callbacks": kept})


def _answering(handler: Handler) -> Handler:
    async def answer(request: Request) -> Response:
        if request.method != "GET" and request.headers.get("sec-fetch-site", "same-origin") not in _OWN_PAGE:
            return _error(403, "only this simulator's own page may do that from a browser")
        try:
            return await handler(request)
        except ControlError as error:
            return _error(error.status, str(error))
        except (CannotDo, NobodyBound) as error:
            return _error(409, str(error))
        except UnknownMessage as error:
            return _error(404, str(error))
        except (msgspec.ValidationError, ValueError) as error:
            return _error(400, str(error))

    return answer


_OWN_PAGE = frozenset(("same-origin", "none"))


async def _read(request: Request, kind: type[T]) -> T:
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise ControlError(400, "a JSON body is expected (content-type: application/json)")
    try:
        return msgspec.json.decode(await read_body(request, _MOST_BODY_BYTES), type=kind)
    except TooLarge:
        raise ControlError(413, f"the body is larger than {_MOST_BODY_BYTES} bytes") from None
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError as error:
        raise ControlError(400, f"the body is no JSON: {error}") from error


def _spoken(order: InboundOrder) -> Spoken:
    reply_to = int(order.reply_to) if order.reply_to else None
    if order.media is None:
        return Spoken(text=order.text, location=order.location, contact=order.contact, reply_to=reply_to)
    try:
        content = base64.b64decode(order.media.content_base64, validate=True)
    except binascii.Error:
        raise ControlError(400, "media.content_base64 is no base64") from None
    return Spoken(
        text=order.text,
        media_kind=order.media.kind,
        file_name=order.media.name,
        content_type=order.media.content_type,
        content=content,
        reply_to=reply_to,
    )


def _chat(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ControlError(400, "a chat id on TELEGRAM is a number") from None


def _limit(request: Request) -> int:
    return max(1, min(_MOST_LISTED, int(request.query_params.get("limit", "100"))))


def _event(fact: Fact | None) -> bytes:
    if fact is None:
        return b": nothing new\n\n"
    name = type(fact).__name__
    return b"event: %s\ndata: %s\n\n" % (name.encode(), msgspec.json.encode(fact))


def _json(value: object) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")


def _error(status: int, text: str) -> Response:
    return Response(msgspec.json.encode({"error": text}), status, media_type="application/json")

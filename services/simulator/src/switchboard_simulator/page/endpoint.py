"""`/`, `/live`, `/static/…` and `/media/…`: the page a person looks at."""

from collections.abc import AsyncIterator
from importlib.resources import files
from typing import Final

import msgspec
from msgspec import structs
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from switchboard_simulator.feed import CallbackReceived, Fact, Missed, PhoneChanged
from switchboard_simulator.page import html
from switchboard_simulator.world import World

_PHONES: Final = 60
_CALLBACKS: Final = 100
_POLICY: Final = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:;"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_STATIC: Final = {"page.css": "text/css", "page.js": "text/javascript"}


class Page:
    """The page over one world."""

    def __init__(self, world: World) -> None:
        self._world = world
        folder = files("switchboard_simulator.page")
        self._static = {name: folder.joinpath(name).read_bytes() for name in _STATIC}

    def routes(self) -> list[BaseRoute]:
        """Every path."""
        return [
            Route("/", self._page),
            Route("/live", self._live),
            Route("/static/{name}", self._file),
            Route("/media/{file_id}/{name}", self._media),
        ]

    async def _page(self, _: Request) -> Response:
        world = self._world
        text = html.page(
            world.phones.recent(_PHONES),
            world.receivers.recent(_CALLBACKS),
            [receiver.summary() for receiver in world.receivers],
            world.magic_recipients(),
            world.channels,
        )
        return HTMLResponse(text, headers={"content-security-policy": _POLICY, "cache-control": "no-store"})

    async def _live(self, _: Request) -> Response:
        async def lines() -> AsyncIterator[bytes]:
            async for fact in self._world.feed.watch():
                yield self._event(fact)

        return StreamingResponse(lines(), media_type="text/event-stream", headers={"cache-control": "no-store"})

    async def _file(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in self._static:
            return Response(status_code=404)
        return Response(self._static[name], media_type=_STATIC[name], headers={"cache-control": "no-cache"})

    async def _media(self, request: Request) -> Response:
        file = self._world.files.get(request.path_params["file_id"])
        if file is None:
            return Response(status_code=404)
        # Anybody may have uploaded it: it may be looked at, never run.
        guard = {"content-security-policy": "sandbox; default-src 'none'", "x-content-type-options": "nosniff"}
        return Response(file.content, media_type=file.content_type, headers=guard)

    def _event(self, fact: Fact | None) -> bytes:
        match fact:
            case None:
                return b": nothing new\n\n"
            case PhoneChanged(phone, message):
                data = {
                    "phone_id": html.phone_id(phone),
                    "message_id": html.message_id(phone, message),
                    "card": html.phone_card(structs.replace(phone, messages=())),
                    "message": html.message_row(phone, message),
                }
                return _lines(b"phone", data)
            case CallbackReceived(callback):
                receiver = self._world.receivers.need(callback.receiver)
                data = {
                    "row": html.callback_row(callback),
                    "receiver": receiver.name,
                    "receiver_row": html.receiver_row(receiver.summary()),
                }
                return _lines(b"callback", data)
            case Missed():
                return _lines(b"missed", {})


def _lines(name: bytes, data: dict[str, str]) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name, msgspec.json.encode(data))

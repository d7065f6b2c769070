"""A lean webhook receiver: answers 200 and keeps every event id, and of each message when which status came.

A path that begins with `/hang/` is answered after so many seconds as its next part says, `/refuse` with 503, and
traces under `/v1/` are not kept. Under `/bot` it is a Bot API that knows nobody.
"""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any, Final, cast

from tests.benchmarks.outside.sink import serve

_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_EVENT: Final = re.compile(rb"\r\nwebhook-id: *(\S+)", re.IGNORECASE)
_SIGNATURE: Final = re.compile(rb"\r\nx-sinch-webhook-signature: *(\S+)", re.IGNORECASE)
_MESSAGE: Final = re.compile(rb'"message_id": ?"([^"]+)"')
_STATUS: Final = re.compile(rb'"status": ?"([^"]+)"')
_TAKEN: Final = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
_REFUSED: Final = b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n"
_NOBODY: Final = b'{"ok":false,"error_code":400,"description":"Bad Request: chat not found"}'
_UNKNOWN_CHAT: Final = b"HTTP/1.1 400 No\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
    len(_NOBODY), _NOBODY,
)  # fmt: skip


class _Seen:
    """What came, since the last reset."""

    def __init__(self) -> None:
        #: By path, since endpoints are compared.
        self.arrivals: dict[str, list[tuple[str, str, float]]] = {}
        #: Those that were answered at once.
        self.events: set[bytes] = set()
        self.repeated = 0
        self.unsigned = 0
        self.refused = 0


_seen = _Seen()
_refusing = False


class _Connection(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._data = b""

    def data_received(self, data: bytes) -> None:
        self._data += data
        while (end := self._data.find(b"\r\n\r\n")) >= 0:
            head = self._data[:end]
            length = _LENGTH.search(head)
            total = end + 4 + (int(length[1]) if length else 0)
            if len(self._data) < total:
                return
            body, self._data = self._data[end + 4 : total], self._data[total:]
            self._on_request(head, body)

    def _on_request(self, head: bytes, body: bytes) -> None:
        path = head[5 : head.index(b" ", 5)].decode()
        hangs = path.startswith("/hang/")
        if hangs:
            asyncio.get_running_loop().call_later(float(path.split("/")[2]), self._answer, _TAKEN)
        elif path.startswith("/bot"):
            self._answer(_UNKNOWN_CHAT)
            return
        elif path == "/refuse" or _refusing:
            _seen.refused += 1
            self._answer(_REFUSED)
            return
        else:
            self._answer(_TAKEN)
        if not path.startswith("/v1/"):
            _keep(path, head, body, is_answered=not hangs)

    def _answer(self, answer: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(answer)


def _keep(path: str, head: bytes, body: bytes, *, is_answered: bool) -> None:
    event = _EVENT.search(head)
    message = _MESSAGE.search(body)
    status = _STATUS.search(body)
    if event is not None and is_answered:
        if event[1] in _seen.events:
            _seen.repeated += 1
        _seen.events.add(event[1])
    if _SIGNATURE.search(head) is None:
        _seen.unsigned += 1
    _seen.arrivals.setdefault(path, []).append(
        (message[1].decode() if message else "", status[1].decode() if status else "", time.monotonic())
    )


def _reset(_: dict[str, Any]) -> bool:
    _seen.__init__()  # type: ignore[misc]  # one object for everybody who looks at it
    return True


def _set(question: dict[str, Any]) -> bool:
    global _refusing
    _refusing = question["refusing"]
    return True


def _count(question: dict[str, Any]) -> int:
    """Distinct events that were answered at once, or those of one path with one status."""
    if "path" not in question:
        return len(_seen.events)
    found = _seen.arrivals.get(question["path"], [])
    return len({message for message, status, _ in found if status == question["status"]})


async def _start() -> int:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Connection, "127.0.0.1", 0, backlog=1024)
    return int(server.sockets[0].getsockname()[1])


if __name__ == "__main__":
    serve(
        _start,
        {
            "reset": _reset,
            "set": _set,
            "count": _count,
            "faults": lambda _: {
                "repeated": _seen.repeated, "unsigned": _seen.unsigned, "refused": _seen.refused,
            },
            "paths": lambda _: list(_seen.arrivals),
            "arrivals": lambda question: _seen.arrivals.get(question["path"], []),
        },
    )  # fmt: skip

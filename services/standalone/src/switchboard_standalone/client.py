"""Calls a running installation as its client and its world outside would: the API and the simulator's control API."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Self

import msgspec
from msgspec import Struct
from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import PyreqwestError

from switchboard_standalone.home import Running
from switchboard_standalone.trouble import Refused


class SeenCallback(Struct, frozen=True):
    """A callback as the simulator's receiver took it."""

    number: int
    trigger: str
    #: Of a delivery report, else "".
    status: str
    message_id: str
    #: `valid`, or what is wrong.
    signature: str
    body: Any

    @classmethod
    def read(cls, taken: Any) -> Self:
        """From what the control API tells."""
        try:
            body = msgspec.json.decode(taken["body"], type=dict[str, Any])
        except msgspec.DecodeError:  # anybody can post there
            body = {}
        about = next((value for value in body.values() if isinstance(value, dict)), {})
        inner = about.get("message", about)
        return cls(
            number=taken["number"],
            trigger=taken["headers"].get("switchboard-trigger", ""),
            status=about.get("status", ""),
            message_id=about.get("message_id", "") or inner.get("id", ""),
            signature=taken["signature"] if taken["signature"] == "valid" else taken["signature_note"],
            body=body,
        )


class LocalClient:
    """One client of one installation."""

    def __init__(self, client: Client, running: Running) -> None:
        self._client = client
        self._running = running

    async def send(self, text: str, channel: str, recipient: str, **more: Any) -> str:
        """Send a text and return its message id. Raises Refused with the API's own words."""
        running = self._running
        body = {
            "app_id": running.app_id,
            "recipient": {"identified_by": {"channel_identities": [{"channel": channel, "identity": recipient}]}},
            "message": {"text_message": {"text": text}},
            **more,
        }
        answer = await self._json(
            self._client.post(f"{running.base_url}/v1/projects/{running.project_id}/messages:send").basic_auth(
                running.key_id, running.key_secret
            ),
            body,
        )
        return str(answer["message_id"])

    async def callbacks(self, receiver: str) -> list[SeenCallback]:
        """The callbacks a receiver took lately, oldest first."""
        taken = await self._json(self._client.get(self._control(f"/receivers/{receiver}/callbacks")))
        return [SeenCallback.read(one) for one in taken["callbacks"]]

    async def phone(self, channel: str, recipient: str) -> list[Any]:
        """The messages on a phone, oldest first."""
        phones = await self._json(self._client.get(self._control("/phones")))
        for phone in phones["phones"]:
            if (phone["channel"], phone["recipient"]) == (channel, recipient):
                return list(phone["messages"])
        return []

    async def facts(self) -> AsyncIterator[tuple[str, Any]]:
        """What happens outside, as it happens: the fact's name and the fact. Ends with the simulator."""
        request = self._client.get(self._control("/events")).timeout(timedelta(days=365))
        # Without a buffer the answer begins when its head is there, not when it is full.
        async with request.streamed_read_buffer_limit(0).build_streamed() as answer:
            said = b""
            while chunk := await answer.body_reader.read_chunk():
                said += bytes(chunk)
                *events, said = said.split(b"\n\n")
                for event in events:
                    fields = dict(line.split(b": ", 1) for line in event.split(b"\n") if b": " in line)
                    if b"data" in fields and b"event" in fields:
                        yield fields[b"event"].decode(), msgspec.json.decode(fields[b"data"])

    async def is_ready(self, url: str) -> bool:
        """Whether a service says that it works."""
        try:
            answer = await self._client.get(f"{url}/health/ready").build().send()
        except PyreqwestError:
            return False
        return answer.status == 200

    def _control(self, path: str) -> str:
        if not self._running.simulator_url:
            raise Refused("the simulator does not run; start `switchboard up` without --no-simulator")
        return f"{self._running.simulator_url}/control{path}"

    async def _json(self, request: Any, body: Any = None) -> Any:
        if body is not None:
            request = request.header("content-type", "application/json").body_bytes(msgspec.json.encode(body))
        try:
            answer = await request.build().send()
            content = msgspec.json.decode(bytes(await answer.bytes()))
        except PyreqwestError as error:
            raise Refused(f"nothing answers ({type(error).__name__}); run `switchboard doctor`") from error
        except msgspec.DecodeError as error:
            raise Refused(f"the answer is no JSON ({answer.status}); run `switchboard doctor`") from error
        if answer.status != 200:
            raise Refused(f"refused with {answer.status}: {_words(content)}")
        return content


@asynccontextmanager
async def calling(running: Running) -> AsyncIterator[LocalClient]:
    """A client that is closed again."""
    # Loopback only: a proxy of the environment is not asked.
    client = ClientBuilder().no_proxy().timeout(timedelta(seconds=10)).build()
    async with client:
        yield LocalClient(client, running)


def _words(content: Any) -> str:
    """What an error body says (conversation-api 1.4), fields included."""
    error = content.get("error", content) if isinstance(content, dict) else content
    if not isinstance(error, dict):
        return str(error)
    fields = [
        f"{violation.get('field')}: {violation.get('description')}"
        for detail in error.get("details", ())
        for violation in detail.get("field_violations", ())
    ]
    return "; ".join([str(error.get("message", error)), *fields])

"""A whole installation for flow tests: `switchboard up` as a process, and what tests do with it."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
from msgspec import Struct
from pyreqwest.client import Client, ClientBuilder

from switchboard.ids import MessageId
from switchboard.store import timeline
from switchboard.testing import wait_until
from switchboard_simulator.journal import read_lines
from switchboard_standalone.home import Home, Running

_JSON = {"content-type": "application/json"}
_numbers = itertools.count(46_760_000_000)


class Answer(Struct, frozen=True):
    """An HTTP answer."""

    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.content)


class Installed:
    """A running installation, its outside world included."""

    def __init__(self, home: Home, client: Client, process: asyncio.subprocess.Process) -> None:
        self.home = home
        self.process = process
        self._client = client

    @property
    def running(self) -> Running:
        """`dev.json` as it is now."""
        return msgspec.json.decode(self.home.dev_json.read_bytes(), type=Running)

    # -- the API

    async def call(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Answer:
        """One call of the project's API; `path` begins after the project's id."""
        running = self.running
        url = f"{running.base_url}/v1/projects/{running.project_id}{path}"
        request = self._client.request(method, url).basic_auth(running.key_id, running.key_secret)
        return await _answer(request, body, headers)

    async def post(
        self, url: str, body: Any, *, headers: Mapping[str, str] | None = None, basic: bool = False
    ) -> Answer:
        """One POST to any address, without credentials or (`basic`) with those of the project."""
        request = self._client.post(url)
        if basic:
            request = request.basic_auth(self.running.key_id, self.running.key_secret)
        return await _answer(request, body, headers)

    async def send(
        self, text: str, *to: tuple[str, str], headers: Mapping[str, str] | None = None, **fields: Any
    ) -> MessageId:
        """Send a text to identities `(channel, identity)`, in this order of channels; further fields as the API's."""
        identities = [{"channel": channel, "identity": identity} for channel, identity in to]
        body = {
            "app_id": self.running.app_id,
            "recipient": {"identified_by": {"channel_identities": identities}},
            "message": {"text_message": {"text": text}},
            "channel_priority_order": [channel for channel, _ in to],
            **fields,
        }
        answer = await self.call("POST", "/messages:send", body, headers)
        assert answer.status == 200, answer.content
        return MessageId(answer.json["message_id"])

    async def send_when_up(self, text: str, *to: tuple[str, str]) -> MessageId:
        """The same, again and again while the API answers that it cannot now: with a key, so at most once."""
        found: list[MessageId] = []

        async def is_taken() -> bool:
            identities = [{"channel": channel, "identity": identity} for channel, identity in to]
            body = {
                "app_id": self.running.app_id,
                "recipient": {"identified_by": {"channel_identities": identities}},
                "message": {"text_message": {"text": text}},
            }
            answer = await self.call("POST", "/messages:send", body, {"idempotency-key": f"{text} {to}"})
            if answer.status == 200:
                found.append(MessageId(answer.json["message_id"]))
            return answer.status == 200

        await wait_until(is_taken, 60, "the API takes it")
        return found[0]

    async def message(self, message_id: MessageId) -> Any:
        """The message as the API shows it."""
        answer = await self.call("GET", f"/messages/{message_id}?messages_source=DISPATCH_SOURCE")
        assert answer.status == 200, answer.content
        return answer.json

    # -- the world outside

    async def simulator(self, method: str, path: str, **body: Any) -> Answer:
        """One call of the simulator's control API; `path` begins after `/control`."""
        request = self._client.request(method, f"{self.running.simulator_url}/control{path}")
        return await _answer(request, body if method in ("POST", "PUT") else None, None)

    async def fault(self, channel: str, kind: str, **rule: Any) -> None:
        """Have the next submissions meet a fault."""
        answer = await self.simulator("POST", "/faults", channel=channel, kind=kind, **rule)
        assert answer.status == 200, answer.content

    async def say(self, channel: str, sender: str, text: str, to: str = "") -> None:
        """A person writes to the development app."""
        to = to or (self.running.number if channel == "SMS" else self.running.telegram_token.partition(":")[0])
        answer = await self.simulator(
            "POST", "/inbound", **{"channel": channel, "from": sender, "to": to, "text": text}
        )
        assert answer.status == 200, answer.content

    async def phone(self, channel: str, recipient: str) -> list[str]:
        """The texts that came to a phone."""
        answer = await self.simulator("GET", f"/phones/{channel}/{recipient}")
        if answer.status == 404:
            return []
        return [message.get("text", "") for message in answer.json["messages"] if message["incoming"]]

    def submissions(self, recipient: str) -> list[dict[str, Any]]:
        """What providers saw for a recipient, oldest first."""
        log = self.home.submissions_log
        return [line for line in read_lines(log) if line["recipient"] == recipient] if log.exists() else []

    def callbacks(self, message_id: str, *, receiver: str = "app") -> list[Any]:
        """Bodies of the callbacks about a message, in the order they came. Asserts that each was signed right."""
        found = []
        for line in read_lines(self.home.callbacks_log) if self.home.callbacks_log.exists() else ():
            if line["receiver"] == receiver and message_id in line["body"]:
                assert line["signature"] == "valid", line
                found.append(msgspec.json.decode(line["body"]))
        return found

    def statuses(self, message_id: str) -> list[str]:
        """The statuses the app was told, in order."""
        bodies = self.callbacks(message_id)
        return [body["message_delivery_report"]["status"] for body in bodies if "message_delivery_report" in body]

    async def reported(self, message_id: str, *statuses: str, timeout_seconds: float = 20.0) -> None:
        """Wait until the app was told exactly these statuses, in this order."""
        await wait_until(
            lambda: len(self.statuses(message_id)) >= len(statuses),
            timeout_seconds,
            lambda: f"{statuses}; told were {self.statuses(message_id)}",
        )
        assert self.statuses(message_id) == list(statuses)

    # -- inside

    async def timeline(self, message_id: MessageId) -> list[timeline.Moment]:
        """What happened to a message."""
        async with self.database() as connection:
            return await timeline.read(connection, message_id)

    @asynccontextmanager
    async def database(self) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
        """A connection to the installation's database."""
        connection = await asyncpg.connect(
            self.running.postgres, server_settings={"search_path": "switchboard, public"}
        )
        try:
            yield connection
        finally:
            await connection.close()

    async def set_rate(self, messages_per_second: int) -> None:
        """Let the development app send this many messages a second on each channel."""
        async with self.database() as connection:
            await connection.execute(
                "UPDATE switchboard.apps SET settings ="
                " jsonb_set(settings, '{rate_limits,outbound}', to_jsonb($2::int))"
                " WHERE id = $1",
                self.running.app_id, messages_per_second,
            )  # fmt: skip

    async def restarted(self, service: str, before: int) -> None:
        """Wait until a service has another process than `before`, and that one is ready."""

        async def is_ready() -> bool:
            running = self.running
            if running.pids.get(service) in (None, before):
                return False
            with suppress(Exception):
                answer = await _answer(self._client.get(f"{running.urls[service]}/health/ready"), None, None)
                return answer.status == 200
            return False

        await wait_until(is_ready, 30, f"{service} runs again")


def new_number() -> str:
    """A phone number no other test uses; it ends in 00, so it is no magic one."""
    return str(next(_numbers) * 100)[:13]


@asynccontextmanager
async def installed(
    folder: Path, *options: str, environment: Mapping[str, str] | None = None
) -> AsyncIterator[Installed]:
    """`switchboard up` on this folder, until the block ends; then SIGTERM, and its exit code is looked at."""
    home = Home(folder)
    process = await start(folder, *options, environment=environment)
    client = ClientBuilder().no_proxy().timeout(timedelta(seconds=10)).build()
    try:
        await until_up(process, home)
        yield Installed(home, client, process)
    finally:
        await client.close()
        await stop(process)


async def start(
    folder: Path, *options: str, environment: Mapping[str, str] | None = None
) -> asyncio.subprocess.Process:
    """Start `switchboard up`; what it says goes to `up.log` in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "up.log").open("ab") as log:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "switchboard_standalone", "up", "--data", str(folder), *options,
            stdout=log, stderr=log, env={**os.environ, **(environment or {})},
        )  # fmt: skip


async def until_up(process: asyncio.subprocess.Process, home: Home) -> None:
    """Wait for `dev.json` of this process."""

    def is_up() -> bool:
        said = (home.folder / "up.log").read_text()
        assert process.returncode is None, f"switchboard up ended ({process.returncode}): {said[-2000:]}"
        running = home.running()
        return running is not None and running.supervisor_pid == process.pid

    await wait_until(is_up, 60, lambda: f"up; it said {(home.folder / 'up.log').read_text()[-2000:]}")


async def stop(process: asyncio.subprocess.Process) -> int:
    """End it in good order, by force after 60 s, and return how it ended."""
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
    try:
        return await asyncio.wait_for(process.wait(), 60)
    except TimeoutError:
        process.kill()
        return await process.wait()


async def _answer(request: Any, body: Any, headers: Mapping[str, str] | None) -> Answer:
    request = request.headers({**_JSON, **(headers or {})} if body is not None else dict(headers or {}))
    if body is not None:
        request = request.body_bytes(body if isinstance(body, bytes) else msgspec.json.encode(body))
    answer = await request.build().send()
    content = bytes(await answer.bytes())
    return Answer(answer.status, {name.lower(): value for name, value in answer.headers.items()}, content)

"""One simulator for all these tests, new in each by a reset and a bot of its own, and a client that calls it."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pyreqwest.client import Client, ClientBuilder

from switchboard_simulator.journal import read_lines
from switchboard_simulator.service import running
from switchboard_simulator.settings import SimulatorSettings
from switchboard_simulator.world import World

_SUBMISSIONS = "submissions.jsonl"
_CALLBACKS = "callbacks.jsonl"
_bot_ids = count(1000)


class Answer:
    """A status, headers and a body."""

    def __init__(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.status = status
        self.headers = headers
        self.content = content

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.content)


class Caller:
    """Calls a running simulator the way bots, apps and tests do."""

    def __init__(self, world: World, client: Client, folder: Path, bot_id: int = 123456) -> None:
        self.world = world
        self.bot_id = bot_id
        self.token = f"{bot_id}:an_ordinary_token"
        self.base = f"http://127.0.0.1:{world.ports['http']}"
        self._client = client
        self._folder = folder
        self._seen = {name: len(list(read_lines(folder / name))) for name in (_SUBMISSIONS, _CALLBACKS)}

    async def request(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        request = self._client.request(method, self.base + path).headers(headers or {})
        answer = await (request if body is None else request.body_bytes(body)).build().send()
        content = bytes(await answer.bytes())
        return Answer(answer.status, {name.lower(): value for name, value in answer.headers.items()}, content)

    async def bot(self, method: str, token: str | None = None, **fields: Any) -> Answer:
        """One call of the Bot API with a JSON body."""
        headers = {"content-type": "application/json"}
        return await self.request("POST", f"/bot{token or self.token}/{method}", msgspec.json.encode(fields), headers)

    async def send(self, chat_id: int | str, text: str = "Hello") -> Answer:
        return await self.bot("sendMessage", chat_id=chat_id, text=text)

    async def control(self, method: str, path: str, **body: Any) -> Answer:
        """One call of the control API."""
        headers = {"content-type": "application/json"}
        content = msgspec.json.encode(body) if method in ("POST", "PUT") else None
        return await self.request(method, f"/control/{path}", content, headers)

    async def say(self, chat_id: int, text: str = "", **more: Any) -> Answer:
        """Let a person write to this test's bot."""
        order = {"channel": "TELEGRAM", "from": str(chat_id), "to": str(self.bot_id), "text": text, **more}
        return await self.control("POST", "inbound", **order)

    async def fault(self, kind: str, **rule: Any) -> Answer:
        answer = await self.control("POST", "faults", **{"channel": "TELEGRAM", "kind": kind, **rule})
        assert answer.status == 200, answer.content
        return answer

    def submissions(self) -> list[dict[str, Any]]:
        """The lines that this test put on record."""
        return self._lines(_SUBMISSIONS)

    def callbacks(self) -> list[dict[str, Any]]:
        """The lines that this test put on record."""
        return self._lines(_CALLBACKS)

    def _lines(self, name: str) -> list[dict[str, Any]]:
        return list(read_lines(self._folder / name))[self._seen[name] :]

    def shown(self, chat_id: int | str) -> list[str]:
        """The texts on a phone."""
        phone = self.world.phones.get("TELEGRAM", str(chat_id))
        return [] if phone is None else [message.text for message in phone.messages]


Simulated = Callable[..., AbstractAsyncContextManager[Caller]]


@asynccontextmanager
async def _simulated(folder: Path, **overrides: Any) -> AsyncIterator[tuple[World, Client]]:
    settings = SimulatorSettings(
        submissions_log=folder / _SUBMISSIONS,
        callbacks_log=folder / _CALLBACKS,
        **{"port": 0, "smpp_port": 0, "update_retry_seconds": 0.01, **overrides},
    )
    client = ClientBuilder().timeout(timedelta(seconds=20)).follow_redirects(False).no_proxy().build()
    async with running(settings) as world, client:
        yield world, client


@pytest.fixture
def simulated(tmp_path: Path) -> Simulated:
    """Starts a simulator of the test's own, with its own settings, on the same logs each time."""

    @asynccontextmanager
    async def start(**overrides: Any) -> AsyncIterator[Caller]:
        async with _simulated(tmp_path, **overrides) as (world, client):
            yield Caller(world, client, tmp_path)

    return start


@pytest.fixture(scope="session")
async def _shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[World, Client, Path]]:
    folder = tmp_path_factory.mktemp("simulator")
    async with _simulated(folder) as (world, client):
        yield world, client, folder


@pytest.fixture
async def simulator(_shared: tuple[World, Client, Path]) -> Caller:
    """A simulator with ordinary settings, without a past, and a bot that nobody used before."""
    world, client, folder = _shared
    world.reset()
    return Caller(world, client, folder, next(_bot_ids))

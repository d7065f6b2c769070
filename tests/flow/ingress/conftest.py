"""Ingress on a real broker and database, called through its ASGI interface as a server would call it."""

import base64
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

import msgspec
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from pydantic import SecretStr

import switchboard_channels
from switchboard.bus import TopicSpec, ensure_topics
from switchboard.channel.registry import manifests, renderers
from switchboard.configuration import App, ConfigurationStore, Credential
from switchboard.configuration.credential import StaticBearer, TelegramCredentials
from switchboard.identity import ChannelName
from switchboard.ids import AppId, ProjectId, mint
from switchboard.records import AcceptedRecord, MessageAccepted
from switchboard.secrets import KeyRing
from switchboard.settings import read_settings
from switchboard.store.pool import Pool, open_pool
from switchboard.topics import MESSAGES_ACCEPTED
from switchboard_ingress.api import Api
from switchboard_ingress.service import serving
from switchboard_ingress.settings import IngressSettings

PROJECT = ProjectId("5a0d1c3e-7b44-4f0e-9f2d-2f6d5a8c1b90")
OTHER_PROJECT = ProjectId("6b1e2d4f-8c55-4a1f-8a3e-3a7e6b9d2ca1")
KEY, SECRET = "key-1", "a-long-random-access-secret"
SECRET_KEYS = KeyRing.generate()
MANIFESTS = manifests(switchboard_channels)
RENDERERS = renderers(switchboard_channels)


class Clock:
    """The process's wall clock, moved by hand."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


class Reply(msgspec.Struct):
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def error(self) -> dict[str, Any]:
        error: dict[str, Any] = self.json["error"]
        assert error["code"] == self.status
        return error

    @property
    def fields(self) -> list[str]:
        """The fields of a 400."""
        assert self.error["status"] == "INVALID_ARGUMENT"
        return [violation["field"] for violation in self.error["details"][0]["fieldViolations"]]


def basic(key: str = KEY, secret: str = SECRET) -> str:
    return "Basic " + base64.b64encode(f"{key}:{secret}".encode()).decode()


class Client:
    """Calls an ASGI application the way uvicorn does."""

    def __init__(self, api: Api, project_id: ProjectId = PROJECT) -> None:
        self.api = api
        self.project_id = project_id

    async def __call__(
        self, method: str, path: str, body: Any = None, *, headers: Mapping[str, str] | None = None, raw: bool = False
    ) -> Reply:
        """Call `path`, below the project unless it is absolute (`//…`), with a JSON body, or a raw one."""
        target = path[1:] if path.startswith("//") else f"/v1/projects/{self.project_id}{path}"
        content = body if raw else b"" if body is None else msgspec.json.encode(body)
        given = {"authorization": basic(), "content-type": "application/json" if content else "", **(headers or {})}
        parts = urlsplit(target)
        scope = {
            "type": "http",
            "method": method,
            "path": unquote(parts.path),
            "query_string": parts.query.encode(),
            "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in given.items() if value],
        }
        sent: list[dict[str, Any]] = []
        pieces = [content[start : start + 65_536] for start in range(0, len(content), 65_536)] or [b""]

        async def receive() -> dict[str, Any]:
            if not pieces:
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

        async def send(message: Any) -> None:
            sent.append(message)

        await self.api(scope, receive, send)
        start, end = sent
        return Reply(start["status"], {k.decode(): v.decode() for k, v in start["headers"]}, end["body"])


class Topic:
    """What is in the topic of accepted messages."""

    def __init__(self, bootstrap: str, name: str) -> None:
        self._bootstrap = bootstrap
        self.name = name

    async def read(self) -> list[tuple[bytes, AcceptedRecord, dict[str, bytes]]]:
        """Everything in it now: key, record, headers."""
        consumer = AIOKafkaConsumer(bootstrap_servers=self._bootstrap, auto_offset_reset="earliest")
        await consumer.start()
        try:
            partitions = [
                TopicPartition(self.name, number) for number in consumer.partitions_for_topic(self.name) or ()
            ]
            if not partitions:
                consumer.assign([TopicPartition(self.name, number) for number in range(2)])
                partitions = list(consumer.assignment())
            consumer.assign(partitions)
            ends = await consumer.end_offsets(partitions)
            found = []
            left = sum(ends.values())
            while left:
                for records in (await consumer.getmany(timeout_ms=1_000)).values():
                    for record in records:
                        headers = dict(record.headers)
                        found.append((record.key, MESSAGES_ACCEPTED.decode(record.value, headers), headers))
                        left -= 1
            return found
        finally:
            await consumer.stop()

    async def messages(self) -> list[MessageAccepted]:
        return [record for _, record, _ in await self.read() if isinstance(record, MessageAccepted)]


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    pool = await open_pool(database, size=5, service="test")
    yield pool
    pool.terminate()


@pytest.fixture
async def store(pool: Pool) -> ConfigurationStore:
    store = ConfigurationStore(pool, KeyRing.parse(SECRET_KEYS), MANIFESTS)
    await store.put_project(PROJECT, "Harbour")
    await store.put_project(OTHER_PROJECT, "Another")
    await store.put_access_key(KEY, PROJECT, SECRET)
    await store.put_access_key("other", OTHER_PROJECT, SECRET)
    return store


def make_app(**fields: Any) -> App:
    given: dict[str, Any] = {
        "id": AppId(mint()),
        "project_id": PROJECT,
        "display_name": "Harbour notices",
        "channel_credentials": (
            Credential(channel=ChannelName("SMS"), static_bearer=StaticBearer("harbour", "sms-token")),
            Credential(channel=ChannelName("TELEGRAM"), telegram_credentials=TelegramCredentials("1:bot-token")),
        ),
    }
    return App(**(given | fields))


@pytest.fixture
async def app(store: ConfigurationStore) -> App:
    app = make_app()
    await store.insert_app(app)
    return app


@pytest.fixture
async def topic(kafka: str, topic_prefix: str) -> Topic:
    name = MESSAGES_ACCEPTED.name(topic_prefix)
    await ensure_topics(kafka, [TopicSpec(name, partitions=2)])
    return Topic(kafka, name)


@pytest.fixture
def settings(database: str, kafka: str, topic_prefix: str) -> IngressSettings:
    return read_settings(
        IngressSettings,
        postgres_dsn=SecretStr(database),
        kafka_bootstrap=kafka,
        topic_prefix=topic_prefix,
        secret_keys=SecretStr(SECRET_KEYS),
    )


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Serve(Protocol):
    async def __call__(self, **settings: Any) -> Client: ...


@pytest.fixture
async def serve(
    settings: IngressSettings, pool: Pool, topic: Topic, store: ConfigurationStore, clock: Clock
) -> AsyncIterator[Serve]:
    """Start ingress with other settings than the usual ones."""
    async with AsyncExitStack() as stack:

        async def start(**changed: Any) -> Client:
            api = await stack.enter_async_context(
                serving(settings.model_copy(update=changed), pool, MANIFESTS, RENDERERS, clock)
            )
            return Client(api)

        yield start


@pytest.fixture
async def call(serve: Callable[[], Any]) -> Client:
    client: Client = await serve()
    return client


def a_send(app: App, **fields: Any) -> dict[str, Any]:
    """The body of a good send."""
    return {
        "app_id": app.id,
        "recipient": {"identified_by": {"channel_identities": [{"channel": "SMS", "identity": "+46701230001"}]}},
        "message": {"text_message": {"text": "The ferry leaves at noon."}},
    } | fields

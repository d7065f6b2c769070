"""Broker or database away, a process killed: nothing hangs, nothing is promised that is not kept."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping

import msgspec
import pytest
from tests.flow.ingress.conftest import MANIFESTS, PROJECT, RENDERERS, SECRET_KEYS, Client, Serve, Topic, a_send, basic

from switchboard.bus import TopicSpec, ensure_topics
from switchboard.configuration import App, ConfigurationStore
from switchboard.embedded import EmbeddedKafka
from switchboard.ids import mint
from switchboard.store.pool import Pool, open_pool
from switchboard.testing import free_port, wait_until
from switchboard.topics import MESSAGES_ACCEPTED
from switchboard_ingress.service import serving
from switchboard_ingress.settings import IngressSettings


@pytest.mark.fault
async def test_with_the_broker_away_a_send_is_not_confirmed_in_time_and_taken_again_later(
    own_kafka: Callable[[], EmbeddedKafka], settings: IngressSettings, pool: Pool, app: App
) -> None:
    broker = own_kafka()
    name = MESSAGES_ACCEPTED.name(settings.topic_prefix)
    await ensure_topics(broker.bootstrap, [TopicSpec(name, partitions=2)])
    there = settings.model_copy(update={"kafka_bootstrap": broker.bootstrap, "produce_seconds": 1.0})
    async with serving(there, pool, MANIFESTS, RENDERERS) as api:
        call = Client(api)
        key = {"idempotency-key": mint()}
        assert (await call("POST", "/messages:send", a_send(app))).status == 200
        broker.kill()
        async with asyncio.timeout(5):
            answers = await asyncio.gather(
                *(call("POST", "/messages:send", a_send(app)) for _ in range(5)),
                call("POST", "/messages:send", a_send(app), headers=key),
            )
        for answer in answers:
            assert answer.status == 503
            assert answer.error["status"] == "UNAVAILABLE"
            assert "not confirmed" in answer.error["message"]
            assert int(answer.headers["retry-after"]) > 0
        # What does not need the broker goes on.
        assert (await call("GET", "/apps")).status == 200

        broker.start()

        async def taken() -> bool:
            return (await call("POST", "/messages:send", a_send(app), headers=key)).status == 200

        await wait_until(taken, timeout_seconds=30)
    ids = {record.message_id for record in await Topic(broker.bootstrap, name).messages()}
    assert await pool.fetchval("SELECT message_id FROM switchboard.idempotency") in ids


async def test_more_sends_than_may_wait_are_refused_at_once(serve: Serve, app: App) -> None:
    call = await serve(max_pending_sends=1)
    answers = await asyncio.gather(*(call("POST", "/messages:send", a_send(app)) for _ in range(20)))

    assert {answer.status for answer in answers} == {200, 503}


async def test_with_the_database_away_sends_go_on_and_the_rest_says_so(
    call: Client, app: App, pool: Pool, topic: Topic
) -> None:
    # Sent once, what it needs is in memory.
    assert (await call("POST", "/messages:send", a_send(app))).status == 200
    pool.terminate()
    sent = await call("POST", "/messages:send", a_send(app))
    keyed = await call("POST", "/messages:send", a_send(app), headers={"idempotency-key": "k"})
    listed = await call("GET", "/apps")

    assert sent.status == 200
    assert len(await topic.messages()) == 2
    for answer in (keyed, listed):
        assert answer.status == 503
        assert answer.error["status"] == "UNAVAILABLE"
        assert "retry-after" in answer.headers


class Ingress:
    """Ingress as a process of its own."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.port = free_port()
        self._environment = {**os.environ, **environment, "SWITCHBOARD_PORT": str(self.port)}

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "switchboard_ingress", env=self._environment, stderr=asyncio.subprocess.DEVNULL
        )
        await wait_until(self._listens, timeout_seconds=30)

    async def _listens(self) -> bool:
        try:
            status, _ = await self.call("GET", "/health/ready")
        except OSError:
            return False
        return status == 200

    async def call(self, method: str, path: str, body: bytes = b"", headers: str = "") -> tuple[int, bytes]:
        """One request over a socket. Status 0: the connection ended without an answer."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        head = f"{method} {path} HTTP/1.1\r\nhost: x\r\nauthorization: {basic()}\r\nconnection: close\r\n{headers}"
        writer.write(f"{head}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
        try:
            answer = await reader.read()
        except ConnectionError:
            answer = b""
        writer.close()
        if not answer:
            return 0, b""
        lines, _, content = answer.partition(b"\r\n\r\n")
        return int(lines.split()[1]), content


@pytest.fixture
async def ingress(
    settings: IngressSettings, store: ConfigurationStore, topic: Topic
) -> AsyncIterator[Callable[[Mapping[str, str]], Ingress]]:
    started: list[Ingress] = []

    def make(environment: Mapping[str, str]) -> Ingress:
        made = Ingress(
            {
                "SWITCHBOARD_POSTGRES_DSN": settings.postgres_dsn.get_secret_value(),
                "SWITCHBOARD_KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
                "SWITCHBOARD_TOPIC_PREFIX": settings.topic_prefix,
                "SWITCHBOARD_SECRET_KEYS": SECRET_KEYS,
                **environment,
            }
        )
        started.append(made)
        return made

    yield make
    for one in started:
        if one.process.returncode is None:
            one.process.kill()
        await one.process.wait()


@pytest.mark.fault
@pytest.mark.parametrize(("point", "published"), [("ingress.before_produce", 0), ("ingress.after_produce", 1)])
async def test_a_process_killed_around_the_produce_promises_nothing_and_a_repeat_is_the_same_message(
    ingress: Callable[[Mapping[str, str]], Ingress], app: App, topic: Topic, pool: Pool, point: str, published: int
) -> None:
    body = msgspec.json.encode(a_send(app))
    path = f"/v1/projects/{PROJECT}/messages%3Asend"
    doomed = ingress({"SWITCHBOARD_CRASH_AT": point})
    await doomed.start()
    assert (await doomed.call("POST", path, body, "idempotency-key: k\r\n"))[0] == 0
    assert await doomed.process.wait() == -signal.SIGKILL
    assert len(await topic.messages()) == published

    healthy = ingress({})
    await healthy.start()
    status, answer = await healthy.call("POST", path, body, "idempotency-key: k\r\n")
    found = await topic.messages()

    assert status == 200
    assert {record.message_id for record in found} == {msgspec.json.decode(answer)["message_id"]}
    assert len(found) == published + 1
    healthy.process.terminate()
    assert await healthy.process.wait() == 0


async def test_a_process_with_a_wrong_setting_ends_with_one_line_that_names_it(settings: IngressSettings) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "switchboard_ingress",
        env={**os.environ, "SWITCHBOARD_SECRET_KEYS": "nonsense", "SWITCHBOARD_KAFKA_BOOTSTRAP": "x"},
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, said = await process.communicate()

    assert process.returncode == 2
    assert len(said.decode().strip().splitlines()) == 1
    assert b"SWITCHBOARD_SECRET_KEYS" in said
    assert b"SWITCHBOARD_POSTGRES_DSN: is not set" in said
    assert b"nonsense" not in said


async def test_old_keys_are_swept(settings: IngressSettings, database: str, store: ConfigurationStore) -> None:
    pool = await open_pool(database, size=5, service="test")
    await pool.execute(
        "INSERT INTO switchboard.idempotency SELECT 'p', n::text, '', 'm', now() - n * interval '25 hours', true"
        " FROM generate_series(0, 9) AS n"
    )
    async with serving(settings, pool, MANIFESTS, RENDERERS):

        async def left() -> bool:
            return bool(await pool.fetchval("SELECT count(*) = 2 FROM switchboard.idempotency"))

        await wait_until(left)
    await pool.close()

"""The service as the process its image runs: it starts, it is killed, and nothing is lost or out of turn."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from base64 import b64encode
from collections import defaultdict
from collections.abc import AsyncIterator

import pytest
from sinch.domains.conversation.sinch_events.v1.conversation_sinch_event import ConversationSinchEvent
from tests.flow.callback_delivery.conftest import SECRET, World, callback
from tests.flow.callback_delivery.receiver import Receiver

from switchboard.configuration import ConfigurationStore, Webhook
from switchboard.ids import ProjectId, mint
from switchboard.records import DeliverCallback
from switchboard.secrets import KeyRing
from switchboard.testing import wait_until

KEYS = "k1:" + b64encode(b"0123456789abcdef0123456789abcdef").decode()


class Service:
    """Starts processes of the service and ends those that still run."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._processes: list[asyncio.subprocess.Process] = []

    async def start(self, crash_at: str = "", ordinal: int = 0) -> asyncio.subprocess.Process:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("SWITCHBOARD_")},
            "SWITCHBOARD_POSTGRES_DSN": self._world.database,
            "SWITCHBOARD_KAFKA_BOOTSTRAP": self._world.kafka,
            "SWITCHBOARD_TOPIC_PREFIX": self._world.prefix,
            "SWITCHBOARD_SECRET_KEYS": KEYS,
            "SWITCHBOARD_ALLOWED_NETWORKS": "127.0.0.0/8",
            "SWITCHBOARD_ORDINAL": str(ordinal),
            "SWITCHBOARD_CRASH_AT": crash_at,
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "switchboard_callback_delivery", env=environment, stderr=asyncio.subprocess.DEVNULL
        )
        self._processes.append(process)
        return process

    async def stop(self) -> None:
        for process in self._processes:
            if process.returncode is None:
                process.kill()
                await process.wait()


@pytest.fixture
async def service(world: World) -> AsyncIterator[Service]:
    service = Service(world)
    yield service
    await service.stop()


async def configure(world: World, target: str) -> Webhook:
    """An app with a webhook, as the API stores it."""
    webhook = world.apps.add(target)
    store = ConfigurationStore(world.pool, KeyRing.parse(KEYS), {})
    app = world.apps.apps[webhook.app_id]
    await store.put_project(ProjectId(app.project_id), "Harbour")
    await store.insert_app(app)
    await store.put_webhook(webhook)
    return webhook


def stories(webhook: Webhook, streams: int) -> list[DeliverCallback]:
    """Three callbacks for each of so many messages, one message after the other."""
    ids = [mint() for _ in range(streams)]
    return [callback(webhook, stream=stream, sequence=number) for number in (1, 2, 3) for stream in ids]


def check(receiver: Receiver, orders: list[DeliverCallback], most_twice: int) -> None:
    """Everything arrived, signed, first sights in order, duplicates under the same id and no more than that."""
    assert {got.event_id for got in receiver.got} == {order.callback_id for order in orders}
    firsts: dict[str, list[int]] = defaultdict(list)
    seen: set[str] = set()
    stream_of = {order.callback_id: order.stream for order in orders}
    for got in receiver.got:
        assert ConversationSinchEvent(SECRET).validate_authentication_header(got.headers, got.body)
        if got.event_id not in seen:
            seen.add(got.event_id)
            firsts[stream_of[got.event_id]].append(got.sequence)  # type: ignore[index]
    assert set(map(tuple, firsts.values())) == {(1, 2, 3)}
    assert len(receiver.got) - len(seen) <= most_twice


@pytest.mark.fault
@pytest.mark.parametrize("crash_at", ["delivery.after_post:20", "delivery.after_record:2"])
async def test_what_was_under_way_at_a_kill_is_delivered_by_the_next_process(
    world: World, receiver: Receiver, service: Service, crash_at: str
) -> None:
    webhook = await configure(world, receiver.url())
    orders = stories(webhook, 40)
    await world.publish(*orders)

    first = await service.start(crash_at)
    assert await first.wait() == -signal.SIGKILL
    under_way = len(receiver.got)
    second = await service.start()
    await wait_until(lambda: all_delivered(world, len(orders)), timeout_seconds=30)
    second.send_signal(signal.SIGTERM)

    assert await second.wait() == 0
    check(receiver, orders, most_twice=under_way)


@pytest.mark.fault
async def test_a_restart_in_the_middle_posts_nothing_twice(world: World, receiver: Receiver, service: Service) -> None:
    webhook = await configure(world, receiver.url())
    orders = stories(webhook, 60)
    first = await service.start()
    await world.publish(*orders)
    await wait_until(lambda: len(receiver.got) > 20, timeout_seconds=30)

    first.send_signal(signal.SIGTERM)
    assert await first.wait() == 0
    await service.start()
    await wait_until(lambda: all_delivered(world, len(orders)), timeout_seconds=30)

    check(receiver, orders, most_twice=0)


async def test_wrong_settings_end_the_process_with_the_name_of_the_variable(world: World) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "switchboard_callback_delivery",
        env={**os.environ, "SWITCHBOARD_ALLOWED_NETWORKS": "10.0.0.1/8"},
        stderr=asyncio.subprocess.PIPE,
    )
    _, told = await process.communicate()

    assert process.returncode == 2
    assert b"SWITCHBOARD_ALLOWED_NETWORKS" in told


async def all_delivered(world: World, count: int) -> bool:
    delivered = await world.pool.fetchval("SELECT count(*) FROM switchboard.callback_events WHERE state = 'delivered'")
    return bool(delivered == count)

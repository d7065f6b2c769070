"""Callbacks alone: the leg from the topic to the endpoint, one endpoint that hangs, a million that wait."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Final

from msgspec import Raw
from tests.benchmarks.bench import Bench, Figure, Result, delays, percentile
from tests.benchmarks.outside.sink import sink
from tests.benchmarks.product import Load, Product
from tests.benchmarks.usage import Usage, cpu_between

from switchboard.bus import BusSettings, Outgoing, Producer
from switchboard.callbacks import bodies
from switchboard.identity import ChannelIdentity, ChannelName
from switchboard.ids import CallbackId, MessageId, derive, mint
from switchboard.records import DeliverCallback, ProcessingMode
from switchboard.status import Status
from switchboard.topics import CALLBACKS
from switchboard.trigger import Trigger

#: Who works on a callback.
_LEG: Final = ("callback-delivery", "postgres", "kafka")
_BATCH: Final = 200


async def callback_leg(bench: Bench) -> Result:
    """Facts in: records on the callbacks topic, of as many messages. Out: the endpoint's 2xx, recorded."""
    count = bench.scale.messages * 2
    async with bench.product() as running, _producer(bench) as producer:
        await bench.world.reset()
        before, began = _leg(running.usage()), time.monotonic()
        for sent in range(_BATCH, count + 1, _BATCH):
            await producer.publish([_callback(running)[1] for _ in range(_BATCH)])
            # No more under way than the endpoint takes at once: what is beyond waits in its lane, another question.
            await running.told(sent)
        spent = cpu_between(before, _leg(running.usage()))
        seconds = time.monotonic() - began
    cost = sum(spent.values()) * 1e6 / count
    return Result(
        "callback-leg",
        [
            Figure("a callback, everything counted", cost, "CPU-µs", "≤ 200", cost <= 200),
            Figure("callbacks a second", count / seconds, "/s"),
        ],
        {name: used * 1e6 / count for name, used in spent.items()},
    )


async def hanging(bench: Bench) -> Result:
    """One endpoint answers after 10 s and gets a tenth of the traffic: what the others notice."""
    async with sink("tests.benchmarks.outside.receiver") as slow, bench.product(options=()) as running:
        good = f"http://127.0.0.1:{bench.world.receiver.told}/good"
        rate = await bench.half(running)
        alone = await _told_at(bench, running, rate, [good])
        beside = await _told_at(bench, running, rate, [good] * 9 + [f"http://127.0.0.1:{slow.told}/hang/10"])
    kept, slower = beside[0] / alone[0], beside[1] / alone[1]
    return Result(
        "hanging",
        [
            Figure("the others' rate", 100 * kept, "%", "≥ 95", kept >= 0.95),
            Figure("the others' p99", slower, "x", "≤ 1.3", slower <= 1.3),
        ],
        {"alone": alone, "beside": beside, "rate": rate},
    )


async def _told_at(bench: Bench, running: Product, rate: float, targets: list[str]) -> tuple[float, float]:
    """Rate and p99 in seconds of what came to `/good`."""
    await bench.world.reset()
    messages = int(rate * bench.scale.seconds) // len(targets) * len(targets)
    report = await running.send(Load(messages=messages, rate=rate, connections=256, targets=targets))
    good = [sent for sent in report.sent if sent.target.endswith("/good")]
    await running.told(len(good), "/good")
    arrivals = [at for _, _, at in await bench.world.receiver.ask("arrivals", path="/good")]
    told = await delays(bench, report, "/good")
    return len(arrivals) / (max(arrivals) - min(arrivals)) / len(good) * messages, percentile(told, 0.99)


async def waiting(bench: Bench) -> Result:
    """Retries that are due, beside few and beside very many callbacks that wait for dead endpoints."""
    few, many = bench.scale.waiting
    due = bench.scale.messages
    async with bench.product() as running:
        costs = []
        for wait in (few, many):
            await _make_waiting(running, wait - few if wait > few else wait)
            costs.append(await _retry(bench, running, due))
    ratio = costs[1] / costs[0]
    return Result(
        "waiting",
        [
            Figure(f"a due retry, {few} waiting", costs[0], "CPU-µs"),
            Figure(f"a due retry, {many} waiting", costs[1], "CPU-µs"),
            Figure("many against few", ratio, "x", "≤ 1.2", ratio <= 1.2),
        ],
        {"due": due},
    )


async def _make_waiting(running: Product, count: int) -> None:
    """Rows of callbacks to a thousand dead endpoints, as hours of failing tries leave them."""
    async with running.database() as connection:
        salt = mint()
        await connection.execute(
            "INSERT INTO lanes (id, kind, interval_ns, tat, waiting, max_in_flight, gate, fail_streak, probe_at)"
            " SELECT 'endpoint:dead-' || n, 'endpoint', 10000000, now(), $1 / 1000, 50, 'closed', 100,"
            " now() + interval '1 day'"
            " FROM generate_series(0, 999) n ON CONFLICT (id) DO UPDATE SET waiting = lanes.waiting + EXCLUDED.waiting",
            count,
            timeout=600,
        )
        await connection.execute(
            "INSERT INTO callback_events (id, project_id, app_id, endpoint, webhook_id, target, trigger, stream,"
            " sequence, event_at, recorded_at, expires_at, state, attempts, first_failed_at, last_tried_at, body)"
            " SELECT $2 || '-' || n, $3, $4, 'endpoint:dead-' || n % 1000, 'dead-' || n % 1000, '', 'MESSAGE_DELIVERY',"
            " $2 || '-s-' || n, 1, now(), now(), now() + interval '1 day', 'waiting', 3, now(), now(), '{}'"
            " FROM generate_series(1, $1) n",
            count, salt, running.running.project_id, running.running.app_id,
            timeout=600,
        )  # fmt: skip
        await connection.execute(
            "INSERT INTO callback_streams (endpoint, stream, head, head_sequence, expires_at, waiting, failing_since,"
            " due_at, scheduled_at) SELECT endpoint, stream, id, 1, expires_at, 1, now(),"
            " now() + interval '6 hours', now() FROM callback_events WHERE id LIKE $1 || '-%'",
            salt,
            timeout=600,
        )
        await connection.execute("ANALYZE callback_events; ANALYZE callback_streams; ANALYZE lanes", timeout=600)


async def _retry(bench: Bench, running: Product, due: int) -> float:
    """Park callbacks of the live endpoint, due now, as a recovered endpoint leaves them, and count until all came."""
    await bench.world.reset()
    endpoint = f"endpoint:{running.webhook_id}"
    rows = []
    now = datetime.now(UTC)
    for _ in range(due):
        callback, _ = _callback(running)
        rows.append((callback.callback_id, callback.stream, bytes(callback.body), now))
    before = _leg(running.usage())
    async with running.database() as connection, connection.transaction():
        found = await connection.fetchval("SELECT id FROM lanes WHERE id = $1 FOR UPDATE", endpoint)
        assert found, "the endpoint has no lane"
        await connection.execute(
            "INSERT INTO callback_events (id, project_id, app_id, endpoint, webhook_id, target, trigger, stream,"
            " sequence, event_at, recorded_at, expires_at, state, attempts, first_failed_at, last_tried_at, body)"
            " SELECT id, $5, $6, $7, $8, '', 'MESSAGE_DELIVERY', stream, 1, at, at, at + interval '1 day', 'waiting',"
            " 1, at, at, body FROM unnest($1::text[], $2::text[], $3::bytea[], $4::timestamptz[])"
            " AS x (id, stream, body, at)",
            *(list(column) for column in zip(*rows, strict=True)),
            running.running.project_id, running.running.app_id, endpoint, running.webhook_id,
        )  # fmt: skip
        await connection.execute(
            "INSERT INTO callback_streams (endpoint, stream, head, head_sequence, expires_at, waiting, failing_since,"
            " due_at, scheduled_at) SELECT $1, stream, id, 1, now() + interval '1 day', 1, now(), now(), now()"
            " FROM unnest($2::text[], $3::text[]) AS x (id, stream)",
            endpoint, [row[0] for row in rows], [row[1] for row in rows],
        )  # fmt: skip
        await connection.execute("UPDATE lanes SET waiting = waiting + $2 WHERE id = $1", endpoint, due)
    await running.told(due)
    return sum(cpu_between(before, _leg(running.usage())).values()) * 1e6 / due


def _leg(usage: dict[str, Usage]) -> dict[str, Usage]:
    return {name: usage[name] for name in _LEG}


def _callback(running: Product) -> tuple[DeliverCallback, Outgoing]:
    """A delivery report of a message nobody sent."""
    message_id = MessageId(mint())
    now = datetime.now(UTC)
    body = bodies.delivery_report(
        app_id=running.running.app_id,
        project_id=running.running.project_id,
        message_id=message_id,
        status=Status.DELIVERED,
        identity=ChannelIdentity(ChannelName("SMS"), "46700000000"),
        accepted_at=now,
        event_at=now,
        mode=ProcessingMode.DISPATCH,
        reason=None,
        metadata="order-4711",
        channel_metadata={},
        correlation_id="benchmark",
    )
    callback = DeliverCallback(
        callback_id=CallbackId(derive(message_id, "callback", "benchmark")),
        project_id=running.running.project_id,
        app_id=running.running.app_id,
        trigger=Trigger.MESSAGE_DELIVERY,
        webhook_id=running.webhook_id,
        target="",
        stream=message_id,
        sequence=1,
        event_at=now,
        body=Raw(body),
    )
    topic = CALLBACKS.name(running.running.topic_prefix)
    return callback, Outgoing(topic, message_id.encode(), CALLBACKS.encode(callback), CALLBACKS.headers(callback))


class _producer:  # noqa: N801  # used as a context manager
    def __init__(self, bench: Bench) -> None:
        self._producer = Producer(BusSettings(bootstrap=bench.servers.kafka.bootstrap, client_id="benchmarks"))

    async def __aenter__(self) -> Producer:
        await self._producer.start()
        return self._producer

    async def __aexit__(self, *_: object) -> None:
        await self._producer.stop()

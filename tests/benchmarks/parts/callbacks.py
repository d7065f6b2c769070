"""Callbacks alone: the leg from the topic to the endpoint, one endpoint that hangs, a million that wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from itertools import accumulate, cycle
from statistics import median
from typing import Final

from msgspec import Raw
from tests.benchmarks.bench import Bench, Cost, Figure, Result, cost_of, delays, percentile
from tests.benchmarks.outside.sink import sink
from tests.benchmarks.product import Load, Product, Void
from tests.benchmarks.usage import Usage, cpu_between

from switchboard.bus import BusSettings, Outgoing, Producer
from switchboard.callbacks import bodies
from switchboard.configuration import Webhook
from switchboard.identity import ChannelIdentity, ChannelName
from switchboard.ids import AppId, CallbackId, MessageId, ProjectId, WebhookId, derive, mint
from switchboard.records import DeliverCallback, ProcessingMode
from switchboard.status import Status
from switchboard.testing import wait_until
from switchboard.topics import CALLBACKS
from switchboard.trigger import Trigger

#: Who works on a callback.
_LEG: Final = ("callback-delivery", "postgres", "kafka")
_BATCH: Final = 200
_UNDER_WAY: Final = 1_000
_UNDER_WAY_TO_MANY: Final = 4_000
_ONE_HANGS_IN: Final = 100
_PAUSE_SECONDS: Final = 0.002
_IDLE_SECONDS: Final = 3.0
_PATIENCE_SECONDS: Final = 180.0


async def callback_leg(bench: Bench) -> Result:
    """Facts in: records on the callbacks topic, of as many messages. Out: the endpoint's 2xx, recorded."""
    count = bench.scale.callbacks
    async with bench.product() as running, _producer(bench) as producer:
        stream = _Stream(bench, producer, _maker(running))
        # The broker compiles what it does often: its first thousands of requests cost several times the later ones.
        await stream.flood(count)
        await bench.world.reset()
        before, began = _leg(running.usage()), time.monotonic()
        await stream.flood(count)
        spent = cpu_between(before, _leg(running.usage()))
        per_second = count / (time.monotonic() - began)
        idle = await _idle(running)
        await bench.world.reset()
        delays = await stream.trickle(per_second / 2, bench.scale.seconds)
    cost = sum(spent.values()) * 1e6 / count
    p50, p99 = (1000 * percentile(delays, share) for share in (0.5, 0.99))
    return Result(
        "callback-leg",
        [
            Figure("a callback, everything counted", cost, "CPU-µs", "≤ 200", cost <= 200),
            Figure("callbacks a second", per_second, "/s"),
            Figure(f"fact to 2xx at {per_second / 2:.0f}/s, p50", p50, "ms"),
            Figure(f"fact to 2xx at {per_second / 2:.0f}/s, p99", p99, "ms", "≤ 15", p99 <= 15),
        ],
        {"ours": {name: used * 1e6 / count for name, used in spent.items()}, "idle": idle},
    )


async def _idle(running: Product) -> dict[str, float]:
    """What each of the leg uses in a second in which nothing happens, in CPU-µs."""
    before = _leg(running.usage())
    await asyncio.sleep(_IDLE_SECONDS)
    return {name: used * 1e6 / _IDLE_SECONDS for name, used in cpu_between(before, _leg(running.usage())).items()}


class _Stream:
    """Sends orders for callbacks and waits for their arrival."""

    def __init__(
        self,
        bench: Bench,
        producer: Producer,
        make: Callable[[], tuple[DeliverCallback, Outgoing]],
        hanging: Collection[str] = (),
    ) -> None:
        """`hanging` are webhooks whose callbacks are not waited for."""
        self._receiver = bench.world.receiver
        self._producer = producer
        self._make = make
        self._hanging = hanging

    async def flood(self, count: int, under_way: int = _UNDER_WAY) -> int:
        """As fast as they are taken, with no more under way than one endpoint may have.

        Returns once all came that are answered at once, and how many they are.
        """
        came_before = await self._receiver.ask("count")
        # Made beforehand: what they cost to make is not what is measured.
        made = [self._make() for _ in range(count)]
        orders = [outgoing for _, outgoing in made]
        # Of each order how many before it are answered at once.
        answered = list(accumulate((callback.webhook_id not in self._hanging for callback, _ in made), initial=0))
        sent = came = 0
        began = time.monotonic()
        while came < answered[-1]:
            while sent < count and answered[sent] - came <= under_way - _BATCH:
                await self._producer.publish(orders[sent : sent + _BATCH])
                sent = min(count, sent + _BATCH)
            await asyncio.sleep(0.005)
            came = await self._receiver.ask("count") - came_before
            if time.monotonic() - began > _PATIENCE_SECONDS:
                raise TimeoutError(f"{came} of {answered[-1]} callbacks came")
        return came

    async def trickle(self, per_second: float, seconds: float) -> list[float]:
        """So many a second, whatever comes back. Returns the seconds from each one's moment to its arrival, sorted."""
        due: dict[str, float] = {}
        began = time.monotonic()
        while len(due) < int(per_second * seconds):
            orders = []
            # What became due while the last ones were published goes together: each has its own moment all the same.
            while len(due) <= (time.monotonic() - began) * per_second:
                callback, outgoing = self._make()
                due[callback.stream] = began + len(due) / per_second
                orders.append(outgoing)
            await self._producer.publish(orders)
            await asyncio.sleep(_PAUSE_SECONDS)

        async def all_came() -> bool:
            return bool(await self._receiver.ask("count") >= len(due))

        await wait_until(all_came, _PATIENCE_SECONDS, f"{len(due)} callbacks")
        arrived: dict[str, float] = {}
        for path in await self._receiver.ask("paths"):
            for message_id, _, at in await self._receiver.ask("arrivals", path=path):
                arrived.setdefault(message_id, at)
        return sorted(arrived[stream] - at for stream, at in due.items())


async def endpoints(bench: Bench) -> Result:
    """Thousands of live endpoints, one in a hundred of them hanging, and a million callbacks parked at dead ones."""
    live, count = bench.scale.endpoints, bench.scale.callbacks * 2
    parked = bench.scale.waiting[1]
    async with bench.product() as running, _producer(bench) as producer:
        webhooks = await running.add_endpoints([_path(number) for number in range(live)])
        hang = {webhook.id for number, webhook in enumerate(webhooks) if number % _ONE_HANGS_IN == 0}
        stream = _Stream(bench, producer, _maker(running, webhooks), hang)
        await _make_waiting(running, parked)
        await stream.flood(2 * live, under_way=_UNDER_WAY_TO_MANY)
        await bench.world.reset()
        before, began = running.usage(), time.monotonic()
        reached = await stream.flood(count, under_way=_UNDER_WAY_TO_MANY)
        seconds = time.monotonic() - began
        used = cpu_between(before, running.usage())
        faults = await bench.world.receiver.ask("faults")
        async with running.database() as connection:
            recorded = await connection.fetchval("SELECT count(*) FROM callback_events WHERE state = 'delivered'")
            still = await connection.fetchval("SELECT sum(waiting) FROM lanes WHERE id LIKE 'endpoint:dead-%'")
    if faults["unsigned"]:
        raise Void(f"{faults['unsigned']} callbacks carried no signature")
    if still != parked:
        raise Void(f"{still} callbacks are parked instead of {parked}")
    leg = {name: 1e6 * used[name] / reached for name in _LEG}
    per_second = reached / seconds
    return Result(
        "endpoints",
        [
            Figure("callbacks a second", per_second, "/s", "≥ 5000", per_second >= 5000),
            Figure("a callback, everything counted", sum(leg.values()), "CPU-µs"),
            Figure("all processes busy", sum(used.values()) / seconds, "CPUs"),
        ],
        {"ours": leg, "live": live, "parked": parked, "recorded": recorded, "seconds": seconds},
    )


def _path(number: int) -> str:
    """Of one of many endpoints."""
    return f"/hang/10/{number}" if number % _ONE_HANGS_IN == 0 else f"/live/{number}"


async def three(bench: Bench) -> Result:
    """A message whose reports go to three webhooks against one whose reports go to one."""
    also = ["/second", "/third"]
    one: list[Cost] = []
    many: list[Cost] = []
    async with bench.product() as running:
        for _ in range(bench.scale.pairs + 1):
            for paths, costs in ((list[str](), one), (also, many)):
                await running.tell_also(paths)
                costs.append(await cost_of(bench, running, bench.scale.messages, paths=["/callbacks", *paths]))
    # The first pair warms the broker.
    single, triple = (median(cost.total for cost in costs[1:]) for costs in (one, many))
    ratio = triple / single
    return Result(
        "three",
        [
            Figure("a message, one webhook", single, "CPU-µs"),
            Figure("a message, three webhooks", triple, "CPU-µs"),
            Figure("three against one", ratio, "x", "≤ 2.0", ratio <= 2.0),
        ],
        {"one": one[1:], "three": many[1:]},
    )


async def hanging(bench: Bench) -> Result:
    """One endpoint answers after 10 s and gets a tenth of the traffic: what the others notice."""
    async with sink("tests.benchmarks.outside.receiver") as slow, bench.product() as running:
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
    due = 3 * bench.scale.messages
    async with bench.product() as running:
        await _make_waiting(running, few)
        # The first time everything is done for the first time.
        await _retry(bench, running, due)
        beside_few = await _retry(bench, running, due)
        await _make_waiting(running, many - few)
        beside_many = await _retry(bench, running, due)
    costs = sum(beside_few.values()), sum(beside_many.values())
    ratio = costs[1] / costs[0]
    return Result(
        "waiting",
        [
            Figure(f"a due retry, {few} waiting", costs[0], "CPU-µs"),
            Figure(f"a due retry, {many} waiting", costs[1], "CPU-µs"),
            Figure("many against few", ratio, "x", "≤ 1.2", ratio <= 1.2),
        ],
        {"due": due, "few": beside_few, "many": beside_many},
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
        # Now, and not beside what is measured.
        for table in ("callback_events", "callback_streams", "lanes"):
            await connection.execute(f"VACUUM ANALYZE {table}", timeout=600)
        await connection.execute("CHECKPOINT", timeout=600)


async def _retry(bench: Bench, running: Product, due: int) -> dict[str, float]:
    """Park callbacks of the live endpoint, due now, as a recovered endpoint leaves them, and count until all came.

    Returns CPU-microseconds for each, by process.
    """
    await bench.world.reset()
    endpoint = f"endpoint:{running.webhook_id}"
    rows = []
    now = datetime.now(UTC)
    make = _maker(running)
    for _ in range(due):
        callback, _ = make()
        rows.append((callback.callback_id, callback.stream, bytes(callback.body), now))
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
        before = _leg(running.usage())
    await running.told(due)
    return {name: used * 1e6 / due for name, used in cpu_between(before, _leg(running.usage())).items()}


def _leg(usage: dict[str, Usage]) -> dict[str, Usage]:
    return {name: usage[name] for name in _LEG}


def _maker(running: Product, webhooks: Sequence[Webhook] = ()) -> Callable[[], tuple[DeliverCallback, Outgoing]]:
    """Makes orders for these webhooks in turn, else for the one that tells the lean receiver."""
    told = running.running
    own = (running.webhook_id, AppId(told.app_id))
    turn = cycle([(webhook.id, webhook.app_id) for webhook in webhooks] or [own])
    topic = CALLBACKS.name(told.topic_prefix)

    def make() -> tuple[DeliverCallback, Outgoing]:
        callback = _callback(told.project_id, *next(turn))
        key = f"{callback.webhook_id}|{callback.stream}".encode()
        return callback, Outgoing(topic, key, CALLBACKS.encode(callback), CALLBACKS.headers(callback))

    return make


def _callback(project_id: ProjectId, webhook_id: WebhookId, app_id: AppId) -> DeliverCallback:
    """A delivery report of a message nobody sent."""
    message_id = MessageId(mint())
    now = datetime.now(UTC)
    body = bodies.delivery_report(
        app_id=app_id,
        project_id=project_id,
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
    return DeliverCallback(
        callback_id=CallbackId(derive(message_id, "callback", webhook_id)),
        project_id=project_id,
        app_id=app_id,
        trigger=Trigger.MESSAGE_DELIVERY,
        webhook_id=webhook_id,
        target="",
        stream=message_id,
        sequence=1,
        event_at=now,
        body=Raw(body),
    )


class _producer:  # noqa: N801  # used as a context manager
    def __init__(self, bench: Bench) -> None:
        self._producer = Producer(BusSettings(bootstrap=bench.servers.kafka.bootstrap, client_id="benchmarks"))

    async def __aenter__(self) -> Producer:
        await self._producer.start()
        return self._producer

    async def __aexit__(self, *_: object) -> None:
        await self._producer.stop()

"""A whole installation under fault: its processes, its rest, and the judgement over what it did."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import asyncpg
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from msgspec import Struct
from tests.faults.evidence import Evidence, Sent, read_database, read_log
from tests.faults.ledger import Violation, account, check
from tests.flow.installed import Installed, installed

from switchboard.store.pool import TRANSIENT_ERRORS
from switchboard.testing import wait_until
from switchboard_simulator.journal import Callback, Submission

#: What a fault may hit. The simulator is the world outside: it stays.
SERVICES: Final = ("ingress", "router", "channel-adapter", "callback-delivery")
#: The services' consumer groups and what each reads, after the prefix.
GROUPS: Final[Mapping[str, str]] = {
    "router.accepted": "messages.accepted.v1",
    "router.attempts": "attempts.v1",
    "router.inbound": "inbound.v1",
    "channel-adapter.sms": "dispatch.sms.v1",
    "channel-adapter.telegram": "dispatch.telegram.v1",
    "callback-delivery": "callbacks.v1",
}
_LOOK_SECONDS: Final = 0.3
#: Nothing changed for so long: what is still open waits for a deadline, which the clock is moved to.
_IDLE_SECONDS: Final = 4.0
#: The clock is never moved past the horizon of receipts: what only waits for receipts has come to rest.
_FARTHEST_SECONDS: Final = 20 * 3600


class Looked(Struct, frozen=True):
    """How far things are. Two equal looks: nothing moved in between."""

    #: Messages and callbacks that are not at their end and will get there by a deadline.
    open_messages: int
    open_callbacks: int
    lane_items: int
    moments: int
    submissions_bytes: int
    callbacks_bytes: int
    lag: int
    #: Seconds until the next deadline by the database's clock. None: there is none.
    next_seconds: float | None

    @property
    def is_done(self) -> bool:
        return not (self.open_messages or self.open_callbacks or self.lane_items or self.lag)

    @property
    def is_waiting(self) -> bool:
        """Nothing is under way, but something has a deadline ahead."""
        return not self.is_done and not self.lag and self.next_seconds is not None and self.next_seconds > 0

    def moved_from(self, before: Looked) -> bool:
        """Whether anything changed but the time."""
        return any(getattr(self, name) != getattr(before, name) for name in _MOVING)


_MOVING: Final = tuple(name for name in Looked.__struct_fields__ if name != "next_seconds")

# A message that a channel has and that waits for receipts alone is at rest: its horizon is days away.
_LOOK: Final = """
SELECT
    (SELECT count(*) FROM switchboard.messages WHERE NOT final AND NOT (phase = 'SUBMITTED' AND step_due_at IS NULL))
        AS open_messages,
    (SELECT count(*) FROM switchboard.callback_events WHERE state = 'waiting') AS open_callbacks,
    (SELECT count(*) FROM switchboard.lane_items) AS lane_items,
    (SELECT COALESCE(max(number), 0) FROM switchboard.timeline) AS moments,
    (SELECT extract(epoch FROM least(
        (SELECT min(next_due) FROM switchboard.messages WHERE NOT final),
        (SELECT min(due_at) FROM switchboard.callback_streams),
        (SELECT min(probe_at) FROM switchboard.lanes WHERE gate = 'closed')
    ) - switchboard.now())::float8) AS next_seconds
"""


class System:
    """An installation that is hurt and has to come to rest."""

    def __init__(self, inside: Installed) -> None:
        self.installed = inside
        self.home = inside.home
        self._moved_seconds = 0.0

    @property
    def pids(self) -> dict[str, int]:
        """Process ids by service name, as of now."""
        return self.installed.running.pids

    # -- faults

    def signal(self, service: str, number: signal.Signals) -> int:
        """Send a signal to a service's process. Returns its pid."""
        pid = self.pids[service]
        os.kill(pid, number)
        return pid

    async def kill(self, service: str) -> None:
        """Kill a service as a power cut would, and return when another process of it works."""
        pid = self.signal(service, signal.SIGKILL)
        await self.restarted(service, pid)

    async def restarted(self, service: str, before: int, *, seconds: float = 60.0) -> None:
        """Wait until a service has another process than `before` and that one says it is ready."""
        async with asyncio.timeout(seconds):
            while True:
                with suppress(AssertionError):
                    await self.installed.restarted(service, before)
                    return

    async def raise_rates(self, per_second: int = 1000) -> None:
        """Let the development app send and be told as fast as the test drives it."""
        async with self.database() as connection:
            await connection.execute(
                "UPDATE switchboard.apps SET settings = jsonb_set(settings, '{rate_limits}',"
                " jsonb_build_object('inbound', $2::int, 'outbound', $2::int, 'webhooks', $2::int)) WHERE id = $1",
                self.installed.running.app_id,
                per_second,
            )

    @asynccontextmanager
    async def database(self) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
        """A connection past every proxy."""
        async with self.installed.database() as connection:
            yield connection

    # -- rest

    async def rest(self, *, seconds: float = 60.0, clock: bool = True) -> None:
        """Return when nothing is left to do. With `clock`, time is moved on to what still waits for a deadline.

        Raises AssertionError with how far it came.
        """
        loop = asyncio.get_running_loop()
        before = await self.look()
        moved_at = loop.time()
        last_moved = moved_at
        quiet = 0
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            now = await self.look()
            if now.moved_from(before):
                last_moved = moved_at = loop.time()
                quiet = 0
            elif now.is_done:
                quiet += 1
                if quiet >= 3:
                    return
            elif clock and now.is_waiting and loop.time() - last_moved > _IDLE_SECONDS:
                await self._move_clock(now.next_seconds or 0.0)
                last_moved = loop.time()
            if loop.time() - moved_at > seconds:
                evidence = await self.evidence(())
                told = account(evidence, check(evidence), most=3)
                raise AssertionError(f"not at rest, and nothing moved for {seconds:g} s: {now}\n{told}")
            before = now

    async def look(self) -> Looked:
        """How far things are. Waits for a database and a broker that are just coming back."""
        deadline = asyncio.get_running_loop().time() + 60
        while True:
            try:
                async with self.database() as connection:
                    row = await connection.fetchrow(_LOOK)
                assert row is not None
                return Looked(
                    **dict(row),
                    submissions_bytes=_size(self.home.submissions_log),
                    callbacks_bytes=_size(self.home.callbacks_log),
                    lag=await self.lag(),
                )
            except (*TRANSIENT_ERRORS, KafkaError):
                if asyncio.get_running_loop().time() > deadline:
                    raise
                await asyncio.sleep(_LOOK_SECONDS)

    async def lag(self) -> int:
        """Records that are written and not committed by those who read them, over all groups."""
        return sum((await self.lags()).values())

    async def lags(self) -> dict[str, int]:
        """The same by group."""
        running = self.installed.running
        admin = AIOKafkaAdminClient(bootstrap_servers=running.kafka)
        consumer = AIOKafkaConsumer(bootstrap_servers=running.kafka, enable_auto_commit=False)
        await admin.start()
        try:
            await consumer.start()
            found = {}
            for group, topic in GROUPS.items():
                name = f"{running.topic_prefix}{topic}"
                description = (await admin.describe_topics([name]))[0]
                partitions = [TopicPartition(name, part["partition"]) for part in description["partitions"]]
                ends = await consumer.end_offsets(partitions)
                begins = await consumer.beginning_offsets(partitions)
                committed = await admin.list_consumer_group_offsets(f"{running.topic_prefix}{group}")
                found[group] = sum(
                    max(0, ends[part] - (committed[part].offset if part in committed else begins[part]))
                    for part in partitions
                )
            return found
        finally:
            await consumer.stop()
            await admin.close()

    async def _move_clock(self, seconds: float) -> None:
        seconds += 0.05
        if self._moved_seconds + seconds > _FARTHEST_SECONDS:
            return
        self._moved_seconds += seconds
        async with self.database() as connection:
            await connection.execute("UPDATE switchboard.clock SET shift = shift + make_interval(secs => $1)", seconds)

    # -- judgement

    async def evidence(self, sent: Sequence[Sent]) -> Evidence:
        """Everything there is to judge by."""
        running = self.installed.running
        async with self.database() as connection:
            stored: dict[str, Any] = await read_database(connection)
        return Evidence(
            sent=list(sent),
            submissions=read_log(self.home.submissions_log, Submission),
            callbacks=[line for line in read_log(self.home.callbacks_log, Callback) if line.receiver == "app"],
            webhook_ids=[running.webhook_id],
            **stored,
        )

    async def judge(self, sent: Sequence[Sent], *, at_least: int = 1) -> Evidence:
        """Raise AssertionError with the story of every message whose promise was broken."""
        assert len(sent) >= at_least, f"only {len(sent)} messages were confirmed"
        evidence = await self.evidence(sent)
        violations = [*check(evidence), *await self._drifted()]
        assert not violations, account(evidence, violations)
        return evidence

    async def _drifted(self) -> list[Violation]:
        from switchboard.store.verify import verify

        async with self.database() as connection:
            return [Violation("I1", found.subject, found.what) for found in await verify(connection, settle_seconds=0)]


@asynccontextmanager
async def system(
    folder: Path, *options: str, environment: Mapping[str, str] | None = None, rate: int = 1000
) -> AsyncIterator[System]:
    """`switchboard up` on this folder; servers are those that `environment` names, else embedded."""
    async with installed(folder, *options, *_inherited(), environment=environment) as inside:
        under_fault = System(inside)
        await under_fault.raise_rates(rate)
        yield under_fault


def _inherited() -> list[str]:
    """Where Python finds our code, if the tests run on another tree than the installed one."""
    path = os.environ.get("PYTHONPATH")
    names = (*SERVICES, "simulator")
    return [part for name in names for part in ("--env", f"{name}:PYTHONPATH={path}")] if path else []


def behind(dsn: str, port: int) -> str:
    """The same database through a proxy on this port."""
    parts = urlsplit(dsn)
    place = f"{parts.netloc.rpartition('@')[0]}@127.0.0.1:{port}"
    return urlunsplit(parts._replace(netloc=place))


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


async def until_confirmed(sent: Sequence[Sent], number: int, *, seconds: float = 60.0) -> None:
    """Wait until so many more messages were confirmed."""
    wanted = len(sent) + number
    await wait_until(lambda: len(sent) >= wanted, seconds, lambda: f"{wanted} confirmed; there are {len(sent)}")

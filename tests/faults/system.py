"""A whole installation under fault: its processes, its rest, and the judgement over what it did."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from msgspec import Struct
from tests.faults.evidence import Evidence, Said, Sent, read_database, read_log
from tests.faults.ledger import Violation, account, check
from tests.flow.installed import Installed, installed

import switchboard_channels
from switchboard.channel.registry import manifests
from switchboard.configuration import ConfigurationStore
from switchboard.secrets import KeyRing
from switchboard.store.pool import TRANSIENT_ERRORS, open_pool
from switchboard.store.verify import verify
from switchboard.testing import wait_until
from switchboard_simulator.journal import Callback, Submission
from switchboard_standalone.development import ACCOUNT, RECEIVER, SMS, smsc_settings

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
IDLE_SECONDS: Final = 2.0
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
        (SELECT min(probe_at) FROM switchboard.lanes WHERE gate = 'closed' AND waiting > 0)
    ) - switchboard.now())::float8) AS next_seconds
"""


class Lag:
    """How far the consumer groups of an installation are behind."""

    def __init__(self, kafka: str, topic_prefix: str) -> None:
        self._prefix = topic_prefix
        self._admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
        self._consumer = AIOKafkaConsumer(bootstrap_servers=kafka, enable_auto_commit=False)
        self._partitions: dict[str, list[TopicPartition]] = {}

    async def __aenter__(self) -> Self:
        await self._admin.start()
        try:
            await self._consumer.start()
        except BaseException:
            await self._admin.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._consumer.stop()
        await self._admin.close()

    async def by_group(self) -> dict[str, int]:
        """Records that are written and not committed by those who read them, by group."""
        return {group: await self._of(group, topic) for group, topic in GROUPS.items()}

    async def _of(self, group: str, topic: str) -> int:
        partitions = await self._partitions_of(f"{self._prefix}{topic}")
        ends = await self._consumer.end_offsets(partitions)
        committed = await self._admin.list_consumer_group_offsets(f"{self._prefix}{group}")
        begins = await self._consumer.beginning_offsets(partitions)
        done = {part: committed[part].offset if part in committed else -1 for part in partitions}
        return sum(ends[part] - max(done[part], begins[part]) for part in partitions)

    async def _partitions_of(self, topic: str) -> list[TopicPartition]:
        if topic not in self._partitions:
            described = (await self._admin.describe_topics([topic]))[0]
            self._partitions[topic] = [TopicPartition(topic, part["partition"]) for part in described["partitions"]]
        return self._partitions[topic]


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

    async def another(self, service: str, *, inject: Path | None = None) -> asyncio.subprocess.Process:
        """One more instance, as a Deployment adds it: without an ordinal, on a port of its own. Whoever asks ends it.

        `inject` as for `system`.
        """
        entries = Path(f"/proc/{self.pids[service]}/environ").read_text().split("\0")
        environment = dict(entry.split("=", 1) for entry in entries if "=" in entry)
        environment.pop("SWITCHBOARD_ORDINAL", None)
        # Providers are told by the first instance where to post.
        environment |= {"SWITCHBOARD_PORT": "0", "SWITCHBOARD_PUBLIC_URL": ""}
        if inject is not None:
            environment["PYTHONPATH"] = _path_with(inject)
        with (self.home.logs / f"{service}-extra.log").open("ab") as log:
            return await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", f"switchboard_{service.replace('-', '_')}",
                stdout=log, stderr=log, env=environment,
            )  # fmt: skip

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

    @asynccontextmanager
    async def configuration(self) -> AsyncIterator[ConfigurationStore]:
        """The installation's configuration, to change it."""
        pool = await open_pool(self.installed.running.postgres, size=2, service="faults")
        try:
            keys = KeyRing.parse(self.home.secret_keys())
            yield ConfigurationStore(pool, keys, manifests(switchboard_channels))
        finally:
            await pool.close()

    async def lead_smsc(self, port: int, **settings: object) -> None:
        """Say anew where the development account's SMSC is, and how it is treated: settings of the account."""
        made = msgspec.json.decode(smsc_settings(port)) | settings
        async with self.configuration() as store:
            await store.put_account(SMS, ACCOUNT, msgspec.json.encode(made))

    # -- rest

    async def rest(self, *, seconds: float = 60.0, idle_seconds: float = IDLE_SECONDS) -> None:
        """Return when nothing is left to do. Time is moved on to what still waits for a deadline.

        `idle_seconds` has to be longer than a provider or webhook may keep a call waiting in this test.
        Raises AssertionError with how far it came when nothing moved for `seconds`.
        """
        async with Lag(self.installed.running.kafka, self.installed.running.topic_prefix) as lag:
            await self._rest(lag, seconds, idle_seconds)

    async def _rest(self, lag: Lag, seconds: float, idle_seconds: float) -> None:
        loop = asyncio.get_running_loop()
        before = await self._look(lag)
        moved_at = loop.time()
        last_moved = moved_at
        quiet = 0
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            now = await self._look(lag)
            if now.moved_from(before):
                last_moved = moved_at = loop.time()
                quiet = 0
            elif now.is_done:
                quiet += 1
                if quiet >= 3:
                    return
            elif now.is_waiting and loop.time() - last_moved > idle_seconds:
                await self._move_clock(now.next_seconds or 0.0)
                last_moved = loop.time()
            if loop.time() - moved_at > seconds:
                evidence = await self.evidence(())
                told = account(evidence, check(evidence), most=3)
                raise AssertionError(f"not at rest, and nothing moved for {seconds:g} s: {now}\n{told}")
            before = now

    async def _look(self, lag: Lag) -> Looked:
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
                    lag=sum((await lag.by_group()).values()),
                )
            except (*TRANSIENT_ERRORS, KafkaError):
                if asyncio.get_running_loop().time() > deadline:
                    raise
                await asyncio.sleep(_LOOK_SECONDS)

    async def _move_clock(self, seconds: float) -> None:
        # A little more: deadlines lie close together, and nothing is under way that a jump could make late.
        seconds += 5.0
        if self._moved_seconds + seconds > _FARTHEST_SECONDS:
            return
        self._moved_seconds += seconds
        async with self.database() as connection:
            await connection.execute("UPDATE switchboard.clock SET shift = shift + make_interval(secs => $1)", seconds)

    # -- judgement

    async def evidence(
        self, sent: Sequence[Sent], said: Sequence[Said] = (), webhooks: Mapping[str, str] | None = None
    ) -> Evidence:
        """Everything there is to judge by. `webhooks`: more of them than the development one, by their receivers."""
        of_receivers = {RECEIVER: self.installed.running.webhook_id, **(webhooks or {})}
        async with self.database() as connection:
            stored: dict[str, Any] = await read_database(connection)
        return Evidence(
            sent=list(sent),
            said=list(said),
            submissions=read_log(self.home.submissions_log, Submission),
            callbacks=[line for line in read_log(self.home.callbacks_log, Callback) if line.receiver in of_receivers],
            webhook_ids=list(of_receivers.values()),
            **stored,
        )

    async def judge(
        self,
        sent: Sequence[Sent],
        said: Sequence[Said] = (),
        *,
        at_least: int = 1,
        webhooks: Mapping[str, str] | None = None,
    ) -> Evidence:
        """Raise AssertionError with the story of every message whose promise was broken."""
        assert len(sent) >= at_least, f"only {len(sent)} messages were confirmed"
        await self._until_heard(said)
        evidence = await self.evidence(sent, said, webhooks)
        print(f"judged: {len(sent)} sent, {len(said)} written, {len(evidence.callbacks)} callbacks", flush=True)
        violations = [*check(evidence), *await self._drifted()]
        assert not violations, account(evidence, violations)
        return evidence

    async def _until_heard(self, said: Sequence[Said], *, seconds: float = 60.0) -> None:
        """Give providers time to tell again what nobody answered them. What is missing then, the ledger tells."""

        def missing() -> int:
            log = self.home.callbacks_log.read_text() if self.home.callbacks_log.exists() else ""
            return sum(one.mark not in log for one in said)

        if missing():
            with suppress(AssertionError):
                await wait_until(lambda: not missing(), seconds, "everybody was heard")
            await self.rest()

    async def _drifted(self) -> list[Violation]:
        async with self.database() as connection:
            return [Violation("I1", found.subject, found.what) for found in await verify(connection, settle_seconds=0)]


@asynccontextmanager
async def system(
    folder: Path, *options: str, environment: Mapping[str, str] | None = None, inject: Path | None = None
) -> AsyncIterator[System]:
    """`switchboard up` on this folder; servers are those that `environment` names, else embedded.

    `inject` is a folder with a `sitecustomize.py` that every service runs before anything else.
    """
    async with installed(folder, *options, *_python_path(inject), environment=environment) as inside:
        under_fault = System(inside)
        await under_fault.raise_rates()
        yield under_fault


def _python_path(inject: Path | None) -> list[str]:
    """Where Python finds what is injected, and our code if the tests run on another tree than the installed one."""
    inherited = os.environ.get("PYTHONPATH", "")
    path = _path_with(inject)
    options = [f"{service}:PYTHONPATH={path}" for service in SERVICES] if path else []
    if inherited:
        options.append(f"simulator:PYTHONPATH={inherited}")
    return [part for option in options for part in ("--env", option)]


def _path_with(inject: Path | None) -> str:
    return os.pathsep.join(part for part in (str(inject or ""), os.environ.get("PYTHONPATH", "")) if part)


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

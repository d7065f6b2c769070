"""Records nobody wrote well, records of another version, and old records seen again."""

import asyncio
import signal
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zlib import crc32

import asyncpg
import msgspec
import pytest
from msgspec.structs import replace
from tests.faults import topic
from tests.faults.conftest import Start
from tests.faults.evidence import Sent
from tests.faults.load import EVERYDAY, Load
from tests.faults.system import GROUPS, System, system, until_confirmed
from tests.flow.installed import until_up
from tests.flow.telemetry.test_traces import Collector

from switchboard.embedded import EmbeddedKafka, EmbeddedPostgres
from switchboard.ids import MessageId, mint
from switchboard.testing import wait_until

pytestmark = [pytest.mark.fault, pytest.mark.slow]
#: How many of a kind: fewer than the number at which a consumer stops and shouts.
POISON = 8
#: Injected, it makes a service write records as a version to come would.
NEWER = Path(__file__).parent / "newer"
#: Who writes records that others read, the ingress apart: its records are made newer one by one.
EXCHANGING = ("router", "channel-adapter", "callback-delivery")


def poison(kind: str, **ids: str) -> list[tuple[bytes, bytes | None, dict[str, bytes]]]:
    """Records that are not what they say, in every way a record may be broken."""
    headers = {"type": kind.encode(), **{name: value.encode() for name, value in ids.items()}}
    return [
        (b"k", b"", headers),
        (b"k", None, headers),
        (b"k", b"\xff\xfe not json", headers),
        (b"k", b"[]", headers),
        (b"k", b'{"type":"%s"}' % kind.encode(), headers),
        (b"k", b"{}", {}),
        (b"", b'{"type":7}', headers),
        (b"k", b'{"type":"' + b"x" * 10_000, headers),
    ][:POISON]


async def test_poison_on_every_topic_harms_no_neighbour(start: Start) -> None:
    async with start() as running:
        now = running.installed.running
        kinds = {
            "messages.accepted.v1": "MessageAccepted",
            "dispatch.sms.v1": "DispatchMessage",
            "dispatch.telegram.v1": "DispatchMessage",
            "attempts.v1": "AttemptFinished",
            "inbound.v1": "MessageReceived",
            "callbacks.v1": "DeliverCallback",
        }
        async with Load(now, per_second=25) as load:
            await until_confirmed(load.sent, 30)
            for name, kind in kinds.items():
                await topic.write(now.kafka, f"{now.topic_prefix}{name}", poison(kind))
            await until_confirmed(load.sent, 60)
        await running.rest(seconds=120)

        await running.judge(load.sent, load.said, at_least=90)
        dead = await topic.read_all(now.kafka, f"{now.topic_prefix}dead-letters.v1")
        assert len(dead) >= POISON * len(kinds)


async def test_an_accepted_message_nobody_can_read_fails_and_its_app_is_told(start: Start) -> None:
    async with start() as running:
        now = running.installed.running
        message_id = mint()
        ids = {"message_id": message_id, "app_id": now.app_id, "project_id": now.project_id}

        broken = poison("MessageAccepted", **ids)[2:3]
        await topic.write(now.kafka, f"{now.topic_prefix}messages.accepted.v1", broken)

        await wait_until(lambda: running.installed.statuses(message_id) == ["FAILED"], 30, "its end was told")
        await running.rest()


async def test_records_of_a_newer_version_are_handled_beside_ours(start: Start) -> None:
    async with start() as running:
        now = running.installed.running
        accepted = f"{now.topic_prefix}messages.accepted.v1"
        async with Load(now, per_second=25) as load:
            await until_confirmed(load.sent, 30)
        await running.rest()
        records = await topic.read_all(now.kafka, accepted)
        newer = [_of_a_newer_version(record.value) for record in records if record.value]
        later = [replace(sent, message_id=MessageId(id), mark=mark, told=frozenset({id})) for sent, id, mark in
                 ((_sent_of(load.sent, old), id, mark) for old, id, mark, _ in newer)]  # fmt: skip

        await topic.write(now.kafka, accepted, [
            (b"newer", value, {"type": b"MessageAccepted", "message_id": id.encode(), "app_id": now.app_id.encode(),
                               "project_id": now.project_id.encode(), "future": b"1"})
            for _, id, _, value in newer
        ])  # fmt: skip
        await running.rest(seconds=90)

        evidence = await running.judge([*load.sent, *later], at_least=60)
        assert len(evidence.messages) >= len(load.sent) + len(later)


async def test_two_versions_of_each_service_side_by_side_understand_each_other(start: Start) -> None:
    async with start() as running, AsyncExitStack() as stack:
        now = running.installed.running
        async with Load(now, per_second=25, confirm_seconds=180) as load:
            await until_confirmed(load.sent, 30)
            newer = [await _of_the_newer_version(running, service, stack) for service in EXCHANGING]
            await wait_until(lambda: _is_written_by_both(running), 60, "both versions write to every topic")
            await until_confirmed(load.sent, 50)
            # What the newer ones wrote last is left to the older.
            for process in newer:
                process.send_signal(signal.SIGTERM)
                await process.wait()
            await until_confirmed(load.sent, 50)
        await running.rest(seconds=90)

        await running.judge(load.sent, load.said, at_least=130)
        assert not load.unconfirmed
        assert not await topic.read_all(now.kafka, f"{now.topic_prefix}dead-letters.v1")


async def _of_the_newer_version(running: System, service: str, stack: AsyncExitStack) -> asyncio.subprocess.Process:
    process = await running.another(service, inject=NEWER)

    @stack.callback
    def end() -> None:
        if process.returncode is None:
            process.kill()

    return process


async def _is_written_by_both(running: System) -> bool:
    now = running.installed.running
    for name in ("dispatch.sms.v1", "dispatch.telegram.v1", "attempts.v1", "callbacks.v1"):
        records = await topic.read_all(now.kafka, f"{now.topic_prefix}{name}")
        if {"future" in dict(record.headers) for record in records} != {True, False}:
            return False
    return True


def _of_a_newer_version(value: bytes) -> tuple[str, str, str, bytes]:
    """The same send as another message, written by code that knows more fields than ours."""
    record: dict[str, Any] = msgspec.json.decode(value)
    old, record["message_id"] = record["message_id"], mint()
    record["accepted_at"] = datetime.now(UTC)
    text = record["message"]["text_message"]["text"]
    mark = f"n{crc32(record['message_id'].encode()):08x}-000000x"
    record["message"]["text_message"]["text"] = " ".join([mark] * len(text.split()))
    record |= {"a_field_of_the_future": {"deep": [1, 2]}, "priority_class": "gold"}
    return old, record["message_id"], mark, msgspec.json.encode(record)


def _sent_of(sent: list[Sent], message_id: str) -> Sent:
    return next(one for one in sent if one.message_id == message_id)


@pytest.mark.parametrize("keeps_days", [7, 0], ids=["kept for a week", "not kept at all"])
async def test_ten_thousand_old_records_seen_again_send_nothing(
    own_folder: Path,
    own_kafka: Any,
    own_postgres: Any,
    collector: Collector,
    keeps_days: int,
) -> None:
    kafka: EmbeddedKafka = own_kafka()
    postgres: EmbeddedPostgres = own_postgres()
    environment = {
        "SWITCHBOARD_POSTGRES_DSN": postgres.dsn,
        "SWITCHBOARD_KAFKA_BOOTSTRAP": kafka.bootstrap,
        "SWITCHBOARD_TOPIC_PARTITIONS": "6",
    }
    folder = own_folder / "installation"
    traced = [f"router:SWITCHBOARD_OTLP_ENDPOINT={collector.url}", "router:SWITCHBOARD_TRACE_SAMPLE_RATIO=1"]
    options = [part for option in traced for part in ("--env", option)]
    async with system(folder, *options, environment=environment) as running:
        await _keep_for(running, keeps_days)
        async with Load(running.installed.running, per_second=100, kinds=EVERYDAY) as load:
            await until_confirmed(load.sent, 1_500, seconds=180)
        await running.rest(seconds=120)
        await running.judge(load.sent, load.said, at_least=1_500)
        if keeps_days == 0:
            await wait_until(lambda: _contents(postgres.dsn, 0), 60, "contents are purged")
        prefix = running.installed.running.topic_prefix
        before = await _counted(running)

    seen_again = 0
    for group, name in GROUPS.items():
        seen_again += await topic.begin_anew(kafka.bootstrap, f"{prefix}{group}", f"{prefix}{name}")
    assert seen_again >= 10_000

    async with system(folder, *options, environment=environment) as running:
        await until_up(running.installed.process, running.home)
        await running.rest(seconds=240)

        after = await _counted(running)
        assert after["submissions"] == before["submissions"], "an old record was submitted again"
        assert after["events"] == before["events"], "an old record made a new callback"
        await running.judge(load.sent, load.said, at_least=1_500)
        if keeps_days == 0:
            assert after["callbacks"] == before["callbacks"], "a purged message was told again"
            await _assert_nowhere(running, postgres.dsn, load.sent, collector)


async def _keep_for(running: System, days: int) -> None:
    async with running.database() as connection:
        await connection.execute(
            "UPDATE switchboard.apps SET settings = jsonb_set(settings, '{dispatch_retention_policy,ttl_days}',"
            " to_jsonb($1::int)) WHERE id = $2",
            days,
            running.installed.running.app_id,
        )


async def _contents(dsn: str, wanted: int) -> bool:
    connection = await asyncpg.connect(dsn)
    try:
        kept = await connection.fetchval("SELECT count(*) FROM switchboard.messages WHERE body IS NOT NULL AND final")
        return bool(kept == wanted)
    finally:
        await connection.close()


async def _counted(running: System) -> dict[str, int]:
    evidence = await running.evidence(())
    return {
        "submissions": len(evidence.submissions),
        "callbacks": len(evidence.callbacks),
        "events": len(evidence.events),
    }


async def _assert_nowhere(running: System, dsn: str, sent: list[Sent], traces: Collector) -> None:
    """The texts are in no row, log or trace, and in no topic once its retention has passed."""
    now = running.installed.running
    run = sent[0].mark.partition("-")[0]
    rows = await _tables_with(dsn, run)
    assert not rows, f"the text is in {rows}"
    # The first line of what a service writes may hold settings; nothing may hold texts.
    told = [log.name for log in sorted(running.home.logs.iterdir()) if run in log.read_text(errors="replace")]
    assert not told, f"the text is in the logs of {told}"
    assert len({span.trace_id for span in traces.spans}) >= len(sent)
    assert not [span.name for span in traces.spans if run in str(span)], "the text is in a trace"
    topics = [f"{now.topic_prefix}{name}" for name in (*GROUPS.values(), "dead-letters.v1")]
    await topic.let_retention_pass(now.kafka, topics)
    left = [name for name in topics for record in await topic.read_all(now.kafka, name) if run.encode() in
            (record.value or b"")]  # fmt: skip
    assert not left, f"the text is in {left}"


async def _tables_with(dsn: str, text: str) -> list[str]:
    connection = await asyncpg.connect(dsn)
    try:
        tables = await connection.fetch("SELECT relname FROM pg_stat_user_tables WHERE schemaname = 'switchboard'")
        hexed = text.encode().hex()
        found = []
        for row in tables:
            query = f"SELECT count(*) FROM switchboard.{row['relname']} t WHERE t::text LIKE ANY ($1)"
            if await connection.fetchval(query, [f"%{text}%", f"%{hexed}%"]):
                found.append(row["relname"])
        return found
    finally:
        await connection.close()

"""The commands that look into an installation and operate it."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from tests.flow.installed import Installed, new_number

from switchboard.ids import mint
from switchboard.testing import wait_until
from switchboard_standalone.commands import apps, doctor, messages, operate
from switchboard_standalone.trouble import Refused


@pytest.fixture
def folder(installation: Installed, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The installation's folder; it is found by nothing else."""
    for name in [name for name in os.environ if name.startswith("SWITCHBOARD_")]:
        monkeypatch.delenv(name)
    return installation.home.folder


async def test_a_sent_message_has_a_timeline_people_can_read(
    installation: Installed, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    number = new_number()

    await messages.send(folder, "A secret for one", "sms", number, "")
    message_id = capsys.readouterr().out.strip()
    await installation.reported(message_id, "QUEUED_ON_CHANNEL", "DELIVERED")
    await wait_until(lambda: len(installation.callbacks(message_id)) == 3, 20, "all were called back")
    await messages.show_timeline(folder, message_id)

    told = capsys.readouterr().out
    assert "planned (SMS step 1, submission 1)" in told
    assert "submit_sm 1/1" in told
    assert "ESME_ROK" in told
    # A receipt that comes before its outcome is decided about tells what that would have told, too.
    assert re.search(r"tells (\w+, )*DELIVERED", told), told
    assert "now DELIVERED, final; it is over" in told
    assert "A secret for one" not in told
    assert number not in told


async def test_what_the_api_refuses_is_told_in_its_words(folder: Path) -> None:
    with pytest.raises(Refused, match=r"refused with 400: .*channel: unknown channel"):
        await messages.send(folder, "Hello", "PIGEON", "1", "")


@pytest.mark.parametrize("message_id", ["nonsense", mint()])
async def test_a_message_nobody_knows_is_told(folder: Path, message_id: str) -> None:
    with pytest.raises(Refused, match=message_id):
        await messages.show_timeline(folder, message_id)


async def test_a_healthy_installation_has_nothing_wrong(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = await doctor.doctor(folder)

    told = capsys.readouterr().out
    assert code == 0, told
    assert "wrong" not in told
    assert "PostgreSQL 18 answers" in told
    assert "no dead letters" in told
    assert "ingress is ready" in told


async def test_where_nothing_runs_the_doctor_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in os.environ if name.startswith("SWITCHBOARD_")]:
        monkeypatch.delenv(name)

    code = await doctor.doctor(tmp_path)

    assert code == 1
    assert "start `switchboard up` there" in capsys.readouterr().out


async def test_a_database_without_tables_and_a_silent_broker_are_found(
    empty_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SWITCHBOARD_POSTGRES_DSN", empty_database)
    monkeypatch.setenv("SWITCHBOARD_KAFKA_BOOTSTRAP", "127.0.0.1:1")

    code = await doctor.doctor(tmp_path)

    told = capsys.readouterr().out
    assert code == 1
    assert "the database has no tables\n      run `switchboard migrate`" in told
    assert "Kafka does not answer" in told


async def test_migrate_brings_a_new_database_and_broker_up_to_date_and_again_changes_nothing(
    empty_database: str,
    kafka: str,
    topic_prefix: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("SWITCHBOARD_POSTGRES_DSN", empty_database)
    monkeypatch.setenv("SWITCHBOARD_KAFKA_BOOTSTRAP", kafka)
    monkeypatch.setenv("SWITCHBOARD_TOPIC_PREFIX", topic_prefix)
    monkeypatch.setenv("SWITCHBOARD_TOPIC_PARTITIONS", "2")

    await operate.migrate(tmp_path)
    first = capsys.readouterr().out
    await operate.migrate(tmp_path)
    second = capsys.readouterr().out

    assert "0001_configuration.sql" in first
    assert f"{topic_prefix}dispatch.sms.v1" in first
    assert "migrations applied: none, all are there" in second


async def test_accounts_and_numbers_come_and_go_with_their_secrets_unseen(
    installation: Installed, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = tmp_path / "account.json"
    settings.write_text('{"host": "smsc.example", "system_id": "me", "password": "hushhush"}')
    # No app claims it and nobody listens there; it is gone before it matters.
    await operate.add_account(folder, "sms", "elsewhere", f"@{settings}")
    await operate.add_number(folder, "SMS:elsewhere", "+46 700 000 001".replace(" ", ""), installation.running.app_id)
    await operate.list_accounts(folder)
    told = capsys.readouterr().out

    assert "SMS:elsewhere" in told
    assert "46700000001" in told
    assert "hushhush" not in told
    with pytest.raises(Refused, match="has numbers; remove them first"):
        await operate.remove_account(folder, "SMS:elsewhere")
    await operate.remove_number(folder, "SMS:elsewhere", "46700000001")
    await operate.remove_account(folder, "SMS:elsewhere")
    await operate.list_numbers(folder)
    assert "elsewhere" not in capsys.readouterr().out.partition("is removed")[2].partition("account  ")[2]
    with pytest.raises(Refused, match="there is no account SMS:elsewhere"):
        await operate.remove_account(folder, "SMS:elsewhere")


async def test_a_paused_lane_holds_messages_until_it_is_resumed(installation: Installed, folder: Path) -> None:
    first = await installation.send("Makes the lane", ("TELEGRAM", "5552001"))
    await installation.reported(first, "QUEUED_ON_CHANNEL")
    lane = f"dispatch:{installation.running.app_id}:TELEGRAM"

    await operate.pause_lane(folder, lane)
    waiting = await installation.send("Waits", ("TELEGRAM", "5552001"))

    async def is_waiting() -> bool:
        async with installation.database() as connection:
            return bool(await connection.fetchval("SELECT 1 FROM lane_items WHERE message_id = $1", waiting))

    await wait_until(is_waiting, 20, "the message waits in its lane")
    assert installation.callbacks(waiting) == []
    await operate.resume_lane(folder, lane)
    await installation.reported(waiting, "QUEUED_ON_CHANNEL")


async def test_a_purged_lane_ends_what_waits_in_it(installation: Installed, folder: Path) -> None:
    first = await installation.send("Makes the lane", ("TELEGRAM", "5552002"))
    await installation.reported(first, "QUEUED_ON_CHANNEL")
    lane = f"dispatch:{installation.running.app_id}:TELEGRAM"
    await operate.pause_lane(folder, lane)
    purged = await installation.send("Never sent", ("TELEGRAM", "5552002"))

    async def is_waiting() -> bool:
        async with installation.database() as connection:
            return bool(await connection.fetchval("SELECT 1 FROM lane_items WHERE message_id = $1", purged))

    await wait_until(is_waiting, 20, "the message waits in its lane")
    try:
        await operate.purge_lane(folder, lane)
        await installation.reported(purged, "FAILED")
    finally:
        await operate.resume_lane(folder, lane)
    assert installation.submissions("5552002")[-1]["text"] == "Makes the lane"


async def test_an_app_s_rates_are_set_and_hold_for_its_lanes(
    installation: Installed, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    app_id = installation.running.app_id
    sent = await installation.send("Makes the lane", ("TELEGRAM", "5552003"))
    await installation.reported(sent, "QUEUED_ON_CHANNEL")
    async with installation.database() as connection:
        before = await connection.fetchval(
            "SELECT settings #>> '{rate_limits,outbound}' FROM apps WHERE id = $1", app_id
        )

    try:
        await apps.set_limits(folder, app_id, 7, None, None)
        async with installation.database() as connection:
            pace = await connection.fetchval(
                "SELECT interval_ns FROM lanes WHERE id = $1", f"dispatch:{app_id}:TELEGRAM"
            )
        await apps.list_apps(folder)
    finally:
        await apps.set_limits(folder, app_id, int(before), None, None)

    assert pace == 142_857_143
    told = capsys.readouterr().out
    assert f"app {app_id}: 7 outbound, 100 inbound, 100 webhooks a second" in told
    with pytest.raises(Refused, match="at least one of"):
        await apps.set_limits(folder, app_id, None, None, None)
    with pytest.raises(Refused, match="there is no app"):
        await apps.set_limits(folder, mint(), 5, None, None)


async def test_a_lane_nobody_made_is_told(folder: Path) -> None:
    with pytest.raises(Refused, match="there is no lane dispatch:none; see `switchboard lanes list`"):
        await operate.pause_lane(folder, "dispatch:none")


async def test_an_unknown_fate_is_listed_and_resolved(
    installation: Installed, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The connection is cut before the answer, and no receipt comes: nobody can know.
    number = f"{new_number()[:-4]}9912"
    message_id = await installation.send("Was it taken?", ("SMS", number))

    async def is_unknown() -> bool:
        await operate.list_unknowns(folder, every=False)
        return message_id in capsys.readouterr().out

    await wait_until(is_unknown, 60, "it is unknown")
    await operate.resolve_unknown(folder, f"{message_id}.0.1", "delivered", "")
    await installation.reported(message_id, "QUEUED_ON_CHANNEL", "DELIVERED")
    capsys.readouterr()
    assert not await is_unknown()

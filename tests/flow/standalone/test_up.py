"""`switchboard up` and `run` as people start them: servers embedded, on a folder of their own."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import stat
import sys
from pathlib import Path

import pytest
from tests.flow.installed import Installed, installed, new_number, start, stop

from switchboard.testing import free_port, wait_until
from switchboard.testing.process import is_gone
from switchboard_standalone.home import Home, Running

#: Runs a command as an ordinary user. Reading everything stays allowed: this Python may live in root's home.
ORDINARY_USER = (
    (
        *("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"),
        *("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"),
    )
    if os.geteuid() == 0
    else ()
)


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch, software: Path) -> None:
    """Nothing is configured but where programs are, whatever the run's environment says."""
    for name in [name for name in os.environ if name.startswith("SWITCHBOARD_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SWITCHBOARD_SOFTWARE", str(software))


async def said(*command: str, timeout_seconds: float = 90) -> tuple[int | None, str, str]:
    """How a command ended, what it printed, and what it complained of."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, errors = await asyncio.wait_for(process.communicate(), timeout_seconds)
    return process.returncode, out.decode(), errors.decode()


def switchboard(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-P", "-m", "switchboard_standalone", *arguments)


async def gone(running: Running) -> None:
    every = {**running.pids, "switchboard": running.supervisor_pid}
    await wait_until(lambda: all(map(is_gone, every.values())), 30, f"all are gone: {every}")


@pytest.mark.usefixtures("embedded")
async def test_a_restart_keeps_everything_and_nothing_outlives_its_parent(own_folder: Path) -> None:
    folder = own_folder / "installation"
    number = new_number()
    async with installed(folder) as first:
        before = first.running
        message_id = await first.send("Kept", ("SMS", number))
        await first.reported(message_id, "QUEUED_ON_CHANNEL", "DELIVERED")
        assert await first.phone("SMS", number) == ["Kept"]

    assert first.process.returncode == 0
    await gone(before)
    assert not first.home.dev_json.exists()

    async with installed(folder) as second:
        again = second.running
        message = await second.message(message_id)
        second.process.kill()  # no chance to clean up
        await second.process.wait()
    assert message["app_message"]["text_message"]["text"] == "Kept"
    assert set(again.pids) == {
        "postgres", "kafka", "ingress", "router", "channel-adapter", "callback-delivery", "simulator",
    }  # fmt: skip
    unchanged = ("base_url", "project_id", "key_id", "key_secret", "app_id", "simulator_url", "webhook_id")
    assert [getattr(again, name) for name in unchanged] == [getattr(before, name) for name in unchanged]
    await gone(again)


@pytest.mark.usefixtures("embedded")
async def test_killed_servers_come_back_with_their_data(own_folder: Path) -> None:
    async with installed(own_folder / "installation") as installation:
        before = installation.running
        for server in ("kafka", "postgres"):
            os.kill(before.pids[server], signal.SIGKILL)

        async def is_back() -> bool:
            pids = installation.running.pids
            return all(pids.get(server) not in (None, before.pids[server]) for server in ("kafka", "postgres"))

        await wait_until(is_back, 60, "both servers run again")
        assert (installation.running.kafka, installation.running.postgres) == (before.kafka, before.postgres)
        message_id = await installation.send_when_up("After", ("SMS", new_number()))
        await installation.reported(message_id, "QUEUED_ON_CHANNEL", "DELIVERED", timeout_seconds=60)


@pytest.mark.usefixtures("embedded")
async def test_an_ordinary_user_sees_a_first_message_delivered(own_folder: Path) -> None:
    folder = own_folder / "ordinary"
    folder.mkdir()
    folder.chmod(0o777)

    code, out, errors = await said(*ORDINARY_USER, *switchboard("run", "--once", "--data", str(folder)))

    assert code == 0, out + errors
    shown = re.findall(r"^(phone|callback) +(.*?)(?:  after.*)?$", out, re.MULTILINE)
    assert shown == [
        ("phone", "“Hello from Switchboard! Your first message.”"),
        ("callback", "MESSAGE_SUBMIT; signature valid"),
        ("callback", "MESSAGE_DELIVERY QUEUED_ON_CHANNEL; signature valid"),
        ("callback", "MESSAGE_DELIVERY DELIVERED; signature valid"),
    ]


async def test_dev_json_is_for_its_owner_alone_and_complete(installation: Installed) -> None:
    facts = json.loads(installation.home.dev_json.read_bytes())

    assert stat.S_IMODE(installation.home.dev_json.stat().st_mode) == 0o600
    promised = {
        *("base_url", "project_id", "key_id", "key_secret", "app_id", "simulator_url", "kafka", "postgres", "pids"),
    }  # fmt: skip
    assert promised <= set(facts)
    assert all(facts[name] for name in promised)


@pytest.mark.usefixtures("embedded")
async def test_a_taken_port_is_told_before_anything_starts(tmp_path: Path) -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", port + 1)):
        code, _, errors = await said(*switchboard("up", "--data", str(tmp_path), "--port", str(port)))

    assert code == 1
    assert errors == (
        f"switchboard: simulator cannot listen on 127.0.0.1:{port + 1}: the port is taken; "
        "stop what listens there, or choose another with --port\n"
    )
    assert not Home(tmp_path).dev_json.exists()


@pytest.mark.usefixtures("embedded")
@pytest.mark.parametrize(
    ("arguments", "variables", "line"),
    [
        (["--env", "router"], {}, "--env router: SERVICE:NAME=VALUE is expected"),
        ([], {"SWITCHBOARD_TOKEN_SECONDS": "soon"}, "SWITCHBOARD_TOKEN_SECONDS: input should be a valid integer"),
    ],
)
async def test_a_wrong_option_or_setting_is_one_line_that_names_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    variables: dict[str, str],
    line: str,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    code, _, errors = await said(*switchboard("up", "--data", str(tmp_path), *arguments))

    assert code == 2
    assert errors.count("\n") == 1
    assert line in errors


@pytest.mark.usefixtures("embedded")
async def test_a_folder_that_cannot_be_used_is_one_line_that_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    code, _, errors = await said(*switchboard("up", "--data", str(tmp_path / "file" / "below")))

    assert code == 1
    assert errors.count("\n") == 1
    assert "choose a data folder that you can write, with --data or SWITCHBOARD_DATA" in errors


@pytest.mark.usefixtures("embedded")
async def test_a_folder_is_for_one_installation_at_a_time(installation: Installed) -> None:
    folder = installation.home.folder

    code, _, errors = await said(*switchboard("up", "--data", str(folder)))

    assert code == 1
    assert errors.startswith(f"switchboard: {folder} is in use by process {installation.process.pid} ")
    assert installation.home.running() is not None


async def test_a_killed_service_comes_back_and_dev_json_follows(installation: Installed) -> None:
    before = installation.running.pids["callback-delivery"]

    os.kill(before, signal.SIGKILL)
    message_id = await installation.send("Told late", ("SMS", new_number()))

    await installation.restarted("callback-delivery", before)
    await installation.reported(message_id, "QUEUED_ON_CHANNEL", "DELIVERED")


async def test_a_killed_world_outside_is_told_again_what_it_must_know(installation: Installed) -> None:
    before = installation.running.pids["simulator"]

    os.kill(before, signal.SIGKILL)
    await installation.restarted("simulator", before)

    async def is_told() -> bool:
        bots = (await installation.simulator("GET", "/telegram/bots")).json["bots"]
        receivers = (await installation.simulator("GET", "/receivers")).json["receivers"]
        return any(bot["webhook"]["url"] for bot in bots) and any(receiver["has_secret"] for receiver in receivers)

    await wait_until(is_told, 20, "the bot's webhook and the receiver's secret are known again")


async def test_stopping_while_it_starts_leaves_nothing(own_folder: Path, postgres_dsn: str) -> None:
    folder = own_folder / "stopped"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        environment = {
            "SWITCHBOARD_POSTGRES_DSN": postgres_dsn,
            "SWITCHBOARD_KAFKA_BOOTSTRAP": f"127.0.0.1:{silent.getsockname()[1]}",
        }
        process = await start(folder, environment=environment)
        log = folder / "up.log"
        await wait_until(lambda: process.returncode is not None or "answer" in log.read_text(), 30, "it has begun")

        code = await stop(process)

    assert code == 0, log.read_text()
    assert not Home(folder).dev_json.exists()

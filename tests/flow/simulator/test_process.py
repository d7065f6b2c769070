"""The simulator as a process: what it says when it starts, what it leaves behind when it ends."""

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path
from typing import Any

from switchboard.testing import free_port
from switchboard_simulator.journal import Journal, Submission, read_lines
from switchboard_simulator.phones import now


async def start(**settings: Any) -> Process:
    environment = {f"SWITCHBOARD_{name.upper()}": str(value) for name, value in settings.items()}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "switchboard_simulator", stdout=PIPE, stderr=PIPE, env={**os.environ, **environment}
    )  # fmt: skip


async def listening(process: Process) -> dict[str, Any]:
    assert process.stdout is not None
    said: dict[str, Any] = json.loads(await process.stdout.readline())
    return said


async def test_it_says_its_ports_and_ends_well_on_sigterm(tmp_path: Path) -> None:
    ports_file, log = tmp_path / "state" / "ports.json", tmp_path / "state" / "callbacks.jsonl"
    process = await start(ports_file=ports_file, callbacks_log=log)
    said = await listening(process)
    reader, writer = await asyncio.open_connection("127.0.0.1", said["http"])
    writer.write(b"POST /receiver/app HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
    await reader.readuntil(b"\r\n\r\n")

    process.send_signal(signal.SIGTERM)
    code = await process.wait()
    writer.close()

    assert said["event"] == "listening"
    assert json.loads(ports_file.read_text()) == {"http": said["http"], "smpp": said["smpp"]}
    assert code == 0
    assert [line["body"] for line in read_lines(log)] == ["{}"]


async def test_a_line_on_record_survives_sigkill(tmp_path: Path) -> None:
    log = tmp_path / "callbacks.jsonl"
    process = await start(callbacks_log=log)
    said = await listening(process)
    reader, writer = await asyncio.open_connection("127.0.0.1", said["http"])
    writer.write(b"POST /receiver/app HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
    await reader.readuntil(b"\r\n\r\n")

    process.kill()
    await process.wait()
    writer.close()

    assert len(list(read_lines(log))) == 1


async def test_a_wrong_setting_stops_it_with_one_line_that_names_the_variable() -> None:
    process = await start(port="many")

    _, errors = await process.communicate()

    assert process.returncode == 2
    assert errors.decode().count("\n") == 1
    assert "SWITCHBOARD_PORT" in errors.decode()


async def test_a_taken_port_stops_it_with_one_line() -> None:
    taken = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", free_port())
    port = taken.sockets[0].getsockname()[1]

    process = await start(port=port)
    _, errors = await process.communicate()
    taken.close()

    assert process.returncode == 71
    assert errors.decode().count("\n") == 1


def _submission(text: str) -> Submission:
    return Submission(now(), "TELEGRAM", "a", "sendMessage", "7", text, True)


def test_a_log_goes_on_where_it_ended(tmp_path: Path) -> None:
    path = tmp_path / "log"
    for text in ("one", "two"):
        journal = Journal(path)
        journal.append(_submission(text))
        journal.close()

    assert [line["text"] for line in read_lines(path)] == ["one", "two"]


def test_a_line_cut_short_does_not_spoil_the_next(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b'{"text":"torn')

    journal = Journal(path)
    journal.append(_submission("whole"))
    journal.close()

    assert [line["text"] for line in read_lines(path)] == ["whole"]

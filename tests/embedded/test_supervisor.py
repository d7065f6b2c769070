"""The supervisor of `switchboard up`: starts in order, restarts what ends, stops in reverse."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from functools import partial
from pathlib import Path

import pytest
from msgspec.structs import replace

from switchboard.testing import free_port, wait_until
from switchboard.testing.process import is_gone
from switchboard_standalone.supervisor import (
    Ended,
    Event,
    Ready,
    RestartPolicy,
    Service,
    ServiceFailed,
    Started,
    Stopped,
    Supervisor,
)

ANSWERING = Path(__file__).with_name("answering.py")
QUICK = RestartPolicy(first_seconds=0.01, longest_seconds=0.05)


def service(folder: Path, name: str, *after: str, ready_seconds: float = 20) -> Service:
    port = free_port()
    return Service(
        name=name,
        command=(sys.executable, "-I", str(ANSWERING), name, str(port), str(folder)),
        environment=dict(os.environ),
        ready_url=f"http://127.0.0.1:{port}/health/ready",
        after=after,
        ready_seconds=ready_seconds,
    )


def were_ready(told: list[Event], times: int) -> bool:
    return sum(isinstance(event, Ready) for event in told) == times


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


async def test_services_start_after_those_they_need_and_stop_in_reverse(tmp_path: Path) -> None:
    told: list[Event] = []
    services = [service(tmp_path, "ingress"), service(tmp_path, "router", "ingress")]
    async with Supervisor(services, logs=tmp_path / "logs", tell=told.append) as supervisor:
        pids = supervisor.pids
        assert set(pids) == {"ingress", "router"}

    kinds = [(type(event), event.name) for event in told]
    assert kinds == [
        (Started, "ingress"),
        (Ready, "ingress"),
        (Started, "router"),
        (Ready, "router"),
        (Stopped, "router"),
        (Stopped, "ingress"),
    ]
    assert lines(tmp_path / "stopped") == ["router", "ingress"]
    assert all(is_gone(pid) for pid in pids.values())
    assert supervisor.pids == {}


async def test_a_service_that_others_stop_before_starts_with_them_and_stops_last(tmp_path: Path) -> None:
    told: list[Event] = []
    outside = service(tmp_path, "simulator")
    (tmp_path / "simulator.warming").touch()
    services = [outside, replace(service(tmp_path, "router"), stops_before=("simulator",))]
    supervisor = Supervisor(services, logs=tmp_path / "logs", tell=told.append)
    entering = asyncio.create_task(supervisor.__aenter__())
    await wait_until(lambda: Ready in map(type, told), describe="the router did not wait for it")
    (tmp_path / "simulator.warming").unlink()
    await entering

    await supervisor.__aexit__(None, None, None)

    assert lines(tmp_path / "stopped") == ["router", "simulator"]


async def test_the_first_run_alone_has_the_first_environment(tmp_path: Path) -> None:
    told: list[Event] = []
    watched = replace(service(tmp_path, "router"), first_environment={"SWITCHBOARD_CRASH_AT": "router.after_commit"})
    async with Supervisor([watched], logs=tmp_path, tell=told.append, policy=QUICK) as supervisor:
        seen = []
        for times in (1, 2):
            pid = supervisor.pids["router"]
            seen.append("SWITCHBOARD_CRASH_AT" in environment_of(pid))
            os.kill(pid, signal.SIGKILL)
            await wait_until(partial(were_ready, told, times + 1), describe="the service is ready again")

    assert seen == [True, False]


def environment_of(pid: int) -> dict[str, str]:
    pairs = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


async def test_a_service_is_ready_only_when_it_says_so(tmp_path: Path) -> None:
    warming = tmp_path / "ingress.warming"
    warming.touch()
    supervisor = Supervisor([service(tmp_path, "ingress")], logs=tmp_path)
    entering = asyncio.create_task(supervisor.__aenter__())
    await wait_until(lambda: lines(tmp_path / "started"), describe="the service runs")
    assert not entering.done()

    warming.unlink()
    await entering
    await supervisor.__aexit__(None, None, None)


async def test_a_service_that_was_killed_is_started_again(tmp_path: Path) -> None:
    told: list[Event] = []
    async with Supervisor([service(tmp_path, "ingress")], logs=tmp_path, tell=told.append, policy=QUICK) as supervisor:
        for times in (1, 2):
            before = supervisor.pids["ingress"]
            os.kill(before, signal.SIGKILL)
            await wait_until(partial(were_ready, told, times + 1), describe="the service is ready again")
            assert supervisor.pids["ingress"] != before

    ends = [(event.returncode, event.restart_in_seconds) for event in told if isinstance(event, Ended)]
    assert ends == [(-signal.SIGKILL, 0.01), (-signal.SIGKILL, 0.02)]


async def test_a_service_that_cannot_start_ends_the_start_with_its_last_words(tmp_path: Path) -> None:
    (tmp_path / "router.broken").touch()
    services = [service(tmp_path, "ingress"), service(tmp_path, "router", "ingress")]
    supervisor = Supervisor(services, logs=tmp_path)

    with pytest.raises(ServiceFailed, match=r"router ended while starting \(exit 4\).*SECRET_KEYS: is not set"):
        await supervisor.__aenter__()
    assert supervisor.pids == {}
    assert lines(tmp_path / "stopped") == ["ingress"]


async def test_a_service_that_does_not_get_ready_ends_the_start(tmp_path: Path) -> None:
    (tmp_path / "ingress.warming").touch()
    supervisor = Supervisor([service(tmp_path, "ingress", ready_seconds=0)], logs=tmp_path)

    with pytest.raises(ServiceFailed, match="ingress was not ready within 0 s"):
        await supervisor.__aenter__()
    assert supervisor.pids == {}


async def test_a_start_that_is_cancelled_leaves_nothing_running(tmp_path: Path) -> None:
    (tmp_path / "ingress.warming").touch()
    supervisor = Supervisor([service(tmp_path, "ingress")], logs=tmp_path)
    entering = asyncio.create_task(supervisor.__aenter__())
    await wait_until(lambda: supervisor.pids, describe="the service runs")

    entering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await entering
    assert supervisor.pids == {}


async def test_stopping_does_not_wait_for_a_restart_that_is_due_later(tmp_path: Path) -> None:
    told: list[Event] = []
    later = RestartPolicy(first_seconds=3600, longest_seconds=3600)
    async with Supervisor([service(tmp_path, "ingress")], logs=tmp_path, tell=told.append, policy=later) as supervisor:
        os.kill(supervisor.pids["ingress"], signal.SIGKILL)
        await wait_until(lambda: isinstance(told[-1], Ended), describe="the end is told")

    assert len(lines(tmp_path / "started")) == 1


def test_a_service_cannot_wait_for_one_that_comes_later(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ingress waits for router, which is not before it"):
        Supervisor([service(tmp_path, "ingress", "router"), service(tmp_path, "router")], logs=tmp_path)


@pytest.mark.parametrize(("failures", "delay"), [(1, 0.2), (2, 0.4), (3, 0.8), (9, 30.0), (100_000, 30.0)])
def test_each_end_in_a_row_waits_longer_up_to_a_bound(failures: int, delay: float) -> None:
    assert RestartPolicy().delay_seconds(failures) == pytest.approx(delay)


@pytest.mark.parametrize(("ran_seconds", "failures"), [(0.0, 8), (59.9, 8), (60.0, 1)])
def test_a_long_run_forgives_earlier_ends(ran_seconds: float, failures: int) -> None:
    assert RestartPolicy().failures(7, ran_seconds) == failures

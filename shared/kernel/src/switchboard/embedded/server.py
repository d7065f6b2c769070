"""What every embedded server has in common: prepare, launch, become ready, stop, start again."""

from __future__ import annotations

import asyncio
import atexit
import os
import time
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Self

from switchboard.embedded.child import ChildProcess
from switchboard.embedded.errors import EmbeddedError, PortTaken, ServerFailed
from switchboard.embedded.folder import FolderLock, telling_folder, usable_folder
from switchboard.embedded.port import free_port, is_free

_LOOK_SECONDS = 0.01
_KEPT = ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


class EmbeddedServer(ABC):
    """One server as our child, on loopback, with its data in one folder.

    `start` and `stop` may be called again and again: data stays, and so does the port, which clients know.
    """

    #: What people call the server, in errors and in names of files.
    name: str

    def __init__(self, folder: Path, *, port: int, ready_seconds: float) -> None:
        self.folder = folder.expanduser().absolute()
        self.ready_seconds = ready_seconds
        self._wanted_port = port
        self._port = port
        self._lock: FolderLock | None = None
        self._child: ChildProcess | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def port(self) -> int:
        """The port on loopback; chosen at the first start unless it was given."""
        if not self._port:
            raise RuntimeError(f"{self.name} was not started")
        return self._port

    @property
    def pid(self) -> int | None:
        """The server's process id while it runs, else None."""
        return None if self._child is None else self._child.pid

    @property
    def log(self) -> Path:
        """Where the server writes what it has to say."""
        return self.folder / f"{self.name.lower()}.log"

    @property
    def running(self) -> bool:
        """Whether the server's process runs."""
        return self._child is not None and self._child.running

    def start(self) -> None:
        """Prepare what is missing, start the server and return when it takes connections.

        Main thread only. Raises a kind of EmbeddedError; nothing is left running then.
        """
        self.prepare()
        self.launch()
        self.wait_until_ready()

    async def start_async(self) -> None:
        """The same as `start`, without blocking the event loop of the main thread."""
        try:
            await asyncio.to_thread(self.prepare)
            self.launch()
            await asyncio.to_thread(self.wait_until_ready)
        except BaseException:
            self.stop()
            raise

    def prepare(self) -> None:
        """Take the folder and make everything the server needs to run: programs, settings, empty data.

        Any thread. Raises FolderUnusable, FolderInUse, SoftwareMissing, DownloadFailed, DamagedDownload.
        """
        if self._lock is not None:
            raise RuntimeError(f"{self.name} on {self.folder} was started already")
        usable_folder(self.folder)
        with telling_folder(self.folder):
            self.folder.chmod(0o700)  # what people write to each other lies in it
        lock = FolderLock(self.folder)
        lock.acquire()
        self._lock = lock
        try:
            self._prepare(lock)
        except BaseException:
            self._release()
            raise

    def launch(self) -> None:
        """Start the process, after `prepare`. Main thread only. Raises PortTaken, ServerFailed."""
        if self._lock is None:
            raise RuntimeError(f"{self.name} must be prepared before it is launched")
        try:
            self._choose_port()
            self._child = self._make_child(self._lock)
            self._child.start()
            # What does not end of itself ends with the interpreter, cleanly.
            atexit.register(self.stop)
        except BaseException:
            self.stop()
            raise

    def wait_until_ready(self) -> None:
        """Return when the server takes connections. Raises ServerFailed, with nothing left running."""
        assert self._child is not None
        deadline = time.monotonic() + self.ready_seconds
        try:
            while not self._is_ready(self._child):
                if not self._child.running:
                    raise self._failed("ended while starting")
                if time.monotonic() > deadline:
                    raise self._failed(f"was not ready within {self.ready_seconds:.0f} s")
                time.sleep(_LOOK_SECONDS)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the server cleanly, by force where it does not listen, and give the folder free."""
        if self._child is not None:
            self._child.stop()
        self._release()

    async def stop_async(self) -> None:
        """The same as `stop`, without blocking the event loop."""
        await asyncio.to_thread(self.stop)

    def kill(self) -> None:
        """End the server as a power cut would end its process. `start` brings it back with its data."""
        if self._child is not None:
            self._child.kill()
        self._release()

    @abstractmethod
    def _prepare(self, lock: FolderLock) -> None:
        """Make everything the server needs; the folder is ours."""

    @abstractmethod
    def _make_child(self, lock: FolderLock) -> ChildProcess:
        """Write the settings that follow the port, and describe the process."""

    @abstractmethod
    def _is_ready(self, child: ChildProcess) -> bool:
        """Whether the server takes connections."""

    def _choose_port(self) -> None:
        if not self._port:
            self._port = free_port()
        elif not is_free(self._port):
            raise PortTaken(
                f"{self.name} cannot listen on 127.0.0.1:{self._port}: the port is taken; "
                "stop what listens there, or choose another port"
            )

    def _failed(self, what: str) -> EmbeddedError:
        assert self._child is not None
        said = next((line for line in reversed(self._child.log_tail()) if line.strip()), "nothing")
        return ServerFailed(f"{self.name} {what}; it said: {said.strip()[:300]}; the whole log is {self.log}")

    def _release(self) -> None:
        self._child = None
        atexit.unregister(self.stop)
        if self._lock is not None:
            self._lock.release()
            self._lock = None


def server_environment() -> dict[str, str]:
    """What a server gets of our environment: nothing that steers it behind our back, none of our secrets."""
    kept = {name: value for name, value in os.environ.items() if name in _KEPT}
    # Without it Java cannot name files outside ASCII.
    return {**kept, "LC_ALL": "C.UTF-8"}

"""A child process that never outlives us."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from switchboard.embedded.errors import FolderUnusable, ServerFailed

_LAUNCHER = Path(__file__).with_name("launch.py")


def launch_command(command: Sequence[str], *, death_signal: signal.Signals, user: int | None) -> list[str]:
    """The command line that runs `command` tied to this process, as `user` if given."""
    who = "-" if user is None else str(user)
    launcher = [sys.executable, "-I", "-S", str(_LAUNCHER), str(os.getpid()), str(int(death_signal)), who]
    return [*launcher, *command]


def run_tool(
    command: Sequence[str],
    *,
    folder: Path,
    environment: Mapping[str, str],
    user: int | None = None,
    keep_open: Sequence[int] = (),
    given: str = "",
) -> None:
    """Run a short program to its end, tied to us like any child. Any thread: it waits for the program.

    `given` is written to its standard input. Raises ServerFailed with the last words it printed.
    """
    run = subprocess.run(
        launch_command(command, death_signal=signal.SIGKILL, user=user),
        input=given.encode(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=dict(environment),
        cwd=folder,
        pass_fds=tuple(keep_open),
        start_new_session=True,
        check=False,
    )
    if run.returncode != 0:
        said = " ".join(run.stdout.decode(errors="replace").split())[-300:]
        raise ServerFailed(f"{Path(command[0]).name} failed in {folder}; it said: {said}")


class ChildProcess:
    """One child process: started, watched and stopped here, and ended by the kernel when we die.

    Its output goes to `log`; the log of the run before is kept beside it as `<log>.previous`. It gets its
    own session, so Ctrl-C in a terminal reaches us and we decide the order in which children stop.
    A stopped child can be started again.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
        user: int | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
        death_signal: signal.Signals = signal.SIGKILL,
        grace_seconds: float = 10.0,
        keep_open: Sequence[int] = (),
    ) -> None:
        """Describe the child; nothing runs yet.

        `environment` replaces ours, None inherits it. `user` is a uid to run as, for root only.
        `stop_signal` asks for a clean end and has `grace_seconds` to work before SIGKILL. `death_signal` is
        sent by the kernel when we die (Linux only). `keep_open` are descriptors the child inherits.
        """
        self.name = name
        self.log = log
        self._command = tuple(command)
        self._environment = environment
        self._folder = folder
        self._user = user
        self._stop_signal = stop_signal
        self._death_signal = death_signal
        self._grace_seconds = grace_seconds
        self._keep_open = tuple(keep_open)
        self._process: subprocess.Popen[bytes] | None = None
        self._lifeline: int | None = None

    def __repr__(self) -> str:
        return f"<ChildProcess {self.name} pid={self.pid} returncode={self.returncode}>"

    @property
    def pid(self) -> int | None:
        """The process id while the child runs, else None."""
        return self._process.pid if self._process is not None and self.running else None

    @property
    def running(self) -> bool:
        """Whether the child runs now."""
        return self._process is not None and self._process.poll() is None

    @property
    def returncode(self) -> int | None:
        """How the last run ended: an exit code, minus a signal number, or None when it has not."""
        return None if self._process is None else self._process.poll()

    def start(self) -> None:
        """Start the child. Main thread only: the kernel ties a child to the *thread* that made it.

        Raises FolderUnusable when the log cannot be written. A program that cannot be run ends at once and
        says so in its log.
        """
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError(f"{self.name} must be started from the main thread")
        if self.running:
            raise RuntimeError(f"{self.name} runs already")
        self._forget()
        # Every process below the child inherits the writing end: the reading end closes with the last one.
        lifeline, held_by_child = os.pipe()
        try:
            with self._open_log() as log:
                self._process = subprocess.Popen(
                    launch_command(self._command, death_signal=self._death_signal, user=self._user),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=None if self._environment is None else dict(self._environment),
                    cwd=self._folder,
                    start_new_session=True,
                    pass_fds=(held_by_child, *self._keep_open),
                )
        except BaseException:
            os.close(lifeline)
            raise
        finally:
            os.close(held_by_child)
        self._lifeline = lifeline

    def stop(self) -> int | None:
        """Ask the child to end, kill it when it does not within its grace, and return how it ended.

        Does nothing when the child does not run. Returns only when every process below it is gone too.
        """
        if self._process is None:
            return None
        self.send(self._stop_signal)
        if not self._ended_within(self._grace_seconds):
            return self.kill()
        return self._process.returncode

    def kill(self) -> int | None:
        """End the child at once, without a chance to clean up; wait until it and what it started are gone."""
        if self._process is None:
            return None
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        # Its own children leave by themselves when it is gone; what they hold is free only then.
        if self._lifeline is not None and not self._lifeline_closed_within(self._grace_seconds):
            raise ServerFailed(f"{self.name} is gone, but a process it started still runs")
        return self._process.returncode

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the child alone; nothing happens when it does not run."""
        if self._process is not None:
            self._process.send_signal(number)

    def wait(self, timeout_seconds: float | None = None) -> int:
        """Wait until the child ends by itself and return how. Raises TimeoutError."""
        if self._process is None:
            raise RuntimeError(f"{self.name} was never started")
        try:
            return self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"{self.name} still runs after {timeout_seconds} s") from None

    async def ended(self) -> int:
        """Wait, without blocking the event loop, until the child ends by itself and return how."""
        if self._process is None:
            raise RuntimeError(f"{self.name} was never started")
        process = self._process
        if sys.platform == "linux":
            with contextlib.suppress(OSError):  # no pidfd in this kernel, or the child is gone already
                await _readable(os.pidfd_open(process.pid))
        while process.poll() is None:  # noqa: ASYNC110 - only where nothing tells us
            await asyncio.sleep(0.1)
        return process.wait()

    def log_tail(self, lines: int = 20) -> list[str]:
        """The last lines the child wrote in this run."""
        with contextlib.suppress(OSError), self.log.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - 400 * lines))
            return log.read().decode(errors="replace").splitlines()[-lines:]
        return []

    def _open_log(self) -> BinaryIO:
        try:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            if self.log.exists():
                self.log.replace(self.log.with_name(f"{self.log.name}.previous"))
            return open(self.log, "ab", opener=_for_us_alone)
        except OSError as error:
            raise FolderUnusable(f"{self.log} cannot be written: {error.strerror}") from error

    def _ended_within(self, seconds: float) -> bool:
        assert self._process is not None
        deadline = time.monotonic() + seconds
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return self._lifeline_closed_within(max(0.0, deadline - time.monotonic()))

    def _lifeline_closed_within(self, seconds: float) -> bool:
        if self._lifeline is None:
            return True
        # poll, not select: a process with many connections has descriptors above 1023.
        watch = select.poll()
        watch.register(self._lifeline, select.POLLIN | select.POLLHUP)
        if not watch.poll(seconds * 1000):
            return False
        self._forget_lifeline()
        return True

    def _forget(self) -> None:
        self._process = None
        self._forget_lifeline()

    def _forget_lifeline(self) -> None:
        if self._lifeline is not None:
            os.close(self._lifeline)
            self._lifeline = None


async def _readable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    seen = asyncio.Event()
    loop.add_reader(descriptor, seen.set)
    try:
        await seen.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def _for_us_alone(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)

"""Runs an installation in this process: from the first download to the last child that ends."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import FrameType
from typing import TYPE_CHECKING, Final

from msgspec import Struct
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from switchboard.embedded import Download, Servers, ServerSettings, ensure_servers
from switchboard_standalone.fleet import Wishes, check_settings, choose_ports
from switchboard_standalone.home import Home
from switchboard_standalone.supervisor import Ended, NotRestarted, Ready, ServerRestarted
from switchboard_standalone.trouble import one_line

if TYPE_CHECKING:
    from switchboard_standalone.up import Installation, Told

_UP: Final = "switchboard_standalone.up"
#: What is done while everything runs; its result is the exit code.
Work = Callable[["Installation"], Awaitable[int]]


class Order(Struct, frozen=True, kw_only=True):
    """What to run, and where."""

    settings: ServerSettings
    port: int = 0
    wishes: Wishes = Wishes()

    @property
    def home(self) -> Home:
        return Home(self.settings.data)


def launch(order: Order, console: Console, work: Work) -> int:
    """Start everything, do the work, stop everything. Main thread only. Returns the work's exit code, 0 if stopped.

    Raises what keeps it from running, as `installation` does.
    """
    order.wishes.check()
    check_settings()
    home = order.home
    with home.taken(), _stopping_on_sigterm():
        # Before a second is spent on servers.
        choose_ports(order.port, home.ports(), simulator=order.wishes.simulator)
        # Half a second of imports, while the servers start.
        threading.Thread(target=import_module, args=(_UP,), daemon=True).start()
        with _download(console) as progress:
            servers = ensure_servers(order.settings, progress=progress)
        with servers:
            console.print("[dim]PostgreSQL and Kafka answer[/dim]")
            return asyncio.run(_work_until_stopped(order, home, servers, console, work))


async def _work_until_stopped(order: Order, home: Home, servers: Servers, console: Console, work: Work) -> int:
    """Cancelling the work is what takes everything down in order."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    working = asyncio.create_task(_work(order, home, servers, console, work))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
    if not working.done():
        console.print("[dim]stopping …[/dim]")
        working.cancel()
        await asyncio.wait((working,))
        if not working.cancelled() and (error := working.exception()) is not None:
            # It failed in the moment it was told to stop.
            console.print(f"[dim]{escape(one_line(error) or type(error).__name__)}[/dim]")
        return 0
    stopping.cancel()
    return working.result()


async def _work(order: Order, home: Home, servers: Servers, console: Console, work: Work) -> int:
    from switchboard_standalone.up import installation

    tell = _Teller(console)
    async with installation(home, servers, port=order.port, wishes=order.wishes, tell=tell) as running:
        tell.is_up = True
        working = asyncio.ensure_future(work(running))
        watching = asyncio.ensure_future(running.watch())
        try:
            await asyncio.wait((working, watching), return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                watching.result()  # raises what cannot be kept running
            return await working
        finally:
            for task in (working, watching):
                task.cancel()
            await asyncio.gather(working, watching, return_exceptions=True)


class _Teller:
    """Says what changes. Starts are told once; afterwards only what people should know."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.is_up = False

    def __call__(self, event: Told) -> None:
        match event:
            case Ready(name, after) if not self.is_up:
                self._console.print(f"[dim]{name} is ready after {after.total_seconds():.1f} s[/dim]")
            case Ready(name):
                self._console.print(f"[green]{name} is ready again[/green]")
            case Ended(name, returncode, delay, last_words):
                self._console.print(
                    f"[red]{name} ended ({returncode})[/red]; starts again in {delay:g} s; it said: {last_words}",
                    markup=True, highlight=False,
                )  # fmt: skip
            case NotRestarted(name, reason, delay):
                self._console.print(f"[red]{name} cannot start[/red]: {reason}; again in {delay:g} s")
            case ServerRestarted(name):
                self._console.print(f"[yellow]{name} had ended and runs again[/yellow]")
            case _:
                pass


@contextmanager
def _download(console: Console) -> Iterator[Callable[[Download], None]]:
    """A bar, from the first byte of a first download on; nothing is shown without one."""
    bar = Progress(
        TextColumn("Fetching Kafka, once"), BarColumn(), DownloadColumn(), TextColumn("{task.fields[file]}"),
        console=console, transient=True,
    )  # fmt: skip
    task = bar.add_task("fetch", total=None, file="")

    def progress(download: Download) -> None:
        bar.start()
        bar.update(task, completed=download.done_bytes, total=download.total_bytes, file=download.file)

    try:
        yield progress
    finally:
        bar.stop()


@contextmanager
def _stopping_on_sigterm() -> Iterator[None]:
    """While servers start and stop, SIGTERM is what Ctrl-C is: an exception that stops what runs."""

    def interrupt(_: int, __: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

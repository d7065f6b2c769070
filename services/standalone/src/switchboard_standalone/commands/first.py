"""`switchboard run`: everything up, a first message sent, its phone and callbacks shown."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.markup import escape

from switchboard.embedded import ServerSettings
from switchboard_standalone.commands.up import server_settings
from switchboard_standalone.greeting import PHONE, greet
from switchboard_standalone.launch import Order, launch
from switchboard_standalone.screen import screen

if TYPE_CHECKING:
    from switchboard_standalone.client import SeenCallback
    from switchboard_standalone.up import Installation

_PATIENCE_SECONDS: Final = 30.0
_LOOK_SECONDS: Final = 0.02
TEXT: Final = "Hello from Switchboard! Your first message."


def run(data: Path | None, port: int, *, once: bool) -> int:
    """Up, a first message, and then stay, or with `once` end: 0 if its DELIVERED callback came, signed."""
    console = screen()

    async def work(installation: Installation) -> int:
        greet(console, installation.home, installation.running(), staying=not once)
        came = await _first_message(console, installation)
        if once:
            return 0 if came else 1
        from switchboard_standalone.commands.messages import follow_outside

        await follow_outside(console, installation.running)
        return 0

    with _folder(data, once=once) as settings:
        return launch(Order(settings=settings, port=port), console, work)


@contextmanager
def _folder(data: Path | None, *, once: bool) -> Iterator[ServerSettings]:
    """The data folder; for a single run without one a folder that is thrown away. Programs are kept for the next."""
    settings = server_settings(data)
    if not once or data is not None or "SWITCHBOARD_DATA" in os.environ:
        yield settings
        return
    folder = Path(tempfile.mkdtemp(prefix="switchboard-demo-"))
    folder.chmod(0o711)  # as root PostgreSQL is another user, who has to pass
    try:
        yield settings.model_copy(update={"data": folder, "software": settings.programs})
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _first_message(console: Console, installation: Installation) -> bool:
    from switchboard_standalone.client import calling
    from switchboard_standalone.development import RECEIVER

    running = installation.running()
    async with calling(running) as client:
        begun = time.monotonic()
        message_id = await client.send(TEXT, "SMS", PHONE)
        console.print(f"\n[bold]sent[/bold]      message {message_id}, SMS to +{PHONE}")
        shown = _Shown(console, begun)
        while time.monotonic() - begun < _PATIENCE_SECONDS:
            shown.phone(await client.phone("SMS", PHONE))
            for callback in await client.callbacks(RECEIVER):
                if callback.message_id != message_id:
                    continue
                shown.callback(callback)
                if callback.status in ("DELIVERED", "FAILED"):
                    shown.phone(await client.phone("SMS", PHONE))
                    return _verdict(console, installation, callback, all_valid=shown.all_valid)
            await asyncio.sleep(_LOOK_SECONDS)
    console.print(
        f"[red]no DELIVERED callback came within {_PATIENCE_SECONDS:g} s[/red]; "
        f"look at {installation.home.logs}, or run `switchboard timeline {message_id}`"
    )
    return False


def _verdict(console: Console, installation: Installation, last: SeenCallback, *, all_valid: bool) -> bool:
    if last.status == "FAILED":
        console.print(f"[red]the message failed[/red]; look at {installation.home.logs}, or run `switchboard doctor`")
        return False
    if not all_valid:
        console.print("[red]a callback was not signed right[/red]")
        return False
    console.print("\n[bold green]Delivered[/bold green], and the app knows.")
    return True


class _Shown:
    """What was shown already, so that each thing is shown once, with the time since the send."""

    def __init__(self, console: Console, begun: float) -> None:
        self._console = console
        self._begun = begun
        self._seen: set[object] = set()
        self.all_valid = True

    def phone(self, messages: list[Any]) -> None:
        """Show new texts on the phone."""
        for message in messages:
            if message["incoming"] and self._is_new(message["id"]):
                self._console.print(f"[bold]phone[/bold]     “{escape(message.get('text', ''))}”{self._after}")

    def callback(self, callback: SeenCallback) -> None:
        """Show a callback if it is new."""
        if self._is_new(callback.number):
            self.all_valid &= callback.signature == "valid"
            what = f"{callback.trigger} {callback.status}".strip()
            self._console.print(f"[bold]callback[/bold]  {what}; signature {callback.signature}{self._after}")

    @property
    def _after(self) -> str:
        return f"  [dim]after {time.monotonic() - self._begun:.2f} s[/dim]"

    def _is_new(self, key: object) -> bool:
        if key in self._seen:
            return False
        self._seen.add(key)
        return True

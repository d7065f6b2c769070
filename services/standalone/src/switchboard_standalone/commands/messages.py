"""`switchboard send`, `tail` and `timeline`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from pyreqwest.exceptions import PyreqwestError
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from switchboard import story
from switchboard.ids import MessageId, is_ulid, lowest_at
from switchboard.store import timeline
from switchboard.store.pool import Pool
from switchboard.store.timeline import Moment
from switchboard.timeline import Kind, decode_entry
from switchboard_standalone.client import SeenCallback, calling
from switchboard_standalone.greeting import PHONE
from switchboard_standalone.home import Running
from switchboard_standalone.reach import Reach, home_of, running_in
from switchboard_standalone.screen import screen
from switchboard_standalone.trouble import Refused

#: A chat of the simulator that behaves well.
CHAT: Final = "5550100"
_LOOK_SECONDS: Final = 0.2
_AGAIN_SECONDS: Final = 0.5
#: Messages whose timeline `tail` follows.
_FOLLOWED: Final = timedelta(hours=1)


async def send(data: Path | None, text: str, channel: str, recipient: str, callback_url: str) -> int:
    """Send a text as the development app."""
    running = running_in(home_of(data))
    channel = channel.upper()
    recipient = recipient or {"SMS": PHONE, "TELEGRAM": CHAT}.get(channel, "")
    if not recipient:
        raise Refused(f"--to: whom to send to on {channel} is expected")
    more: dict[str, Any] = {"callback_url": callback_url} if callback_url else {}
    async with calling(running) as client:
        # The id alone, so that it can be piped.
        print(await client.send(text, channel, recipient, **more))
    return 0


async def show_timeline(data: Path | None, message_id: str) -> int:
    """Print the timeline of one message."""
    if not is_ulid(message_id):
        raise Refused(f"{message_id} is no message id: 26 letters and digits are expected")
    async with Reach.of(home_of(data)).pool() as pool, pool.acquire() as connection:
        moments = await timeline.read(connection, MessageId(message_id))
        message = await connection.fetchrow(
            "SELECT phase, status, channel, final FROM switchboard.messages WHERE id = $1", message_id
        )
    if not moments and message is None:
        raise Refused(f"nothing is known of message {message_id}: it is not planned yet, or older than its app keeps")
    console = screen()
    table = Table(title=f"message {message_id}", title_justify="left", header_style="bold", box=None, pad_edge=False)
    for column in ("when (UTC)", "+ s", "what", "why"):
        table.add_column(column, overflow="fold", justify="right" if column == "+ s" else "left")
    lines = story.tell(moments)
    for line in lines:
        since = (line.at - lines[0].at).total_seconds()
        table.add_row(f"{line.at:%Y-%m-%d %H:%M:%S.%f}"[:-3], f"{since:.3f}", escape(line.what), escape(line.why))
    console.print(table)
    if message is not None:
        end = "it is over" if message["final"] else "more may come"
        console.print(f"\nnow {message['status']}, {message['phase'].lower()}; {end}")
    return 0


async def tail(data: Path | None) -> int:
    """Print what happens until told to stop."""
    home = home_of(data)
    console = screen()
    running = running_in(home)
    async with Reach.of(home).pool() as pool, asyncio.TaskGroup() as group:
        group.create_task(follow_timeline(console, pool))
        if running.simulator_url:
            group.create_task(follow_outside(console, lambda: home.running() or running))
    return 0


async def follow_timeline(console: Console, pool: Pool) -> None:
    """Print rows of timelines as they are written."""
    last = await pool.fetchval("SELECT coalesce(max(number), 0) FROM switchboard.timeline")
    while True:
        rows = await pool.fetch(
            "SELECT message_id, number, at, kind, cause, entry FROM switchboard.timeline"
            " WHERE message_id >= $1 AND number > $2 ORDER BY number LIMIT 1000",
            lowest_at(datetime.now(UTC) - _FOLLOWED), last,
        )  # fmt: skip
        for row in rows:
            last = row["number"]
            moment = Moment(row["number"], row["at"], Kind(row["kind"]), row["cause"], decode_entry(row["entry"]))
            for line in story.tell([moment]):
                console.print(
                    f"[dim]{line.at:%H:%M:%S.%f}[/dim] {row['message_id']} {escape(line.what)}"
                    f"{'  [dim]' + escape(line.why) + '[/dim]' if line.why else ''}"
                )
        await asyncio.sleep(_LOOK_SECONDS)


async def follow_outside(console: Console, running: Callable[[], Running]) -> None:
    """Print what comes to phones and to the receiver, until cancelled; the simulator may come and go."""
    while True:
        async with calling(running()) as client:
            with suppress(PyreqwestError):
                async for name, fact in client.facts():
                    _print_fact(console, name, fact)
        await asyncio.sleep(_AGAIN_SECONDS)


def _print_fact(console: Console, name: str, fact: Any) -> None:
    match name:
        case "PhoneChanged" if fact["message"].get("state", "delivered") != "held":
            phone, message = fact["phone"], fact["message"]
            arrow = "[bold]phone[/bold]    " if message["incoming"] else "[bold]person[/bold]   "
            text = escape(message.get("text", ""))
            console.print(f"{arrow} {phone['channel']} {phone['recipient']} “{text}”")
        case "CallbackReceived":
            seen = SeenCallback.read(fact["callback"])
            what = f"{seen.trigger} {seen.status}".strip()
            console.print(f"[bold]callback[/bold]  {what}; {seen.message_id}; signature {escape(seen.signature)}")
        case _:
            pass

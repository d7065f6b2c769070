"""What operators do: schema, provider accounts and numbers, lanes, attempts whose fate is unknown."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable
from pathlib import Path
from typing import Final

import asyncpg
from rich.table import Table

from switchboard.configuration import ConfigurationStore
from switchboard.identity import ChannelName
from switchboard.ids import AccountKey, AppId, LaneId, MessageId, parse_attempt_id
from switchboard.lanes import operate
from switchboard.reason import Reason, ReasonCode
from switchboard.records import UnknownResolved
from switchboard.settings import read_settings
from switchboard.status import Status
from switchboard_standalone.reach import Reach, home_of
from switchboard_standalone.schema import bring_up_to_date
from switchboard_standalone.schema_settings import EMBEDDED_PARTITIONS, SchemaSettings
from switchboard_standalone.screen import screen
from switchboard_standalone.trouble import Refused


async def migrate(data: Path | None) -> int:
    """Bring database and topics to this version: configured ones, else those that run on the folder."""
    home = home_of(data)
    running = home.running()
    found: dict[str, str] = {}
    if running is not None:
        found = {"postgres_dsn": running.postgres, "kafka_bootstrap": running.kafka}
        found["topic_prefix"] = running.topic_prefix
        if "kafka" in running.pids:
            found["topic_partitions"] = str(EMBEDDED_PARTITIONS)
    settings = read_settings(SchemaSettings, **_not_configured(found))
    changes = await bring_up_to_date(settings)
    print(f"migrations applied: {', '.join(changes.migrations) or 'none, all are there'}")
    print(f"topics there: {', '.join(changes.topics)}")
    return 0


def _not_configured(found: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in found.items() if f"SWITCHBOARD_{name.upper()}" not in os.environ}


# -- provider accounts and numbers


async def add_account(data: Path | None, channel: str, name: str, settings: str) -> int:
    """Make or change an account. `settings` is JSON, `@file`, or `-` for standard input: passwords stay unseen."""
    async with Reach.of(home_of(data)).store() as store:
        key = await store.put_account(ChannelName(channel.upper()), name, _read(settings))
    print(f"account {key} is there; an app uses it with claimed_identity {name!r}")
    return 0


async def list_accounts(data: Path | None) -> int:
    """Show the accounts, secrets hidden."""
    async with Reach.of(home_of(data)).store() as store:
        accounts = await store.accounts()
        numbers = {account.key: await store.numbers(account.key) for account in accounts}
    table = _table("account", "numbers", "settings")
    for account in accounts:
        shown = account.settings.model_dump_json(exclude_defaults=True)
        table.add_row(account.key, ", ".join(sorted(numbers[account.key])) or "none", shown)
    _print(table, "no provider accounts; add one with `switchboard account add`")
    return 0


async def remove_account(data: Path | None, key: str) -> int:
    """Remove an account without numbers."""
    async with Reach.of(home_of(data)).store() as store:
        await _known(store, key)
        try:
            await store.pool.execute("DELETE FROM switchboard.provider_accounts WHERE key = $1", key)
        except asyncpg.ForeignKeyViolationError:
            raise Refused(f"account {key} has numbers; remove them first with `switchboard number remove`") from None
    print(f"account {key} is removed; messages of apps that claim it fail with CHANNEL_CONFIGURATION_MISSING")
    return 0


async def add_number(data: Path | None, account: str, number: str, app_id: str) -> int:
    """Give a number of an account to an app."""
    async with Reach.of(home_of(data)).store() as store:
        found = await _known(store, account)
        if await store.app(AppId(app_id)) is None:
            raise Refused(f"there is no app {app_id}")
        spelled = store.manifests[ChannelName(found.partition(":")[0])].normal_identity(number)
        await store.put_number(found, spelled, AppId(app_id))
    print(f"what people write to {spelled} goes to app {app_id}")
    return 0


async def list_numbers(data: Path | None) -> int:
    """Show whose each number is."""
    async with Reach.of(home_of(data)).pool() as pool:
        rows = await pool.fetch("SELECT account, number, app_id FROM switchboard.provider_numbers ORDER BY 1, 2")
    table = _table("account", "number", "app")
    for row in rows:
        table.add_row(*row)
    _print(table, "no numbers; add one with `switchboard number add`")
    return 0


async def remove_number(data: Path | None, account: str, number: str) -> int:
    """Take a number from its app."""
    async with Reach.of(home_of(data)).pool() as pool:
        gone = await pool.fetchval(
            "DELETE FROM switchboard.provider_numbers WHERE account = $1 AND number = $2 RETURNING 1", account, number
        )
    if gone is None:
        raise Refused(f"account {account} has no number {number}; see `switchboard number list`")
    print(f"number {number} is removed; what people write to it is dropped and counted")
    return 0


async def _known(store: ConfigurationStore, key: str) -> AccountKey:
    if await store.pool.fetchval("SELECT 1 FROM switchboard.provider_accounts WHERE key = $1", key) is None:
        raise Refused(f"there is no account {key}; see `switchboard account list`")
    return AccountKey(key)


def _read(settings: str) -> bytes:
    if settings == "-":
        return sys.stdin.buffer.read()
    return Path(settings[1:]).read_bytes() if settings.startswith("@") else settings.encode()


# -- lanes


async def list_lanes(data: Path | None) -> int:
    """Show every lane, those with most waiting first."""
    async with Reach.of(home_of(data)).pool() as pool:
        lanes = await operate.list_lanes(pool)
    table = _table("lane", "gate", "waiting", "in flight", "per second", "oldest", "owner")
    for lane in lanes:
        table.add_row(
            lane.id, lane.gate.value, str(lane.waiting), f"{lane.in_flight} of {lane.max_in_flight}",
            f"{lane.per_second:g}", f"{lane.oldest_at:%Y-%m-%d %H:%M:%S}" if lane.oldest_at else "", lane.owner or "",
        )  # fmt: skip
    _print(table, "no lanes yet; the first message makes its own")
    return 0


async def pause_lane(data: Path | None, lane: str) -> int:
    """Let nothing start in a lane."""
    async with Reach.of(home_of(data)).pool() as pool:
        await _lane(operate.pause(pool, LaneId(lane)))
    print(f"lane {lane} is paused; what is planned waits until `switchboard lanes resume {lane}`")
    return 0


async def resume_lane(data: Path | None, lane: str) -> int:
    """Open a lane."""
    async with Reach.of(home_of(data)).pool() as pool:
        await _lane(operate.resume(pool, LaneId(lane)))
    print(f"lane {lane} is open")
    return 0


async def purge_lane(data: Path | None, lane: str) -> int:
    """End every message that waits in a dispatch lane."""
    reach = Reach.of(home_of(data))
    async with reach.pool() as pool:
        try:
            told = await operate.purge(pool, LaneId(lane), reach.publish)
        except operate.LaneNotFound as error:
            raise Refused(f"{error}; see `switchboard lanes list`") from None
    print(f"{told} messages of lane {lane} end as FAILED")
    return 0


async def _lane(change: Awaitable[None]) -> None:
    try:
        await change
    except operate.LaneNotFound as error:
        raise Refused(f"{error}; see `switchboard lanes list`") from None


# -- unknowns


async def list_unknowns(data: Path | None, *, every: bool) -> int:
    """Show attempts of which nobody knows whether the provider took them."""
    async with Reach.of(home_of(data)).pool() as pool:
        rows = await pool.fetch(_UNKNOWNS, every)
    table = _table("attempt", "channel", "account", "since", "message is")
    for row in rows:
        table.add_row(
            f"{row['id']}.{row['step']}.{row['submission']}", row["channel"], row["account"] or "",
            f"{row['status_at']:%Y-%m-%d %H:%M:%S}", "given up" if row["final"] else "waiting for a receipt",
        )  # fmt: skip
    _print(table, "no attempt's fate is unknown")
    return 0


async def resolve_unknown(data: Path | None, attempt: str, status: str, why: str) -> int:
    """Say what became of an attempt; the router decides what follows."""
    try:
        message_id, step, submission = parse_attempt_id(attempt)
    except ValueError:
        raise Refused(f"{attempt} is no attempt; `switchboard unknowns list` shows them") from None
    chosen = Status(status.upper())
    reason = Reason(ReasonCode.UNKNOWN, why or "An operator found that it failed.") if chosen is Status.FAILED else None
    reach = Reach.of(home_of(data))
    async with reach.pool() as pool:
        if await pool.fetchval(_ATTEMPT, message_id, step, submission) is None:
            raise Refused(f"there is no attempt {attempt}; `switchboard unknowns list` shows them")
    await reach.publish([UnknownResolved(MessageId(message_id), step, submission, chosen, reason)])
    print(f"told: attempt {attempt} is {chosen}; see `switchboard timeline {message_id}`")
    return 0


_UNKNOWNS: Final = """
SELECT m.id, m.step, m.submission, m.status_at, m.final, coalesce(a.channel, m.channel) AS channel, a.account
FROM switchboard.messages AS m
LEFT JOIN switchboard.attempts AS a ON (a.message_id, a.step, a.submission) = (m.id, m.step, m.submission)
WHERE (NOT m.final AND m.phase = 'UNKNOWN')
   OR ($1 AND m.final AND m.status = 'FAILED' AND convert_from(m.reason, 'UTF8')::jsonb ->> 'code' = 'UNKNOWN')
ORDER BY m.id LIMIT 1000
"""
_ATTEMPT: Final = "SELECT 1 FROM switchboard.attempts WHERE message_id = $1 AND step = $2 AND submission = $3"


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _print(table: Table, empty: str) -> None:
    if table.row_count:
        screen(markup=False).print(table)
    else:
        print(empty)

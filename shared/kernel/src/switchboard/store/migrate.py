"""Brings a database to the schema this code needs.

Files in `switchboard/migrations` are applied in the order of their numbers, each in its own transaction, under one
advisory lock, so that several services may start at once. A file that was applied is never changed: its hash is kept.
"""

import hashlib
import itertools
import re
from datetime import timedelta
from importlib import resources
from typing import Final

import asyncpg
from msgspec import Struct

from switchboard import migrations
from switchboard.ids import lowest_at

_LOCK: Final = 0x5157_1701
_NAME: Final = re.compile(r"(\d{4})_[a-z_]+\.sql")
#: Days with partitions: what may still arrive late, and what begins before the next maintenance.
DAYS_BACK: Final = 6
DAYS_AHEAD: Final = 2


class MigrationError(Exception):
    """The database and this code do not fit together. The text says which migration and why."""


class Migration(Struct, frozen=True):
    """One numbered SQL file."""

    number: int
    name: str
    sql: str

    @property
    def hash(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


def known_migrations() -> list[Migration]:
    """The migrations this code brings, in order. Raises MigrationError if two share a number."""
    found = [
        Migration(int(match[1]), entry.name, entry.read_text(encoding="utf-8"))
        for entry in resources.files(migrations).iterdir()
        if (match := _NAME.fullmatch(entry.name))
    ]
    found.sort(key=lambda migration: migration.number)
    for before, after in itertools.pairwise(found):
        if before.number == after.number:
            raise MigrationError(f"{before.name} and {after.name} have one number")
    return found


async def migrate(dsn: str) -> list[str]:
    """Apply what is missing and make the partitions of the days around now. Returns the names applied.

    Raises MigrationError if an applied file was changed or the database is newer than this code.
    """
    connection = await asyncpg.connect(dsn, command_timeout=60)
    try:
        await connection.execute("SELECT pg_advisory_lock($1)", _LOCK)
        applied = await _apply_missing(connection)
        await make_days(connection)
        return applied
    finally:
        await connection.close()


async def make_days(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Make the daily partitions from `DAYS_BACK` before to `DAYS_AHEAD` after the database's now."""
    now = await connection.fetchval("SELECT switchboard.now()")
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    for offset in range(-DAYS_BACK, DAYS_AHEAD + 1):
        day = today + timedelta(days=offset)
        bounds = lowest_at(day), lowest_at(day + timedelta(days=1))
        await connection.execute("SELECT switchboard.make_day($1, $2, $3)", f"{day:%Y%m%d}", *bounds)


async def _apply_missing(connection: "asyncpg.Connection[asyncpg.Record]") -> list[str]:
    await connection.execute("CREATE SCHEMA IF NOT EXISTS switchboard")
    await connection.execute(
        "CREATE TABLE IF NOT EXISTS switchboard.migrations ("
        " number integer PRIMARY KEY, name text NOT NULL, hash text NOT NULL, applied_at timestamptz NOT NULL)"
    )
    rows = await connection.fetch("SELECT number, name, hash FROM switchboard.migrations")
    done = {row["number"]: row for row in rows}
    known = known_migrations()
    if newer := set(done) - {migration.number for migration in known}:
        raise MigrationError(f"the database has migration {max(newer):04}, which this version does not know")
    applied = []
    for migration in known:
        if row := done.get(migration.number):
            if row["hash"] != migration.hash:
                raise MigrationError(f"{migration.name} was changed after it was applied")
            continue
        async with connection.transaction():
            await connection.execute(migration.sql)
            await connection.execute(
                "INSERT INTO switchboard.migrations VALUES ($1, $2, $3, clock_timestamp())",
                migration.number, migration.name, migration.hash,
            )  # fmt: skip
        applied.append(migration.name)
    return applied

"""The database pool, with time-outs everywhere (DESIGN 5)."""

import asyncio
from collections.abc import Mapping
from datetime import datetime
from typing import Final, TypeAlias

import asyncpg

#: What code that talks to the database is handed.
Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"

COMMAND_TIMEOUT_SECONDS: Final = 10.0
ACQUIRE_TIMEOUT_SECONDS: Final = 5.0
CONNECT_TIMEOUT_SECONDS: Final = 5.0
#: A process that is frozen in a transaction holds its locks no longer than this.
IDLE_TRANSACTION_SECONDS: Final = 10.0

#: Every statement here finds its rows by an index. A table of the day begins each midnight without statistics, and a
#: planner that takes it for empty reads it whole, once for each batch, under the locks of its transaction: measured at
#: 50 messages a second, 6.6 ms for a look into a timeline of 20,000 rows that an index answers in 0.03. Nor is a bitmap
#: made: where next to nothing is expected it is thought as cheap as the index, and reads a line of a million to find
#: its first thousand.
PLANS_WITHOUT_STATISTICS: Final = {
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",
}
#: For pages of lists, whose conditions are switched on and off by their parameters: a plan for all of them would read
#: every earlier page to find the next one.
PLANS_FOR_EACH_CALL: Final = {**PLANS_WITHOUT_STATISTICS, "plan_cache_mode": "force_custom_plan"}

#: The database is away or busy: what was asked for may be asked again.
TRANSIENT_ERRORS: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    # A query on a connection whose server said goodbye and whose end is not read yet: nothing of it was sent.
    asyncpg.InternalClientError,
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.QueryCanceledError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.DiskFullError,
    asyncio.TimeoutError,
    ConnectionError,
    OSError,
)


async def open_pool(
    dsn: str,
    *,
    size: int,
    service: str,
    plans: Mapping[str, str] = PLANS_WITHOUT_STATISTICS,
    idle_transaction_seconds: float = IDLE_TRANSACTION_SECONDS,
) -> Pool:
    """Open a pool of at most `size` connections that find the tables without a schema name.

    `plans` says how statements are planned. The server ends a transaction in which nothing is said for
    `idle_transaction_seconds`.
    """
    pool: Pool = await asyncpg.create_pool(
        dsn,
        min_size=1,
        max_size=size,
        timeout=CONNECT_TIMEOUT_SECONDS,
        command_timeout=COMMAND_TIMEOUT_SECONDS,
        max_inactive_connection_lifetime=300,
        reset=_leave_as_it_is,
        server_settings={
            "search_path": "switchboard, public",
            "application_name": service,
            "idle_in_transaction_session_timeout": f"{idle_transaction_seconds * 1000:.0f}ms",
            **plans,
        },
    )
    return pool


async def database_now(connection: Connection) -> datetime:
    """The database's time: what rules and deadlines are measured by."""
    now: datetime = await connection.fetchval("SELECT switchboard.now()")
    return now


async def _leave_as_it_is(connection: Connection) -> None:
    """Nothing is done to a connection that comes back; an open transaction was rolled back before.

    By default each return costs a round trip and four statements, as much as many a batch itself. Here nothing
    outlives a transaction: settings and advisory locks are local to it, cursors are not held, and whoever listens
    stops by himself.
    """

"""What every process's database pool promises the others."""

from __future__ import annotations

import pytest

from switchboard.store.pool import TRANSIENT_ERRORS, open_pool
from switchboard.testing import wait_until


async def test_a_process_frozen_in_a_transaction_does_not_hold_its_locks_for_ever(database: str) -> None:
    frozen = await open_pool(database, size=1, service="frozen", idle_transaction_seconds=0.2)
    other = await open_pool(database, size=1, service="other")
    connection = await frozen.acquire()
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute("SELECT shift FROM switchboard.clock FOR UPDATE")

    async def is_free() -> bool:
        row = await other.fetchrow("SELECT shift FROM switchboard.clock FOR UPDATE SKIP LOCKED")
        return row is not None

    assert not await is_free()
    await wait_until(is_free)
    with pytest.raises(TRANSIENT_ERRORS):
        await connection.execute("SELECT 1")
    frozen.terminate()
    await other.close()

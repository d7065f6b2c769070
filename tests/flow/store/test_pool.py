"""What a broken database connection raises."""

from typing import Any

import asyncpg
import pytest

from switchboard.store.pool import TRANSIENT_ERRORS

#: What a connection is sent when the server dies under it: an ErrorResponse with severity and code.
_SERVER_DIED = b"SFATAL\0VFATAL\0C57P01\0Mterminating connection due to unexpected postmaster exit\0\0"


async def test_a_connection_whose_server_died_while_it_was_idle_is_a_transient_error(postgres_dsn: str) -> None:
    """Its goodbye was read and its end not yet: asyncpg calls a query in between an error of its own."""
    connection: Any = await asyncpg.connect(postgres_dsn)
    try:
        length = (len(_SERVER_DIED) + 4).to_bytes(4, "big")
        connection._protocol.data_received(b"E" + length + _SERVER_DIED)

        with pytest.raises(TRANSIENT_ERRORS):
            await connection.fetchval("SELECT 1")
    finally:
        connection.terminate()

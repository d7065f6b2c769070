"""Calls that succeed and still raise a timeout: a share of database, broker and HTTP calls of a service under test.

Python runs this before anything else in a process that has this folder on its path.
`SWITCHBOARD_FAULTS_SHARE` is the share, `SWITCHBOARD_FAULTS_SEED` makes the choice repeatable;
`SWITCHBOARD_FAULTS_CALLS` names the kinds of calls, comma-separated, all of them unless set.
"""

import functools
import os
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any

_share = float(os.environ.get("SWITCHBOARD_FAULTS_SHARE", "0"))
_calls = os.environ.get("SWITCHBOARD_FAULTS_CALLS", "database,broker,http").split(",")
_chance = random.Random(os.environ.get("SWITCHBOARD_FAULTS_SEED", "1"))
_started = time.monotonic()
#: A service that is just starting is left alone: what it does then, a restart does again.
_SPARED_SECONDS = 5.0


def _after_success(
    owner: type, name: str, error: Callable[[tuple[Any, ...]], Exception], only: Callable[..., bool] = lambda *_: True
) -> None:
    """Let a method do its work, and then sometimes say that it timed out."""
    method: Callable[..., Awaitable[Any]] = getattr(owner, name)

    @functools.wraps(method)
    async def wrapped(*args: Any, **kwargs: Any) -> Any:
        done = await method(*args, **kwargs)
        if only(*args) and time.monotonic() - _started > _SPARED_SECONDS and _chance.random() < _share:
            raise error(args)
        return done

    setattr(owner, name, wrapped)


def _database() -> None:
    from asyncpg.connection import Connection
    from asyncpg.transaction import Transaction

    for name in ("execute", "fetch", "fetchrow", "fetchval", "copy_records_to_table"):
        _after_success(Connection, name, lambda _: TimeoutError())
    # A commit that is done, and not heard of.
    _after_success(Transaction, "__aexit__", lambda _: TimeoutError(), only=lambda _, kind, *__: kind is None)


def _broker() -> None:
    from aiokafka import AIOKafkaConsumer
    from aiokafka.errors import KafkaTimeoutError

    from switchboard.bus import Producer
    from switchboard.bus.errors import PublishFailed

    _after_success(Producer, "publish", lambda args: PublishFailed(range(len(args[1])), "injected"))
    _after_success(AIOKafkaConsumer, "commit", lambda _: KafkaTimeoutError())


def _http() -> None:
    from switchboard.http.client import NoAnswer
    from switchboard.http.guarded import GuardedHttpClient
    from switchboard.http.pooled import PooledHttpClient

    for client in (GuardedHttpClient, PooledHttpClient):
        _after_success(client, "request", lambda _: NoAnswer("injected"))


if _share:
    for _name, _inject in (("database", _database), ("broker", _broker), ("http", _http)):
        if _name in _calls:
            _inject()

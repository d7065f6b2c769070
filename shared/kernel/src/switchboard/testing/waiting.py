"""Waiting for something to become true: the one place in the tests that looks again and again."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, overload

T = TypeVar("T")

_LOOK_SECONDS = 0.01


@overload
async def wait_until(
    condition: Callable[[], Awaitable[T]],
    timeout_seconds: float = ...,
    describe: str | Callable[[], object] = ...,
) -> T: ...
@overload
async def wait_until(
    condition: Callable[[], T],
    timeout_seconds: float = ...,
    describe: str | Callable[[], object] = ...,
) -> T: ...
async def wait_until(
    condition: Callable[[], Any],
    timeout_seconds: float = 10.0,
    describe: str | Callable[[], object] = "",
) -> Any:
    """Call `condition` until it returns something true, and return that.

    `describe` says what was waited for; called at the end of the wait, it may say how things stand instead.
    Raises AssertionError after `timeout_seconds`, with that and the last value in its text. An exception of
    the condition is the test's failure at once.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_seconds
    while True:
        seen = condition()
        value = await seen if inspect.isawaitable(seen) else seen
        if value:
            return value
        if loop.time() >= deadline:
            what = describe() if callable(describe) else describe
            raise AssertionError(
                f"not so within {timeout_seconds:g} s: {what or repr(condition)}; the last look gave {value!r}"
            )
        await asyncio.sleep(_LOOK_SECONDS)

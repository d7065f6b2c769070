"""What the sinks share: a process that answers questions of its parent, one JSON line each, on its standard streams."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec
import uvloop

Answers = Mapping[str, Callable[[dict[str, Any]], Any]]

#: Room for an answer that lists every id of a run.
_LINE_BYTES: Final = 256 * 1024 * 1024


def serve(start: Callable[[], Any], answers: Answers) -> None:
    """Run a sink: `start` returns what the first line tells, then each line asks for one of `answers`."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        lines = asyncio.StreamReader(limit=_LINE_BYTES)
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
        _say(await start())
        while line := await lines.readline():
            question = msgspec.json.decode(line)
            _say(answers[question.pop("ask")](question))

    # What it keeps lives as long as it does: looking through it again and again would be counted as its work.
    gc.freeze()
    gc.disable()
    uvloop.run(run())


def _say(answer: Any) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
    sys.stdout.buffer.flush()


class Sink:
    """A sink's process, as its parent sees it."""

    def __init__(self, process: asyncio.subprocess.Process, told: Any) -> None:
        self._process = process
        self._turn = asyncio.Lock()
        #: What its first line told: the port it listens on.
        self.told = told

    @property
    def pid(self) -> int:
        return self._process.pid

    async def ask(self, what: str, **more: Any) -> Any:
        """One question."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        async with self._turn:
            self._process.stdin.write(msgspec.json.encode({"ask": what, **more}) + b"\n")
            return msgspec.json.decode(await self._process.stdout.readline())


@asynccontextmanager
async def sink(module: str) -> AsyncIterator[Sink]:
    """A sink of this module, until the block ends. It ends with its standard input, so it never outlives us."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=_LINE_BYTES,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield Sink(process, msgspec.json.decode(await process.stdout.readline()))
    finally:
        process.stdin.close()
        await process.wait()

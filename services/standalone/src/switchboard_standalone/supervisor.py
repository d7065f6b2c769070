"""Runs named processes: starts them in order, waits until they answer, restarts those that end, stops all.

Every process is a `ChildProcess`: it dies with us, however we die.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from msgspec import Struct
from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import PyreqwestError

from switchboard.embedded import ChildProcess, EmbeddedError

#: Above the time a service takes at most to stop by itself.
STOP_SECONDS: Final = 25.0
_LOOK_SECONDS: Final = 0.05
_PROBE_SECONDS: Final = 1.0


class ServiceFailed(Exception):
    """A service did not come up. The text is one line with its last words and where its log is."""


class Service(Struct, frozen=True):
    """One process to run."""

    #: As people know it: in events, in `pids`, as the name of its log.
    name: str
    command: tuple[str, ...]
    #: The whole environment it gets.
    environment: Mapping[str, str]
    #: Answers 200 as soon as the service works.
    ready_url: str
    #: Services that have to be ready before this one starts.
    after: tuple[str, ...] = ()
    ready_seconds: float = 60.0
    #: Services that go on until this one has stopped.
    stops_before: tuple[str, ...] = ()
    #: Added to the environment of its first run only: a process told to crash does not crash again and again.
    first_environment: Mapping[str, str] = {}


class RestartPolicy(Struct, frozen=True):
    """How long to wait before a service that ended is started again. Times in seconds."""

    first_seconds: float = 0.2
    factor: float = 2.0
    longest_seconds: float = 30.0
    #: Who ran at least this long is not counted as failing again and again.
    steady_seconds: float = 60.0

    def failures(self, before: int, ran_seconds: float) -> int:
        """How many ends in a row this one makes, after a run of `ran_seconds`."""
        return 1 if ran_seconds >= self.steady_seconds else before + 1

    def delay_seconds(self, failures: int) -> float:
        """The wait before the start that follows this many ends in a row."""
        # The exponent is bounded: a float cannot hold the power of a day of failures.
        return min(self.first_seconds * self.factor ** min(failures - 1, 64), self.longest_seconds)


class Started(Struct, frozen=True):
    """A service's process runs."""

    name: str
    pid: int


class Ready(Struct, frozen=True):
    """A service works."""

    name: str
    after: timedelta


class Ended(Struct, frozen=True):
    """A service ended by itself and starts again after the delay. A minus sign names a signal."""

    name: str
    returncode: int
    restart_in_seconds: float
    last_words: str


class NotRestarted(Struct, frozen=True):
    """A service that ended could not be started again; another try follows after the delay."""

    name: str
    reason: str
    restart_in_seconds: float


class Stopped(Struct, frozen=True):
    """A service was stopped because we stop."""

    name: str
    returncode: int | None


class ServerRestarted(Struct, frozen=True):
    """An embedded server that ended by itself runs again, with its data. Told by who keeps the servers."""

    name: str


Event = Started | Ready | Ended | NotRestarted | Stopped


class Supervisor:
    """The processes of one `switchboard up`. Use it in the main thread's event loop, as a context manager.

    Entering starts everything and returns when all are ready; with nothing left running it raises
    ServiceFailed when one does not come up, FolderUnusable when a log cannot be written. From then on a
    service that ends is started again. Leaving stops all side by side, each after those that need it.
    """

    def __init__(
        self,
        services: Sequence[Service],
        *,
        logs: Path,
        tell: Callable[[Event], None] = lambda _: None,
        policy: RestartPolicy | None = None,
    ) -> None:
        """Describe what to run; `logs` is the folder of the services' output, `tell` hears every change."""
        _check_order(services)
        self._services = tuple(services)
        self._tell = tell
        self._policy = policy or RestartPolicy()
        self._logs = logs
        self._children = {
            service.name: self._child(service, {**service.environment, **service.first_environment})
            for service in services
        }
        self._ready = {service.name: asyncio.Event() for service in services}
        self._keepers: list[asyncio.Task[None]] = []
        self._client: Client | None = None

    @property
    def pids(self) -> dict[str, int]:
        """Process ids of what runs now, by service name."""
        return {name: child.pid for name, child in self._children.items() if child.pid is not None}

    async def __aenter__(self) -> Self:
        # Loopback only: a proxy of the environment is not asked.
        self._client = ClientBuilder().no_proxy().timeout(timedelta(seconds=_PROBE_SECONDS)).build()
        try:
            await self._bring_all_up()
        except BaseException:
            await self._stop()
            raise
        self._keepers = [
            asyncio.create_task(self._keep(service), name=f"keep {service.name}") for service in self._services
        ]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    async def watch(self) -> None:
        """Return only when we stop; raises what kept a service from being looked after, a bug of ours."""
        await asyncio.gather(*self._keepers)

    async def _bring_all_up(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for service in self._services:
                    group.create_task(self._bring_up(service))
        except ExceptionGroup as failures:
            # Those that fail together mostly fail for one reason; the first says it.
            raise failures.exceptions[0] from None

    async def _bring_up(self, service: Service) -> None:
        """Start a service when those before it are ready, and return when it is ready itself."""
        for name in service.after:
            await self._ready[name].wait()
        self._start(service)
        await self._until_ready(service, service.ready_seconds)

    def _start(self, service: Service) -> None:
        child = self._children[service.name]
        child.start()
        if child.pid is not None:
            self._tell(Started(service.name, child.pid))

    def _child(self, service: Service, environment: Mapping[str, str]) -> ChildProcess:
        return ChildProcess(
            service.name,
            service.command,
            log=self._logs / f"{service.name}.log",
            environment=environment,
            grace_seconds=STOP_SECONDS,
        )

    async def _until_ready(self, service: Service, seconds: float = math.inf) -> None:
        """Raises ServiceFailed when the process ends first, or the seconds are over."""
        child = self._children[service.name]
        clock = asyncio.get_running_loop().time
        begun = clock()
        while not await self._answers(service.ready_url):
            if not child.running:
                raise ServiceFailed(
                    f"{service.name} ended while starting (exit {child.returncode}); "
                    f"it said: {_last_words(child)}; the whole log is {child.log}"
                )
            if clock() - begun > seconds:
                raise ServiceFailed(
                    f"{service.name} was not ready within {seconds:g} s; "
                    f"it said: {_last_words(child)}; the whole log is {child.log}"
                )
            await asyncio.sleep(_LOOK_SECONDS)
        self._ready[service.name].set()
        self._tell(Ready(service.name, timedelta(seconds=clock() - begun)))

    async def _answers(self, url: str) -> bool:
        assert self._client is not None
        try:
            response = await self._client.get(url).build().send()
        except PyreqwestError:
            return False
        return response.status == 200

    async def _keep(self, service: Service) -> None:
        """Start the service again whenever it ends, until we are cancelled."""
        clock = asyncio.get_running_loop().time
        failures = 0
        while True:
            begun = clock()
            child = self._children[service.name]
            returncode = await child.ended()
            failures = self._policy.failures(failures, clock() - begun)
            delay = self._policy.delay_seconds(failures)
            self._tell(Ended(service.name, returncode, delay, _last_words(child)))
            await asyncio.sleep(delay)
            if service.first_environment:
                self._children[service.name] = self._child(service, service.environment)
            while not (await self._started_again(service, delay)):
                failures += 1
                delay = self._policy.delay_seconds(failures)
                await asyncio.sleep(delay)

    async def _started_again(self, service: Service, delay: float) -> bool:
        """Start a service, follow it until it is ready or gone. False when it could not even start."""
        try:
            self._start(service)
            await self._until_ready(service)
        except EmbeddedError as error:  # its log cannot be written: disks fill and are emptied
            self._tell(NotRestarted(service.name, str(error), delay))
            return False
        except ServiceFailed:
            return True  # it ended again, which is told and counted like any end
        return True

    async def _stop(self) -> None:
        """Stop keeping, then stop every process, the last started first."""
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        self._keepers = []
        stopped = {service.name: asyncio.Event() for service in self._services}
        await asyncio.gather(*(self._stop_one(service, stopped) for service in self._services))
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def _stop_one(self, service: Service, stopped: Mapping[str, asyncio.Event]) -> None:
        for other in self._services:
            if service.name in (*other.after, *other.stops_before):
                await stopped[other.name].wait()
        child = self._children[service.name]
        if child.running:
            self._tell(Stopped(service.name, await asyncio.to_thread(child.stop)))
        stopped[service.name].set()


def _check_order(services: Sequence[Service]) -> None:
    """Every service comes after those it waits for or outlives it, so that none waits for itself."""
    seen: set[str] = set()
    for service in services:
        if unknown := {*service.after, *service.stops_before} - seen:
            raise ValueError(f"{service.name} waits for {', '.join(sorted(unknown))}, which is not before it")
        if service.name in seen:
            raise ValueError(f"two services are called {service.name}")
        seen.add(service.name)


def _last_words(child: ChildProcess) -> str:
    return next((line.strip()[:300] for line in reversed(child.log_tail()) if line.strip()), "nothing")

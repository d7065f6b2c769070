"""What every service process does around its own work: settings, logs, pool, signals, health, a clean end.

A service is `run("router", RouterSettings, compose)`, where `compose` is an async context manager that builds
everything from the `Runtime`, yields once it works, and takes it down again in order.
"""

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager
from typing import Any, Final, Generic, TypeVar

import structlog
import uvicorn
import uvloop
from prometheus_client import REGISTRY, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from switchboard.settings import CommonSettings, SettingsError, read_settings
from switchboard.store.pool import PLANS_WITHOUT_STATISTICS, TRANSIENT_ERRORS, Pool, open_pool

EXIT_BAD_SETTINGS: Final = 2
EXIT_FATAL: Final = 70
#: How long a service may take to stop before it is cut short: drains fit in, and Kubernetes waits 30 s.
STOP_SECONDS: Final = 28
_DATABASE_WAIT_SECONDS: Final = 60
#: Live objects a service may gain before garbage is looked for: far above what thousands of messages under way hold.
_OBJECTS_TO_COLLECTION: Final = 200_000

S = TypeVar("S", bound=CommonSettings)
#: Answers whether a part works; its name is told when it does not.
Check = Callable[[], bool]

log = structlog.get_logger()


class Runtime(Generic[S]):
    """What a composition root is handed, and where it registers what the process must watch."""

    def __init__(self, service: str, settings: S, pool: Pool) -> None:
        self.service = service
        self.settings = settings
        self.pool = pool
        #: The service's own HTTP application; health and metrics are answered beside it.
        self.app: ASGIApp | None = None
        self._alive: dict[str, Check] = {}
        self._ready: dict[str, Check] = {}
        self._stop = asyncio.Event()
        self._fatal: str | None = None

    def check_alive(self, name: str, check: Check) -> None:
        """Make liveness depend on `check`: if it says no, the process should be replaced."""
        self._alive[name] = check

    def check_ready(self, name: str, check: Check) -> None:
        """Make readiness depend on `check`: if it says no, send no work here."""
        self._ready[name] = check

    def fail(self, why: str) -> None:
        """End the process with a non-zero code: something is wrong that only a new process can mend."""
        log.error("fatal", service=self.service, why=why)
        self._fatal = why
        self._stop.set()

    def stop(self) -> None:
        """End the process in good order."""
        self._stop.set()

    async def stopped(self) -> str | None:
        """Wait for the end. Returns why, if it is a failure."""
        await self._stop.wait()
        return self._fatal

    def health_app(self) -> ASGIApp:
        """Liveness, readiness and metrics, and the service's own application for every other path."""
        health = Starlette(
            routes=[
                Route("/health/live", self._answer(self._alive)),
                Route("/health/ready", self._answer(self._ready)),
                Route("/metrics", _metrics),
            ]
        )
        own = self.app

        async def app(scope: Any, receive: Any, send: Any) -> None:
            if own is None or scope["type"] == "lifespan" or scope["path"].startswith(("/health/", "/metrics")):
                await health(scope, receive, send)
            else:
                await own(scope, receive, send)

        return app

    @staticmethod
    def _answer(checks: dict[str, Check]) -> Callable[[Request], Awaitable[Response]]:
        async def answer(_: Request) -> Response:
            failing = [name for name, check in checks.items() if not check()]
            return JSONResponse({"failing": failing}, status_code=503 if failing else 200)

        return answer


Compose = Callable[[Runtime[S]], AbstractAsyncContextManager[None]]


def run(
    service: str, kind: type[S], compose: Compose[S], *, plans: Mapping[str, str] = PLANS_WITHOUT_STATISTICS
) -> None:
    """Run a service process to its end, and exit with a code that says how it ended.

    `plans` says how the statements on its pool are planned (`store.pool`).
    """
    try:
        settings = read_settings(kind)
    except SettingsError as error:
        sys.stderr.write(f"{service}: {error}\n")
        sys.exit(EXIT_BAD_SETTINGS)
    configure_logs(service, settings.log_level)
    try:
        fatal = uvloop.run(_serve(service, settings, compose, plans))
    except SettingsError as error:
        sys.stderr.write(f"{service}: {error}\n")
        sys.exit(EXIT_BAD_SETTINGS)
    # Everything is closed. A client library's native threads may abort an interpreter that finalises under them.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(EXIT_FATAL if fatal else 0)


def spare_collections() -> None:
    """Collect garbage seldom, and never again look at what start-up made: it lives as long as the process.

    Records, rows and messages make no cycles. The default looks for some after every 700 new objects, which is every
    few messages, and through all that is alive each time that has grown by a quarter.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_OBJECTS_TO_COLLECTION, 20, 20)


async def _serve(service: str, settings: S, compose: Compose[S], plans: Mapping[str, str]) -> str | None:
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        pool = await _database(service, settings, plans)
        stack.push_async_callback(_close, pool)
        runtime = Runtime(service, settings, pool)
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, runtime.stop)
        await stack.enter_async_context(compose(runtime))
        spare_collections()
        server = await start_server(runtime.health_app(), settings.host, settings.port)
        stack.push_async_callback(server.stop)
        log.info("ready", service=service, port=server.port)
        fatal = await runtime.stopped()
        loop.call_later(STOP_SECONDS, _cut_short, service)
    return fatal


class HttpServer:
    """One uvicorn server inside this process's loop."""

    def __init__(self, server: uvicorn.Server, task: "asyncio.Task[None]", port: int) -> None:
        self._server = server
        self._task = task
        #: The port it really listens on.
        self.port = port

    async def stop(self) -> None:
        """Finish what is being answered, then close."""
        self._server.should_exit = True
        await self._task


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the process has its own."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def start_server(app: ASGIApp, host: str, port: int) -> HttpServer:
    """Serve `app` and return once it listens. Raises OSError if the port is taken."""
    config = uvicorn.Config(
        app, loop="none", http="httptools", lifespan="off", access_log=False, log_config=None,
        timeout_keep_alive=75, timeout_graceful_shutdown=5, backlog=2048,
    )  # fmt: skip
    listener = _listening_socket(host, port)
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:
        if task.done():
            await task
            raise OSError("the HTTP server ended before it listened")
        await asyncio.sleep(0.005)
    return HttpServer(server, task, listener.getsockname()[1])


def _listening_socket(host: str, port: int) -> socket.socket:
    """A listening socket on host and port (0: a free one)."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    return listener


def configure_logs(service: str, level: str) -> None:
    """One structured JSON line a record on standard error, for our own code and the libraries alike."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    number = logging.getLevelNamesMapping().get(level.upper(), logging.INFO)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(number),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.EventRenamer("message"),
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(number)
    # Libraries report each reconnect try at ERROR; what matters of it is in our own lines and metrics.
    for noisy in ("aiokafka", "faststream", "uvicorn", "asyncio"):
        logging.getLogger(noisy).setLevel(max(number, logging.WARNING))
    structlog.contextvars.bind_contextvars(service=service)


async def _database(service: str, settings: CommonSettings, plans: Mapping[str, str]) -> Pool:
    """Open the pool, waiting for a database that is just starting."""
    deadline = asyncio.get_running_loop().time() + _DATABASE_WAIT_SECONDS
    while True:
        try:
            return await open_pool(
                settings.postgres_dsn.get_secret_value(), size=settings.pool_size, service=service, plans=plans
            )
        except TRANSIENT_ERRORS as error:
            if asyncio.get_running_loop().time() > deadline:
                raise
            log.warning("the database does not answer yet", error=type(error).__name__)
            await asyncio.sleep(0.5)


async def _close(pool: Pool) -> None:
    try:
        await asyncio.wait_for(pool.close(), 5)
    except TimeoutError:
        pool.terminate()


async def _metrics(_: Request) -> Response:
    return Response(generate_latest(REGISTRY), media_type="text/plain; version=0.0.4")


def _cut_short(service: str) -> None:
    log.error("did not stop in time", service=service, seconds=STOP_SECONDS)
    os._exit(EXIT_FATAL)

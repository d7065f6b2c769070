"""The composition root: one process, one HTTP port, one SMPP port."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import uvicorn
from prometheus_client import REGISTRY, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from switchboard_simulator.answers import OpenConnection
from switchboard_simulator.control import Control
from switchboard_simulator.page.endpoint import Page
from switchboard_simulator.settings import SimulatorSettings
from switchboard_simulator.world import World

_EVERY_METHOD = ["GET", "POST", "PUT", "PATCH", "DELETE"]


def build_app(world: World) -> Starlette:
    """Every path the simulator answers."""
    # Routes are tried in order: what load tests call comes first.
    routes = [
        Route("/bot{token}/{method}", world.bot_api.call, methods=["GET", "POST"]),
        Route("/file/bot{token}/files/{file_id}/{name}", world.bot_api.download),
        Route("/receiver/{name}", world.receiver.take, methods=_EVERY_METHOD),
        Route("/receiver/{name}/{rest:path}", world.receiver.take, methods=_EVERY_METHOD),
        *Page(world).routes(),
        *Control(world).routes(),
        Route("/health/live", _healthy),
        Route("/health/ready", _healthy),
        Route("/metrics", _metrics),
    ]
    return Starlette(routes=routes)


@asynccontextmanager
async def running(settings: SimulatorSettings) -> AsyncIterator[World]:
    """The whole simulator, from listening to the last line written. Raises OSError when a port is taken."""
    world = World(settings)
    listener = _listen(settings.host, settings.port)
    try:
        await world.start()
        world.ports["http"] = listener.getsockname()[1]
        server = _Server(
            uvicorn.Config(
                build_app(world), http=OpenConnection, ws="none", loop="none", lifespan="off", log_config=None,
                access_log=False, timeout_graceful_shutdown=3, backlog=2048,
            )
        )  # fmt: skip
        serving = asyncio.create_task(server.serve([listener]))
        await server.listening(serving)
        if settings.ports_file is not None:
            _write_whole(settings, world.ports)
        try:
            yield world
        finally:
            world.begin_stop()
            server.should_exit = True
            await serving
    finally:
        await world.stop()
        listener.close()


class _Server(uvicorn.Server):
    """uvicorn inside a loop that is not its own: it says when it listens and leaves signals alone."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._listens = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._listens.set()

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        await self._serve(sockets)

    async def listening(self, serving: "asyncio.Task[None]") -> None:
        """Wait until it listens, or raise what kept it from listening."""
        waiting = asyncio.create_task(self._listens.wait())
        await asyncio.wait((serving, waiting), return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            waiting.cancel()
            await serving
            raise OSError("the HTTP server ended before it listened")


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener


def _write_whole(settings: SimulatorSettings, ports: dict[str, int]) -> None:
    """Write the ports file so that whoever waits for it never reads half of it."""
    assert settings.ports_file is not None
    settings.ports_file.parent.mkdir(parents=True, exist_ok=True)
    draft = settings.ports_file.with_name(settings.ports_file.name + ".new")
    draft.write_bytes(msgspec.json.encode(ports))
    draft.replace(settings.ports_file)


async def _healthy(_: Request) -> Response:
    return JSONResponse({"failing": []})


async def _metrics(_: Request) -> Response:
    return Response(generate_latest(REGISTRY), media_type="text/plain; version=0.0.4")

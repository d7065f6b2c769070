"""Takes messages over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import uvicorn
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route
from tests.benchmarks.ordinary.models import Accepted, SendRequest
from tests.benchmarks.ordinary.parts import Settings, start_producer

from switchboard.ids import mint

settings = Settings.read()


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    app.state.producer = await start_producer(settings)
    yield
    await app.state.producer.stop()


async def send(request: Request) -> JSONResponse:
    try:
        wanted = SendRequest.model_validate_json(await request.body())
    except ValidationError as error:
        return JSONResponse({"error": str(error)}, status_code=400)
    accepted = Accepted(
        message_id=mint(), project_id=request.path_params["project"], accepted_at=datetime.now(UTC), request=wanted
    )
    recipient = wanted.recipient.identified_by.channel_identities[0]
    await request.app.state.producer.send_and_wait(
        settings.prefix + "accepted", accepted.model_dump_json().encode(), key=recipient.identity.encode()
    )
    return JSONResponse({"message_id": accepted.message_id, "accepted_time": accepted.accepted_at.isoformat()})


async def ready(request: Request) -> PlainTextResponse:
    return PlainTextResponse("ready")


app = Starlette(
    routes=[Route("/v1/projects/{project}/messages:send", send, methods=["POST"]), Route("/ready", ready)],
    lifespan=lifespan,
)

if __name__ == "__main__":
    uvicorn.run(app, port=settings.port, log_level="warning", access_log=False)

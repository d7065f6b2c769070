"""The HTTP application: who may call, what is called, and every refusal in one form.

`messages:send` is answered on the raw ASGI interface, which costs least; all else goes through Starlette's routes.
"""

import re
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final
from urllib.parse import parse_qsl

import structlog
from msgspec import Struct
from prometheus_client import Counter
from starlette.requests import Request
from starlette.routing import Match, Route, Router
from starlette.types import Receive, Scope, Send

from switchboard.ids import ProjectId
from switchboard.store.pool import TRANSIENT_ERRORS
from switchboard.validation import Violation
from switchboard_ingress.apps import Apps
from switchboard_ingress.auth import Authenticator
from switchboard_ingress.body import Body
from switchboard_ingress.callbacks import Callbacks
from switchboard_ingress.capability import Capabilities
from switchboard_ingress.checks import NO_NUL
from switchboard_ingress.consents import Consents
from switchboard_ingress.contacts import Contacts
from switchboard_ingress.conversations import Conversations
from switchboard_ingress.errors import (
    Answer,
    ApiError,
    BadRequest,
    Internal,
    NotFound,
    NotImplementedHere,
    TooLarge,
    Unavailable,
    success,
)
from switchboard_ingress.events import Events
from switchboard_ingress.explain import Explaining
from switchboard_ingress.limits import ProjectRate
from switchboard_ingress.messages import Messages, read_source
from switchboard_ingress.patching import mask_of
from switchboard_ingress.requests import MessagePatch
from switchboard_ingress.send import Sending
from switchboard_ingress.timelines import Timelines
from switchboard_ingress.webhooks import Webhooks

log = structlog.get_logger(__name__)

_PROJECT: Final = re.compile(r"/v[12]/projects/([^/]+)/")
_SEND: Final = "/messages:send"
_JSON_TYPE: Final = re.compile(rb"\s*application/(?:[a-z0-9.+-]+\+)?json\s*(?:;.*)?", re.IGNORECASE | re.DOTALL)
_requests: Final = Counter("switchboard_api_requests", "Answered requests of the API.", ["status"])
_message_patch: Final = Body(MessagePatch)

#: Operations of the contract that this version does not have: 501 instead of 404 (conversation-api 3).
_NOT_BUILT: Final = (
    "/messages:transcode",
    "/settings",
    "/templates", "/templates/{id}", "/templates/{id}/translations", "/optins:register", "/optouts:register",
)  # fmt: skip


class ClientGone(Exception):
    """The client hung up before it had said all."""


class Call(Struct, frozen=True):
    """One request whose caller is known."""

    project_id: ProjectId
    path: dict[str, str]
    query: tuple[tuple[str, str], ...]
    body: bytes

    @property
    def filters(self) -> dict[str, str]:
        """The query as a mapping; of repeated names the last counts."""
        return dict(self.query)


Operation = Callable[[Call], Awaitable[Any]]


class Api:
    """The whole HTTP surface of ingress."""

    def __init__(
        self,
        auth: Authenticator,
        rate: ProjectRate,
        sending: Sending,
        messages: Messages,
        apps: Apps,
        webhooks: Webhooks,
        callbacks: Callbacks,
        explaining: Explaining,
        timelines: Timelines,
        events: Events,
        capabilities: Capabilities,
        consents: Consents,
        contacts: Contacts,
        conversations: Conversations,
        max_body_bytes: int,
    ) -> None:
        self._auth = auth
        self._rate = rate
        self._sending = sending
        self._max_body_bytes = max_body_bytes
        self._router = _router(
            messages, apps, webhooks, callbacks, explaining, timelines, events, capabilities, consents, contacts,
            conversations,
        )  # fmt: skip

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"{scope['type']} is not spoken here")
        try:
            answer = await self._answer(scope, receive)
        except ClientGone:
            return
        except ApiError as error:
            answer = error.answer()
        except TRANSIENT_ERRORS as error:
            log.warning("the database does not answer", error=type(error).__name__)
            answer = Unavailable("The database does not answer: try again.").answer()
        except Exception:
            log.exception("a request failed", method=scope["method"])
            answer = Internal().answer()
        _requests.labels(answer.status).inc()
        await _respond(send, answer)

    async def _answer(self, scope: Scope, receive: Receive) -> Answer:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        path: str = scope["path"]
        authorization = headers.get(b"authorization", b"").decode("latin-1")
        if path == "/oauth2/token":
            return await self._token(scope, receive, headers, authorization)
        match = _PROJECT.match(path)
        if match is None:
            raise NotFound("There is no such endpoint.")
        project_id = ProjectId(match[1])
        await self._auth.check(authorization, project_id)
        self._rate.take(project_id)
        rest = path[match.end() - 1 :]
        if rest == _SEND and scope["method"] == "POST" and path.startswith("/v1/"):
            body = await self._read(receive, headers)
            _check_json(headers, body)
            key = headers.get(b"idempotency-key", b"").decode("latin-1")
            return await self._sending.send(project_id, body, key, headers.get(b"traceparent", b"").decode("latin-1"))
        return await self._routed(scope, receive, headers, project_id, rest)

    async def _token(self, scope: Scope, receive: Receive, headers: dict[bytes, bytes], authorization: str) -> Answer:
        if scope["method"] != "POST":
            raise NotImplementedHere("The method is not known here.")
        return await self._auth.give_token(authorization, await self._read(receive, headers))

    async def _routed(
        self, scope: Scope, receive: Receive, headers: dict[bytes, bytes], project_id: ProjectId, rest: str
    ) -> Answer:
        if "\x00" in rest:
            # PostgreSQL keeps no NUL, so nothing has such an id.
            raise NotFound("There is no such thing in the project.")
        operation, path = _find(self._router, scope, rest)
        body = await self._read(receive, headers)
        if scope["method"] in ("POST", "PATCH", "PUT"):
            _check_json(headers, body)
        return success(await operation(Call(project_id, path, _query(scope), body)))

    async def _read(self, receive: Receive, headers: dict[bytes, bytes]) -> bytes:
        """The whole body. Raises TooLarge before more than the limit is in memory, ClientGone."""
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self._max_body_bytes:
            raise self._too_large()
        message = await receive()
        if not message.get("more_body"):
            return self._checked(message)
        parts = bytearray(self._checked(message))
        while message.get("more_body"):
            message = await receive()
            parts += self._checked(message)
            if len(parts) > self._max_body_bytes:
                raise self._too_large()
        return bytes(parts)

    def _checked(self, message: Any) -> bytes:
        if message["type"] == "http.disconnect":
            raise ClientGone
        body: bytes = message.get("body", b"")
        if len(body) > self._max_body_bytes:
            raise self._too_large()
        return body

    def _too_large(self) -> TooLarge:
        return TooLarge(f"The body is larger than {self._max_body_bytes} bytes.")


def _query(scope: Scope) -> tuple[tuple[str, str], ...]:
    """The query's names and values. Raises BadRequest for a value that no row can hold."""
    query = tuple(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
    if found := [Violation(name, NO_NUL) for name, value in query if "\x00" in value]:
        raise BadRequest(*found)
    return query


def _check_json(headers: dict[bytes, bytes], body: bytes) -> None:
    """A body needs its content type (conversation-api 1.3); no body needs none."""
    if body and not _JSON_TYPE.fullmatch(headers.get(b"content-type", b"")):
        raise BadRequest(Violation("Content-Type", "application/json is expected"))


async def _respond(send: Send, answer: Answer) -> None:
    length = (b"content-length", str(len(answer.body)).encode())
    await send({"type": "http.response.start", "status": answer.status, "headers": [*answer.headers, length]})
    await send({"type": "http.response.body", "body": answer.body})


class _Operations(Route):
    """One path and the operations on it, by method."""

    def __init__(self, path: str, operations: dict[str, Operation]) -> None:
        super().__init__(path, _never_called, methods=list(operations))
        self.operations = operations


def _never_called(_: Request) -> Any:
    raise AssertionError("routes are only matched here")


def _find(router: Router, scope: Scope, rest: str) -> tuple[Operation, dict[str, str]]:
    """The operation of a path and method. Raises NotFound, or NotImplementedHere for another method."""
    for route in router.routes:
        match, found = route.matches({**scope, "path": rest, "root_path": ""})
        if match is Match.NONE:
            continue
        assert isinstance(route, _Operations)
        operation = route.operations.get(scope["method"])
        if operation is None:
            raise NotImplementedHere("The method is not known here.")
        return operation, found["path_params"]
    raise NotFound("There is no such endpoint.")


def _router(
    messages: Messages,
    apps: Apps,
    webhooks: Webhooks,
    callbacks: Callbacks,
    explaining: Explaining,
    timelines: Timelines,
    events: Events,
    capabilities: Capabilities,
    consents: Consents,
    contacts: Contacts,
    conversations: Conversations,
) -> Router:
    """Every operation but `messages:send`."""

    async def get_message(call: Call) -> Any:
        return await messages.get(call.project_id, call.path["id"], read_source(call.filters))

    async def patch_message(call: Call) -> Any:
        patch = _message_patch.read(call.body)
        return await messages.change_metadata(call.project_id, call.path["id"], read_source(call.filters), patch)

    async def delete_message(call: Call) -> None:
        await messages.delete(call.project_id, call.path["id"], read_source(call.filters))

    async def patch_app(call: Call) -> Any:
        return await apps.change(call.project_id, call.path["id"], call.body, mask_of(call.query))

    async def patch_webhook(call: Call) -> Any:
        return await webhooks.change(call.project_id, call.path["id"], call.body, mask_of(call.query))

    built: dict[str, dict[str, Operation]] = {
        "/messages": {"GET": lambda call: messages.page(call.project_id, call.filters)},
        "/messages:fetch-last-message": {"POST": lambda call: messages.last_page(call.project_id, call.body)},
        **_contact_operations(contacts),
        **_conversation_operations(conversations),
        "/messages/{id}": {"GET": get_message, "PATCH": patch_message, "DELETE": delete_message},
        "/messages/{id}/timeline": {"GET": lambda call: timelines.get(call.project_id, call.path["id"])},
        "/messages:explain": {"POST": lambda call: explaining.explain(call.project_id, call.body)},
        "/apps": {
            "GET": lambda call: apps.list(call.project_id),
            "POST": lambda call: apps.create(call.project_id, call.body),
        },
        "/apps/{id}": {
            "GET": lambda call: apps.get(call.project_id, call.path["id"]),
            "PATCH": patch_app,
            "DELETE": lambda call: apps.delete(call.project_id, call.path["id"]),
        },
        "/apps/{id}/webhooks": {"GET": lambda call: webhooks.list(call.project_id, call.path["id"])},
        "/webhooks": {"POST": lambda call: webhooks.create(call.project_id, call.body)},
        "/apps/{id}/endpoints": {"GET": lambda call: callbacks.endpoints(call.project_id, call.path["id"])},
        "/apps/{id}/callbacks": {"GET": lambda call: callbacks.page(call.project_id, call.path["id"], call.filters)},
        "/apps/{id}/callbacks:replay": {
            "POST": lambda call: callbacks.replay(call.project_id, call.path["id"], call.body)
        },
        "/apps/{id}/callbacks:resume": {
            "POST": lambda call: callbacks.resume(call.project_id, call.path["id"], call.body)
        },
        "/apps/{id}/callbacks:dismiss": {
            "POST": lambda call: callbacks.dismiss(call.project_id, call.path["id"], call.body)
        },
        "/apps/{id}/callback-orders": {"GET": lambda call: callbacks.orders(call.project_id, call.path["id"])},
        "/callback-orders/{id}": {
            "GET": lambda call: callbacks.order(call.project_id, call.path["id"]),
            "DELETE": lambda call: callbacks.cancel(call.project_id, call.path["id"]),
        },
        # An id holds no colon: the actions come before what they are done to.
        "/callbacks/{id}:redeliver": {"POST": lambda call: callbacks.redeliver(call.project_id, call.path["id"])},
        "/callbacks/{id}:dismiss": {"POST": lambda call: callbacks.dismiss_one(call.project_id, call.path["id"])},
        "/callbacks/{id}": {"GET": lambda call: callbacks.get(call.project_id, call.path["id"])},
        "/webhooks/{id}:test": {"POST": lambda call: callbacks.test(call.project_id, call.path["id"])},
        "/webhooks/{id}:rotate-secret": {
            "POST": lambda call: webhooks.rotate_secret(call.project_id, call.path["id"], call.body)
        },
        "/webhooks/{id}": {
            "GET": lambda call: webhooks.get(call.project_id, call.path["id"]),
            "PATCH": patch_webhook,
            "DELETE": lambda call: webhooks.delete(call.project_id, call.path["id"]),
        },
        "/messages:send": {},
        "/events:send": {"POST": lambda call: events.send(call.project_id, call.body)},
        "/events": {"GET": lambda call: events.page(call.project_id, call.filters)},
        "/events/{id}": {
            "GET": lambda call: events.get(call.project_id, call.path["id"]),
            "DELETE": lambda call: events.delete(call.project_id, call.path["id"]),
        },
        "/capability:query": {"POST": lambda call: capabilities.ask(call.project_id, call.body)},
        "/apps/{id}/consents/identities/{identity:path}": {
            "GET": lambda call: consents.audit(call.project_id, call.path["id"], call.path["identity"])
        },
        "/apps/{id}/consents/{list_type}": {
            "GET": lambda call: consents.page(call.project_id, call.path["id"], call.path["list_type"], call.filters)
        },
    }
    routes: Iterable[_Operations] = [
        *(_Operations(path, {}) for path in _NOT_BUILT),
        *(_Operations(path, operations) for path, operations in built.items()),
    ]
    return Router(routes=list(routes))


def _contact_operations(contacts: Contacts) -> dict[str, dict[str, Operation]]:
    async def patch(call: Call) -> Any:
        return await contacts.change(call.project_id, call.path["id"], call.body, mask_of(call.query))

    return {
        "/contacts": {
            "GET": lambda call: contacts.page(call.project_id, call.filters),
            "POST": lambda call: contacts.create(call.project_id, call.body),
        },
        "/contacts:getChannelProfile": {"POST": lambda call: contacts.profile(call.project_id, call.body)},
        "/contacts:identityConflicts": {"GET": lambda call: contacts.conflicts(call.project_id, call.filters)},
        "/contacts/{id}:merge": {"POST": lambda call: contacts.merge(call.project_id, call.path["id"], call.body)},
        "/contacts/{id}": {
            "GET": lambda call: contacts.get(call.project_id, call.path["id"]),
            "PATCH": patch,
            "DELETE": lambda call: contacts.delete(call.project_id, call.path["id"]),
        },
    }


def _conversation_operations(conversations: Conversations) -> dict[str, dict[str, Operation]]:
    async def patch(call: Call) -> Any:
        mask = mask_of(call.query)
        return await conversations.change(call.project_id, call.path["id"], call.body, mask, call.filters)

    async def inject_message(call: Call) -> None:
        await conversations.inject_message(call.project_id, call.path["id"], call.body)

    return {
        "/conversations": {
            "GET": lambda call: conversations.page(call.project_id, call.filters),
            "POST": lambda call: conversations.create(call.project_id, call.body),
        },
        "/conversations:recent": {"GET": lambda call: conversations.recent(call.project_id, call.filters)},
        "/conversations/{id}:stop": {"POST": lambda call: conversations.stop(call.project_id, call.path["id"])},
        "/conversations/{id}:inject-message": {"POST": inject_message},
        "/conversations/{id}:inject-event": {
            "POST": lambda call: conversations.inject_event(call.project_id, call.path["id"], call.body)
        },
        "/conversations/{id}": {
            "GET": lambda call: conversations.get(call.project_id, call.path["id"]),
            "PATCH": patch,
            "DELETE": lambda call: conversations.delete(call.project_id, call.path["id"]),
        },
    }

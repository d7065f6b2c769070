"""What owners see of callbacks and endpoints, and what they order (our extension; issue 6, ADR 17)."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from msgspec import Struct

from switchboard.ids import ProjectId, is_ulid, mint
from switchboard.store import callbacks as store
from switchboard.store.callbacks import (
    LOST,
    Callback,
    CallbackOrder,
    CallbackQuery,
    CallbackState,
    EndpointHealth,
    OrderKind,
)
from switchboard.store.pool import Pool
from switchboard.validation import Violation
from switchboard_ingress.apps import Apps
from switchboard_ingress.body import Body
from switchboard_ingress.checks import check_replay, check_selection
from switchboard_ingress.errors import BadRequest, ContentGone, NotFound
from switchboard_ingress.paging import PageTokens, page_size
from switchboard_ingress.requests import CallbackSelection, Replay
from switchboard_ingress.webhooks import Webhooks

MOST_A_PAGE: Final = 1000
#: What a replay sends if no states are named.
_FINISHED: Final = (CallbackState.DELIVERED, *LOST)

_selection: Final = Body(CallbackSelection)
_replay: Final = Body(Replay)


class EndpointList(Struct, frozen=True):
    endpoints: list[EndpointHealth]


class CallbackList(Struct, frozen=True):
    callbacks: list[Callback]
    next_page_token: str


class OrderList(Struct, frozen=True):
    orders: list[CallbackOrder]


class Callbacks:
    """The callbacks of all apps, as their owners see them."""

    def __init__(self, pool: Pool, apps: Apps, webhooks: Webhooks, tokens: PageTokens) -> None:
        self._pool = pool
        self._apps = apps
        self._webhooks = webhooks
        self._tokens = tokens

    async def endpoints(self, project_id: ProjectId, app_id: str) -> EndpointList:
        """The endpoints of an app that were ever tried. Raises NotFound."""
        app = await self._apps.find(project_id, app_id)
        return EndpointList(await store.endpoints(self._pool, app.id))

    async def page(self, project_id: ProjectId, app_id: str, filters: Mapping[str, str]) -> CallbackList:
        """Callbacks of an app, newest messages first. Raises NotFound, BadRequest."""
        app = await self._apps.find(project_id, app_id)
        query = read_query(project_id, app.id, filters)
        size = page_size(filters.get("page_size", ""), MOST_A_PAGE)
        bound = [str(getattr(query, name)) for name in query.__struct_fields__]
        after = self._tokens.read(filters.get("page_token", ""), bound)
        found = await store.callbacks(self._pool, query, after=after or "", limit=size + 1)
        more = len(found) > size
        return CallbackList(found[:size], self._tokens.make(found[size - 1].id, bound) if more else "")

    async def get(self, project_id: ProjectId, callback_id: str) -> Callback:
        """One callback. Raises NotFound."""
        found = await store.callback(self._pool, project_id, callback_id) if is_ulid(callback_id) else None
        if found is None:
            raise NotFound("There is no such callback in the project.")
        return found

    async def redeliver(self, project_id: ProjectId, callback_id: str) -> CallbackOrder:
        """Have one sent again, whatever became of it. Raises NotFound, ContentGone."""
        found = await self.get(project_id, callback_id)
        try:
            return await store.redeliver(self._pool, found)
        except store.ContentGone as gone:
            raise ContentGone(str(gone)) from gone

    async def dismiss_one(self, project_id: ProjectId, callback_id: str) -> CallbackOrder:
        """Give one up that waits. Raises NotFound."""
        found = await self.get(project_id, callback_id)
        order = _order(project_id, found.app_id, OrderKind.DISMISS, callback_ids=(found.id,))
        return await store.place(self._pool, order)

    async def replay(self, project_id: ProjectId, app_id: str, raw: bytes) -> CallbackOrder:
        """Have a window sent once more. Raises NotFound, BadRequest."""
        app = await self._apps.find(project_id, app_id)
        wish = _replay.read(raw or b"{}")
        if found := check_replay(wish):
            raise BadRequest(*found)
        more = {"states": wish.states or _FINISHED, "target": wish.target, "per_second": wish.per_second}
        return await self._place(project_id, app.id, OrderKind.REPLAY, wish, **more)

    async def resume(self, project_id: ProjectId, app_id: str, raw: bytes) -> CallbackOrder:
        """Have everything that failed tried for another 24 hours. Raises NotFound, BadRequest."""
        failed = (CallbackState.EXPIRED, CallbackState.ENDED)
        return await self._select(project_id, app_id, OrderKind.RESUME, raw, failed)

    async def dismiss(self, project_id: ProjectId, app_id: str, raw: bytes) -> CallbackOrder:
        """Give up what waits. Raises NotFound, BadRequest."""
        return await self._select(project_id, app_id, OrderKind.DISMISS, raw, (CallbackState.WAITING,))

    async def test(self, project_id: ProjectId, webhook_id: str) -> CallbackOrder:
        """Have a callback without a meaning sent to a webhook. Raises NotFound."""
        webhook = await self._webhooks.find(project_id, webhook_id)
        return await store.place(self._pool, _order(project_id, webhook.app_id, OrderKind.TEST, webhook_id=webhook.id))

    async def orders(self, project_id: ProjectId, app_id: str) -> OrderList:
        """The orders of an app, newest first. Raises NotFound."""
        app = await self._apps.find(project_id, app_id)
        return OrderList(await store.orders(self._pool, app.id))

    async def order(self, project_id: ProjectId, order_id: str) -> CallbackOrder:
        """How far an order is. Raises NotFound."""
        return _there(await store.order(self._pool, project_id, order_id) if is_ulid(order_id) else None)

    async def cancel(self, project_id: ProjectId, order_id: str) -> CallbackOrder:
        """Stop an order where it is. Raises NotFound."""
        return _there(await store.cancel(self._pool, project_id, order_id) if is_ulid(order_id) else None)

    async def _select(
        self, project_id: ProjectId, app_id: str, kind: OrderKind, raw: bytes, states: tuple[CallbackState, ...]
    ) -> CallbackOrder:
        app = await self._apps.find(project_id, app_id)
        wish = _selection.read(raw or b"{}")
        if found := list(check_selection(wish)):
            raise BadRequest(*found)
        return await self._place(project_id, app.id, kind, wish, states=states)

    async def _place(
        self, project_id: ProjectId, app_id: str, kind: OrderKind, wish: CallbackSelection, **more: Any
    ) -> CallbackOrder:
        return await store.place(
            self._pool,
            _order(
                project_id, app_id, kind,
                webhook_id=wish.webhook_id, from_at=wish.start_time, until_at=wish.end_time, **more,
            ),
        )  # fmt: skip


def read_query(project_id: ProjectId, app_id: str, filters: Mapping[str, str]) -> CallbackQuery:
    """Read the filters of a list. Raises BadRequest."""
    found: list[Violation] = []
    states: list[CallbackState] = []
    for name in filter(None, filters.get("states", "").split(",")):
        try:
            states.append(CallbackState(name.strip().lower()))
        except ValueError:
            found.append(Violation("states", f"one of {', '.join(CallbackState)} is expected, not {name!r}"))
    least = filters.get("min_attempts", "") or "0"
    if not least.isdecimal() or len(least) > 6:
        found.append(Violation("min_attempts", "a whole number is expected"))
        least = "0"
    if found:
        raise BadRequest(*found)
    return CallbackQuery(
        project_id=project_id,
        app_id=app_id,
        webhook_id=filters.get("webhook_id", ""),
        message_id=filters.get("message_id", ""),
        states=tuple(states),
        from_at=_moment(filters, "start_time"),
        until_at=_moment(filters, "end_time"),
        min_attempts=int(least),
    )


def _moment(filters: Mapping[str, str], name: str) -> datetime | None:
    text = filters.get(name, "")
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise BadRequest(Violation(name, "an RFC 3339 time with a zone is expected"))
    return moment


def _order(project_id: ProjectId, app_id: str, kind: OrderKind, **more: Any) -> CallbackOrder:
    more.setdefault("states", tuple(CallbackState))
    return CallbackOrder(id=mint(), project_id=project_id, app_id=app_id, kind=kind, **more)


def _there(order: CallbackOrder | None) -> CallbackOrder:
    if order is None:
        raise NotFound("There is no such order in the project.")
    return order

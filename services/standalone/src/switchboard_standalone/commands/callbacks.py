"""What operators see of callbacks and endpoints, and what they order: `switchboard callbacks`, `… endpoints`."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from rich.table import Table

from switchboard.ids import is_ulid, mint
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
from switchboard_standalone.reach import Reach, home_of
from switchboard_standalone.screen import screen
from switchboard_standalone.trouble import Refused

_ANSWER_SHOWN = 60


async def list_endpoints(data: Path | None, app_id: str) -> int:
    """Show an app's endpoints, those with most waiting first."""
    async with Reach.of(home_of(data)).pool() as pool:
        await _project(pool, app_id)
        found = await store.endpoints(pool, app_id)
    table = _table("endpoint", "state", "waiting", "lag", "success", "next try (UTC)", "last error", "its answer")
    for one in found:
        table.add_row(*_endpoint(one))
    _print(table, "no endpoint of this app was tried yet")
    return 0


async def list_callbacks(
    data: Path | None,
    app_id: str,
    states: list[str],
    message_id: str = "",
    webhook_id: str = "",
    since: datetime | None = None,
    until: datetime | None = None,
    min_attempts: int = 0,
    limit: int = 100,
) -> int:
    """Show an app's callbacks, newest messages first."""
    async with Reach.of(home_of(data)).pool() as pool:
        query = CallbackQuery(
            project_id=await _project(pool, app_id),
            app_id=app_id,
            states=read_states(states),
            message_id=message_id,
            webhook_id=webhook_id,
            from_at=since,
            until_at=until,
            min_attempts=min_attempts,
        )
        found = await store.callbacks(pool, query, limit=limit)
    table = _table("callback", "about", "trigger", "state", "tries", "last", "happened (UTC)")
    for one in found:
        table.add_row(
            one.id, one.about, one.trigger, one.state.value, str(one.attempts), _last(one), _time(one.event_time)
        )
    _print(table, "no such callbacks")
    return 0


async def show_callback(data: Path | None, callback_id: str) -> int:
    """Show one callback."""
    async with Reach.of(home_of(data)).pool() as pool:
        found = await _callback(pool, callback_id)
    table = _table("what", "value")
    for name in found.__struct_fields__:
        value = getattr(found, name)
        table.add_row(name, _time(value) if isinstance(value, datetime) else str("" if value is None else value))
    _print(table, "")
    return 0


async def redeliver(data: Path | None, callback_id: str) -> int:
    """Have one callback sent again."""
    async with Reach.of(home_of(data)).pool() as pool:
        try:
            placed = await store.redeliver(pool, await _callback(pool, callback_id))
        except store.ContentGone as gone:
            raise Refused(str(gone)) from None
    return _placed(placed)


async def dismiss(data: Path | None, callback_id: str) -> int:
    """Give up one callback that waits."""
    async with Reach.of(home_of(data)).pool() as pool:
        found = await _callback(pool, callback_id)
        wish = _order(found.project_id, found.app_id, OrderKind.DISMISS, callback_ids=(found.id,))
        return _placed(await store.place(pool, wish))


async def dismiss_waiting(data: Path | None, app_id: str, webhook_id: str) -> int:
    """Give up everything of an app, or of one webhook, that waits."""
    async with Reach.of(home_of(data)).pool() as pool:
        return _placed(await store.dismiss_waiting(pool, await _project(pool, app_id), app_id, webhook_id))


async def resume(data: Path | None, app_id: str, webhook_id: str) -> int:
    """Have everything of an app that expired or was ended tried for another 24 hours."""
    async with Reach.of(home_of(data)).pool() as pool:
        states = (CallbackState.EXPIRED, CallbackState.ENDED)
        wish = _order(await _project(pool, app_id), app_id, OrderKind.RESUME, states=states, webhook_id=webhook_id)
        return _placed(await store.place(pool, wish))


async def replay(
    data: Path | None,
    app_id: str,
    since: datetime,
    until: datetime | None,
    states: list[str],
    target: str,
    per_second: float,
) -> int:
    """Have a window of callbacks sent once more."""
    chosen = read_states(states) or (CallbackState.DELIVERED, *LOST)
    if CallbackState.WAITING in chosen:
        raise Refused("waiting callbacks cannot be replayed: `switchboard callbacks redeliver` tries one at once")
    if not 0 < per_second <= store.MOST_PER_SECOND:
        raise Refused(f"--rate: more than 0 and at most {store.MOST_PER_SECOND:g} are expected")
    async with Reach.of(home_of(data)).pool() as pool:
        wish = _order(
            await _project(pool, app_id), app_id, OrderKind.REPLAY,
            states=chosen, from_at=since, until_at=until, target=target, per_second=per_second,
        )  # fmt: skip
        return _placed(await store.place(pool, wish))


async def test(data: Path | None, webhook_id: str) -> int:
    """Have a callback without a meaning sent to a webhook."""
    async with Reach.of(home_of(data)).pool() as pool:
        row = await pool.fetchrow(
            "SELECT project_id, app_id FROM switchboard.webhooks WHERE id = $1 AND deleted_at IS NULL", webhook_id
        )
        if row is None:
            raise Refused(f"there is no webhook {webhook_id}")
        wish = _order(row["project_id"], row["app_id"], OrderKind.TEST, webhook_id=webhook_id)
        return _placed(await store.place(pool, wish))


async def list_orders(data: Path | None, app_id: str) -> int:
    """Show an app's orders, newest first."""
    async with Reach.of(home_of(data)).pool() as pool:
        await _project(pool, app_id)
        found = await store.orders(pool, app_id)
    table = _table("order", "kind", "state", "done", "failed", "gone", "last error")
    for one in found:
        counts = (str(one.done), str(one.failed), str(one.gone))
        table.add_row(one.id, one.kind.value, one.state.value, *counts, one.last_error)
    _print(table, "no orders; `switchboard callbacks redeliver`, `resume` and `replay` make some")
    return 0


async def cancel(data: Path | None, order_id: str) -> int:
    """Stop an order where it is."""
    async with Reach.of(home_of(data)).pool() as pool:
        project = await pool.fetchval("SELECT project_id FROM switchboard.callback_orders WHERE id = $1", order_id)
        found = await store.cancel(pool, project, order_id) if project else None
    if found is None:
        raise Refused(f"there is no order {order_id}; `switchboard callbacks orders APP` shows them")
    print(f"order {order_id} is {found.state}: {found.done} done, {found.failed} failed, {found.gone} gone")
    return 0


def read_states(names: list[str]) -> tuple[CallbackState, ...]:
    """Read names of states, in any case. Raises Refused."""
    try:
        return tuple(CallbackState(name.lower()) for name in names)
    except ValueError:
        raise Refused(f"--state: one of {', '.join(CallbackState)} is expected") from None


async def _project(pool: Pool, app_id: str) -> str:
    project = await pool.fetchval("SELECT project_id FROM switchboard.apps WHERE id = $1", app_id)
    if project is None:
        raise Refused(f"there is no app {app_id}")
    return str(project)


async def _callback(pool: Pool, callback_id: str) -> Callback:
    project = None
    if is_ulid(callback_id):
        project = await pool.fetchval("SELECT project_id FROM switchboard.callback_events WHERE id = $1", callback_id)
    found = await store.callback(pool, project, callback_id) if project else None
    if found is None:
        raise Refused(f"there is no callback {callback_id}; `switchboard callbacks list APP` shows them")
    return found


def _order(
    project_id: str,
    app_id: str,
    kind: OrderKind,
    *,
    states: tuple[CallbackState, ...] = tuple(CallbackState),
    callback_ids: tuple[str, ...] = (),
    webhook_id: str = "",
    from_at: datetime | None = None,
    until_at: datetime | None = None,
    target: str = "",
    per_second: float = store.REPLAY_PER_SECOND,
) -> CallbackOrder:
    return CallbackOrder(
        id=mint(), project_id=project_id, app_id=app_id, kind=kind, states=states, callback_ids=callback_ids,
        webhook_id=webhook_id, from_at=from_at, until_at=until_at, target=target, per_second=per_second,
    )  # fmt: skip


def _placed(order: CallbackOrder) -> int:
    print(f"order {order.id} is placed; `switchboard callbacks orders {order.app_id}` shows how far it is")
    return 0


def _endpoint(one: EndpointHealth) -> tuple[str, ...]:
    return (
        one.endpoint.removeprefix("endpoint:"),
        one.state.value,
        str(one.waiting),
        f"{one.lag_seconds:.0f} s" if one.waiting else "",
        "" if one.success_rate is None else f"{one.success_rate:.1%}",
        _time(one.next_try_at),
        one.last_error,
        one.last_answer[:_ANSWER_SHOWN],
    )


def _last(one: Callback) -> str:
    if one.last_error:
        return one.last_error
    return "" if one.last_status is None else str(one.last_status)


def _time(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}" if moment else ""


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _print(table: Table, empty: str) -> None:
    if table.row_count:
        screen(markup=False).print(table)
    else:
        print(empty)

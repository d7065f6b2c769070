"""What operators do with apps: see them, and say how fast they may go."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace
from rich.table import Table

from switchboard.ids import AppId
from switchboard.lanes import operate
from switchboard_standalone.reach import Reach, home_of
from switchboard_standalone.screen import screen
from switchboard_standalone.trouble import Refused


async def list_apps(data: Path | None) -> int:
    """Show every app with its rates and what waits."""
    async with Reach.of(home_of(data)).store() as store:
        rows = await store.pool.fetch(_APPS)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("app", "name", "project", "outbound /s", "inbound /s", "webhooks /s", "waiting"):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(str(value) for value in row))
    if rows:
        screen(markup=False).print(table)
    else:
        print("no apps; clients make them with POST /apps")
    return 0


async def set_limits(
    data: Path | None, app_id: str, outbound: int | None, inbound: int | None, webhooks: int | None
) -> int:
    """Set what was given; what was not stays as it is."""
    given = {"outbound": outbound, "inbound": inbound, "webhooks": webhooks}
    changes = {name: rate for name, rate in given.items() if rate is not None}
    if not changes:
        raise Refused("at least one of --outbound, --inbound and --webhooks is expected")
    async with Reach.of(home_of(data)).store() as store:
        app = await store.app(AppId(app_id))
        if app is None:
            raise Refused(f"there is no app {app_id}; see `switchboard app list`")
        limits = replace(app.rate_limits, **changes)
        await store.set_rate_limits(app.id, limits)
        if outbound is not None:
            await operate.set_rate(store.pool, app.id, outbound)
    print(f"app {app_id}: {limits.outbound} outbound, {limits.inbound} inbound, {limits.webhooks} webhooks a second")
    return 0


_APPS = """
SELECT app.id, app.settings ->> 'display_name', app.project_id, app.settings #>> '{rate_limits,outbound}',
    app.settings #>> '{rate_limits,inbound}', app.settings #>> '{rate_limits,webhooks}',
    (SELECT coalesce(sum(lane.waiting), 0) FROM switchboard.lanes AS lane
     WHERE lane.kind = 'dispatch'
       AND lane.id >= 'dispatch:' || app.id || ':' AND lane.id < 'dispatch:' || app.id || ';')
FROM switchboard.apps AS app WHERE app.deleted_at IS NULL ORDER BY app.id LIMIT 1000
"""

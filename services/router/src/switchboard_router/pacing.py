"""Which lanes an attempt passes through, and how fast they go (DESIGN 6)."""

from collections.abc import Iterable, Mapping
from typing import Final

from msgspec import Struct

from switchboard.channel.errors import Unsupported
from switchboard.ids import AppId, LaneId
from switchboard.lanes import Limits, account_lane, dispatch_lane
from switchboard.rules.route import RouteStep
from switchboard.store.messages import Message
from switchboard_router.context import RouterContext

#: Attempts of one lane under way: a minute of its rate, within these bounds. Above the upper one an adapter's process
#: would refuse them as throttled, and each would come again as another attempt: in the lane they wait for nothing.
LEAST_IN_FLIGHT: Final = 1_000
MOST_IN_FLIGHT: Final = 2_000


class Pacing(Struct, frozen=True):
    """The lanes of a batch and their limits."""

    limits: Mapping[LaneId, Limits]
    #: Which accounts have a lane: those whose channel is paced by account.
    paced_accounts: frozenset[LaneId]

    def lanes_of(self, app_id: AppId, step: RouteStep) -> tuple[LaneId, LaneId | None]:
        """The dispatch lane of a step, and its account's lane if it has one."""
        account = account_lane(step.account)
        return dispatch_lane(app_id, step.channel), account if account in self.paced_accounts else None

    def lanes(self, left: Iterable[LaneId]) -> dict[LaneId, Limits | None]:
        """The lanes that a batch enters, with their limits, and those it leaves, which may have any."""
        return {**dict.fromkeys(left), **self.limits}


async def pacing_for(context: RouterContext, steps: Iterable[tuple[AppId, RouteStep]]) -> Pacing:
    """The lanes that attempts at these steps pass through, with their limits."""
    limits: dict[LaneId, Limits] = {}
    paced: set[LaneId] = set()
    looked_at: set[LaneId] = set()
    for app_id, step in steps:
        lane = dispatch_lane(app_id, step.channel)
        if lane not in limits:
            app = await context.configuration.app(app_id)
            rate = app.rate_limits.outbound if app is not None else 0
            limits[lane] = _limits(rate or context.default_lane_rate)
        account = account_lane(step.account)
        if account in looked_at:
            continue
        looked_at.add(account)
        if (account_rate := await _account_rate(context, app_id, step)) is not None:
            paced.add(account)
            limits[account] = _limits(account_rate)
    return Pacing(limits, frozenset(paced))


async def _account_rate(context: RouterContext, app_id: AppId, step: RouteStep) -> float | None:
    """Units a second of the account that a step sends through. None: it is not paced."""
    manifest = context.manifests.get(step.channel)
    if manifest is None:
        return None
    if manifest.account_rate is None:
        return manifest.rate_per_second
    account = await context.configuration.account(step.account, app_id)
    return manifest.rate_of(None if account is None else account.settings)


def units_of(context: RouterContext, message: Message, step: RouteStep) -> int:
    """What the message costs in the account's unit. Content the channel cannot carry costs one: it will be refused."""
    content = message.content()
    if content is None:
        return 1
    try:
        return max(1, int(context.renderers[step.channel].units(content, message.envelope.channel_properties)))
    except Unsupported:
        return 1


def _limits(per_second: float) -> Limits:
    return Limits(per_second, min(MOST_IN_FLIGHT, max(LEAST_IN_FLIGHT, int(per_second * 60))))

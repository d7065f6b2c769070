"""`messages:explain`, our extension: what a send would do, without sending.

The route comes from the rule that routes messages, the content from the channels' own rendering, the wait from the
rows of the lanes. Nothing is written, and nothing enters a topic.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from msgspec import Struct

from switchboard.channel.errors import Unsupported
from switchboard.channel.preview import Preview, Previews
from switchboard.configuration import App, Configuration
from switchboard.identity import ChannelIdentity, ChannelName
from switchboard.ids import AccountKey, AppId, LaneId, MessageId, ProjectId, mint, time_of
from switchboard.lanes import Lane, account_lane, dispatch_lane
from switchboard.lanes.locked import HIGH, lane_of
from switchboard.lanes.outlook import Outlook, outlook
from switchboard.reason import Reason
from switchboard.records import MessageAccepted, ProcessingMode
from switchboard.rules.planning import NO_CONTACT, route_of, ways_of
from switchboard.rules.progress import DEFAULT_TTL_SECONDS, OnUnknown
from switchboard.rules.route import Candidate, Route, RouteStep
from switchboard.status import Status
from switchboard.store import contacts, conversations
from switchboard.store.barring import Recipient, barred
from switchboard.store.pool import Connection, Pool, database_now
from switchboard_ingress.body import Body
from switchboard_ingress.requests import SendRequest
from switchboard_ingress.send import SendRules, accept, find_app

_body: Final = Body(SendRequest)


class Lanes(Struct, frozen=True):
    """The rows of the lanes a route passes through, and who waits there, as read at one moment."""

    now: datetime
    rows: Mapping[LaneId, Lane]
    #: Waiting with high priority.
    high: Mapping[LaneId, int]

    def outlook(self, app_id: AppId, step: RouteStep, units: int, *, high: bool) -> Outlook:
        """What a message planned now would meet on its way to one channel."""
        dispatch = self.rows.get(dispatch_lane(app_id, step.channel))
        account = self.rows.get(account_lane(step.account))
        ahead = 0
        if dispatch is not None:
            ahead = self.high.get(dispatch.id, 0) if high else dispatch.waiting
        return outlook(dispatch, account, ahead=ahead, units=units, now=self.now)


class StepPlan(Struct, frozen=True):
    """One channel that would be tried, in its place."""

    identity: ChannelIdentity
    account: AccountKey
    #: What the channel reports after it took a message. Empty: then nothing more is heard.
    reports: tuple[Status, ...]
    #: Seconds from acceptance after which the next channel is tried. Absent: a receipt is waited for.
    wait_seconds: int | None
    #: The wait goes on after DELIVERED.
    until_read: bool
    #: Seconds from acceptance during which receipts may come.
    horizon_seconds: int
    #: The message as the channel carries it. Absent: it cannot, for the reason in `refused`.
    rendered: Preview | None
    refused: Reason | None
    lane: Outlook


class Explanation(Struct, frozen=True):
    """What a send would do."""

    processing_mode: ProcessingMode
    #: Every channel that was looked at, and why it is in or out.
    candidates: tuple[Candidate, ...]
    #: The channels that would be tried, in order.
    steps: tuple[StepPlan, ...]
    #: Why nothing would be sent at all; the message would end FAILED with it.
    fails_with: Reason | None
    #: When the message ends unless a channel took it.
    expires_at: datetime
    #: Seconds during which one channel is tried again after it failed for now.
    retry_seconds: int
    on_unknown: OnUnknown


def explain(
    record: MessageAccepted,
    app: App,
    route: Route,
    previews: Mapping[ChannelName, Previews],
    settings: Mapping[AccountKey, object],
    lanes: Lanes,
) -> Explanation:
    """What becomes of a record that takes this route. Pure."""
    ttl_seconds = DEFAULT_TTL_SECONDS if record.ttl_seconds is None else record.ttl_seconds
    return Explanation(
        processing_mode=record.mode,
        candidates=route.candidates,
        steps=tuple(_step(record, step, previews[step.channel], settings, lanes) for step in route.steps),
        fails_with=route.empty_because,
        expires_at=record.accepted_at + timedelta(seconds=ttl_seconds),
        retry_seconds=app.message_retry_settings.retry_duration,
        on_unknown=record.on_unknown or app.on_unknown,
    )


def _step(
    record: MessageAccepted, step: RouteStep, previews: Previews, settings: Mapping[AccountKey, object], lanes: Lanes
) -> StepPlan:
    rendered: Preview | None = None
    refused: Reason | None = None
    try:
        rendered = previews.preview(
            record.message,
            step.identity.identity,
            record.message_id,
            record.channel_properties,
            settings.get(step.account),
        )
    except Unsupported as error:
        refused = error.reason
    return StepPlan(
        identity=step.identity,
        account=step.account,
        reports=step.receipts,
        wait_seconds=step.wait_seconds,
        until_read=step.until_read,
        horizon_seconds=step.horizon_seconds,
        rendered=rendered,
        refused=refused,
        lane=lanes.outlook(record.app_id, step, 1 if rendered is None else rendered.units, high=record.high_priority),
    )


class Explaining:
    """Looks up what an explanation needs."""

    def __init__(
        self,
        pool: Pool,
        configuration: Configuration,
        rules: SendRules,
        previews: Mapping[ChannelName, Previews],
        *,
        strict_ids: bool,
    ) -> None:
        self._pool = pool
        self._configuration = configuration
        self._rules = rules
        self._previews = previews
        self._strict_ids = strict_ids

    async def explain(self, project_id: ProjectId, raw: bytes) -> Explanation:
        """Explain a send. Raises what the send itself would: BadRequest, NotFound."""
        request = _body.read(raw)
        app = await find_app(self._configuration, project_id, request.app_id, strict=self._strict_ids)
        message_id = MessageId(mint())
        record = accept(request, app, self._rules, message_id, time_of(message_id))
        async with self._pool.acquire() as connection:
            route = await self._route(connection, app, record)
            lanes = await _read_lanes(connection, app, route, high=record.high_priority)
        return explain(record, app, route, self._previews, await self._settings(app, route), lanes)

    async def _route(self, connection: Connection, app: App, record: MessageAccepted) -> Route:
        contact, active_channel = None, ""
        if record.contact_id is not None:
            contact = await contacts.read(connection, app.project_id, record.contact_id)
            if contact is None:
                return Route((), empty_because=NO_CONTACT)
            pair = (app.id, record.contact_id)
            active_channel = (await conversations.active_channels(connection, {pair})).get(pair, "")
        manifests = self._rules.manifests
        ways = ways_of(record, app, contact, active_channel, manifests)
        bars = await barred(connection, [Recipient(record, app, ways.identities)], manifests)
        accounts = self._configuration.account_keys(app)
        return route_of(record, app, ways, accounts, manifests, bars.get(record.message_id, {}))

    async def _settings(self, app: App, route: Route) -> Mapping[AccountKey, object]:
        """What operators wrote down for the accounts of a route."""
        found = [await self._configuration.account(step.account, app.id) for step in route.steps]
        return {account.key: account.settings for account in found if account is not None}


async def _read_lanes(connection: Connection, app: App, route: Route, *, high: bool) -> Lanes:
    own = [dispatch_lane(app.id, step.channel) for step in route.steps]
    shared = [account_lane(step.account) for step in route.steps]
    rows = await connection.fetch("SELECT * FROM switchboard.lanes WHERE id = ANY($1::text[])", [*own, *shared])
    counts = []
    if high:
        counts = await connection.fetch(
            "SELECT lane, count(*) AS waiting FROM switchboard.lane_items"
            " WHERE lane = ANY($1::text[]) AND priority = $2 AND token IS NULL GROUP BY lane",
            own, HIGH,
        )  # fmt: skip
    return Lanes(
        await database_now(connection),
        {row["id"]: lane_of(row) for row in rows},
        {row["lane"]: row["waiting"] for row in counts},
    )

"""Plans a route: the ordered channels for one message, decided once, every candidate kept or dropped with a reason."""

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum

from msgspec import Struct

from switchboard.channel.manifest import Manifest
from switchboard.identity import ChannelIdentity, ChannelName
from switchboard.ids import AccountKey
from switchboard.reason import Reason, ReasonCode
from switchboard.status import Status


class Verdict(StrEnum):
    """Why a candidate is in the route, or is not."""

    KEPT = "KEPT"
    #: The recipient has no identity on this channel.
    NO_IDENTITY = "NO_IDENTITY"
    #: The app has no credentials for this channel.
    NOT_CONFIGURED = "NOT_CONFIGURED"
    #: The app's credentials name a provider account that does not exist.
    NO_ACCOUNT = "NO_ACCOUNT"
    #: This installation has no such channel.
    NOT_INSTALLED = "NOT_INSTALLED"
    #: `channel_priority_order` was given and does not name this channel.
    NOT_ASKED_FOR = "NOT_ASKED_FOR"


class Candidate(Struct, frozen=True):
    """A channel that was looked at, and what became of it."""

    channel: ChannelName
    verdict: Verdict


class RouteStep(Struct, frozen=True, omit_defaults=True):
    """One channel of a route, with the facts of the channel that decisions about it need."""

    identity: ChannelIdentity
    account: AccountKey
    #: What the channel can report after acceptance; empty: acceptance is the end.
    receipts: tuple[Status, ...] = ()
    horizon_seconds: int = 72 * 3600
    send_timeout_seconds: float = 15.0
    #: A repeated submission of the same attempt is dropped by the provider.
    deduplicates: bool = False
    #: Switch if no positive receipt came this long after acceptance. None: wait for a receipt as long as it takes.
    wait_seconds: int | None = None

    @property
    def channel(self) -> ChannelName:
        return self.identity.channel


class Route(Struct, frozen=True, omit_defaults=True):
    """The steps to try, in order, and every candidate with its verdict."""

    steps: tuple[RouteStep, ...]
    candidates: tuple[Candidate, ...] = ()
    #: Why there are no steps.
    empty_because: Reason | None = None


def plan_route(
    identities: Sequence[ChannelIdentity],
    order: Sequence[ChannelName],
    configured: Mapping[ChannelName, AccountKey | None],
    manifests: Mapping[ChannelName, Manifest],
    fallback_wait_seconds: int | None = None,
) -> Route:
    """Plan the route of a message to `identities` (conversation-api 11.4, points 1 and 2).

    `order` is `channel_priority_order`, or empty; `configured` maps the app's channels to the account they send
    through (None: it does not exist). A step waits for a positive receipt only while another step is left and only
    on channels that report delivery.
    """
    by_channel = {identity.channel: identity for identity in identities}
    asked = list(order) or [identity.channel for identity in identities]
    candidates = [Candidate(channel, _judge(channel, by_channel, configured, manifests)) for channel in asked]
    candidates += [Candidate(channel, Verdict.NOT_ASKED_FOR) for channel in by_channel if channel not in asked]
    kept = [candidate.channel for candidate in candidates if candidate.verdict is Verdict.KEPT]
    steps = tuple(
        _step(
            by_channel[channel],
            configured[channel],
            manifests[channel],
            fallback_wait_seconds if place < len(kept) - 1 else None,
        )
        for place, channel in enumerate(kept)
    )
    return Route(steps, tuple(candidates), None if steps else _why_empty(candidates))


def _judge(
    channel: ChannelName,
    identities: Mapping[ChannelName, ChannelIdentity],
    configured: Mapping[ChannelName, AccountKey | None],
    manifests: Mapping[ChannelName, Manifest],
) -> Verdict:
    checks: tuple[tuple[Callable[[], bool], Verdict], ...] = (
        (lambda: channel not in manifests, Verdict.NOT_INSTALLED),
        (lambda: channel not in configured, Verdict.NOT_CONFIGURED),
        (lambda: configured[channel] is None, Verdict.NO_ACCOUNT),
        (lambda: channel not in identities, Verdict.NO_IDENTITY),
    )
    return next((verdict for fails, verdict in checks if fails()), Verdict.KEPT)


def _step(
    identity: ChannelIdentity, account: AccountKey | None, manifest: Manifest, wait_seconds: int | None
) -> RouteStep:
    assert account is not None
    return RouteStep(
        identity,
        account,
        tuple(sorted(manifest.receipts)),
        manifest.horizon_seconds,
        manifest.send_timeout_seconds,
        manifest.deduplicates,
        wait_seconds if Status.DELIVERED in manifest.receipts else None,
    )


def _why_empty(candidates: Sequence[Candidate]) -> Reason:
    verdicts = {candidate.verdict for candidate in candidates}
    if verdicts & {Verdict.NOT_CONFIGURED, Verdict.NOT_INSTALLED}:
        return Reason(ReasonCode.CHANNEL_CONFIGURATION_MISSING, "No channel of the order is configured in the app.")
    if Verdict.NO_ACCOUNT in verdicts:
        return Reason(ReasonCode.CHANNEL_BAD_CONFIGURATION, "The app's credentials name no provider account.")
    return Reason(
        ReasonCode.NO_CHANNEL_IDENTITY_FOR_CONTACT, "The recipient has no identity on the channels asked for."
    )

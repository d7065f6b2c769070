"""Plans a route: the ordered channels for one message, decided once, every candidate kept or dropped with a reason."""

from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from types import MappingProxyType
from typing import Final

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
    #: The recipient left, as far as consent for this kind of message goes (conversation-api 14).
    NOT_OPTED_IN = "NOT_OPTED_IN"
    #: The channel said a while ago that it cannot reach the recipient, and another channel is left (ADR 0021).
    NO_CAPABILITY = "NO_CAPABILITY"
    #: Nothing is sent at all, for the app does not have another channel that was asked for (conversation-api 11.4).
    OTHER_NOT_CONFIGURED = "OTHER_NOT_CONFIGURED"


class Candidate(Struct, frozen=True):
    """A channel that was looked at, and what became of it."""

    channel: ChannelName
    verdict: Verdict


class Success(StrEnum):
    """What a step must come to within its wait, or the next channel is tried."""

    #: Acceptance by the channel is enough: nothing is waited for.
    SUBMITTED = "SUBMITTED"
    DELIVERED = "DELIVERED"
    READ = "READ"


class StepWish(Struct, frozen=True, omit_defaults=True):
    """What a request asks of one channel (`channel_steps`, our extension of messages:send)."""

    channel: ChannelName
    success: Success = Success.DELIVERED
    #: Seconds from acceptance by the channel, 10 to 259,200. None: the app's `delivery_report_based_fallback`.
    wait_seconds: int | None = None
    #: With READ: go on to the next channel although this one delivered, if nobody read it in time.
    switch_after_delivered: bool = False


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
    #: The wait goes on after DELIVERED: only READ ends it.
    until_read: bool = False
    #: The channel can take back what it took and has not delivered.
    can_retract: bool = False

    @property
    def channel(self) -> ChannelName:
        return self.identity.channel


class Route(Struct, frozen=True, omit_defaults=True):
    """The steps to try, in order, and every candidate with its verdict."""

    steps: tuple[RouteStep, ...]
    candidates: tuple[Candidate, ...] = ()
    #: Why there are no steps.
    empty_because: Reason | None = None


_NOTHING_BARRED: Final[Mapping[ChannelName, Verdict]] = MappingProxyType({})


def plan_route(
    identities: Sequence[ChannelIdentity],
    order: Sequence[ChannelName],
    configured: Mapping[ChannelName, AccountKey | None],
    manifests: Mapping[ChannelName, Manifest],
    fallback_wait_seconds: int | None = None,
    wishes: Sequence[StepWish] = (),
    barred: Mapping[ChannelName, Verdict] = _NOTHING_BARRED,
    passed_over: Sequence[ChannelName] = (),
) -> Route:
    """Plan the route of a message to `identities` (conversation-api 11.4, points 1 and 2).

    `order` is `channel_priority_order`, or empty; `configured` maps the app's channels to the account they send
    through (None: it does not exist); `barred` are channels that must not be tried for this recipient, and why;
    `passed_over` are channels of the recipient that are no candidates, and are told all the same. A step waits only
    while another step is left, and only for what its channel reports.
    """
    wish_for = {wish.channel: wish for wish in wishes}
    by_channel = {identity.channel: identity for identity in identities}

    def judge(channel: ChannelName) -> Verdict:
        return _judge(channel, by_channel, configured, manifests, barred)

    judged = {channel: judge(channel) for channel in order or by_channel}
    for channel in by_channel:
        if channel not in judged:
            verdict = judge(channel)
            judged[channel] = verdict if verdict in _NOTHING_IS_SENT else Verdict.NOT_ASKED_FOR
    verdicts = _settle(judged)
    kept = [channel for channel, verdict in verdicts.items() if verdict is Verdict.KEPT]
    steps = tuple(
        _step(
            by_channel[channel],
            configured[channel],
            manifests[channel],
            wish_for.get(channel, StepWish(channel)) if place < len(kept) - 1 else None,
            fallback_wait_seconds,
        )
        for place, channel in enumerate(kept)
    )
    candidates = [Candidate(channel, verdict) for channel, verdict in verdicts.items()]
    candidates += [Candidate(channel, judge(channel)) for channel in passed_over]
    return Route(steps, tuple(candidates), None if steps else _why_empty(verdicts.values()))


def reports(manifest: Manifest, success: Success) -> bool:
    """Tell whether a channel ever says that a step came to this success. Acceptance needs no report."""
    return success is Success.SUBMITTED or _AWAITED[success] in manifest.receipts


def _settle(verdicts: Mapping[ChannelName, Verdict]) -> Mapping[ChannelName, Verdict]:
    """The verdicts on single channels, in view of each other."""
    found = set(verdicts.values())
    becomes: Mapping[Verdict, Verdict] = {}
    if found & _NOTHING_IS_SENT:
        # A channel the app does not have ends the message before any attempt (conversation-api 11.4).
        becomes = {Verdict.KEPT: Verdict.OTHER_NOT_CONFIGURED}
    elif Verdict.KEPT not in found:
        # What a channel said may be old: without another one the attempt finds out what is true now.
        becomes = {Verdict.NO_CAPABILITY: Verdict.KEPT}
    return {channel: becomes.get(verdict, verdict) for channel, verdict in verdicts.items()} if becomes else verdicts


def _judge(
    channel: ChannelName,
    identities: Mapping[ChannelName, ChannelIdentity],
    configured: Mapping[ChannelName, AccountKey | None],
    manifests: Mapping[ChannelName, Manifest],
    barred: Mapping[ChannelName, Verdict],
) -> Verdict:
    if channel not in manifests:
        return Verdict.NOT_INSTALLED
    if channel not in configured:
        return Verdict.NOT_CONFIGURED
    if configured[channel] is None:
        return Verdict.NO_ACCOUNT
    if channel not in identities:
        return Verdict.NO_IDENTITY
    return barred.get(channel, Verdict.KEPT)


def _step(
    identity: ChannelIdentity,
    account: AccountKey | None,
    manifest: Manifest,
    wish: StepWish | None,
    fallback_wait_seconds: int | None,
) -> RouteStep:
    assert account is not None
    wait_seconds = None
    if wish is not None and _AWAITED[wish.success] in manifest.receipts:
        wait_seconds = wish.wait_seconds or fallback_wait_seconds
    return RouteStep(
        identity,
        account,
        tuple(sorted(manifest.receipts)),
        manifest.horizon_seconds,
        manifest.send_timeout_seconds,
        manifest.deduplicates,
        wait_seconds,
        until_read=wait_seconds is not None and wish is not None and wish.switch_after_delivered,
        can_retract=manifest.can_retract,
    )


#: The receipt a success waits for. QUEUED_ON_CHANNEL is in no manifest's receipts, so SUBMITTED waits for nothing.
_AWAITED: Final = {
    Success.SUBMITTED: Status.QUEUED_ON_CHANNEL,
    Success.DELIVERED: Status.DELIVERED,
    Success.READ: Status.READ,
}


#: Why a message is not sent to somebody who left.
NOT_OPTED_IN: Final = Reason(ReasonCode.RECIPIENT_NOT_OPTED_IN, "The recipient has opted out of these messages.")
_NOTHING_IS_SENT: Final = frozenset({Verdict.NOT_CONFIGURED, Verdict.NOT_INSTALLED})


def _why_empty(verdicts: Collection[Verdict]) -> Reason:
    if not _NOTHING_IS_SENT.isdisjoint(verdicts):
        return Reason(ReasonCode.CHANNEL_CONFIGURATION_MISSING, "A channel of the order is not configured in the app.")
    if Verdict.NOT_OPTED_IN in verdicts:
        return NOT_OPTED_IN
    if Verdict.NO_ACCOUNT in verdicts:
        return Reason(ReasonCode.CHANNEL_BAD_CONFIGURATION, "The app's credentials name no provider account.")
    return Reason(
        ReasonCode.NO_CHANNEL_IDENTITY_FOR_CONTACT, "The recipient has no identity on the channels asked for."
    )

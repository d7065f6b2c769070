"""Whether and by which channel an event reaches a person: one channel, no failover (conversation-api 6.2, 11.5)."""

from collections.abc import Mapping, Sequence

from msgspec import Struct

from switchboard.channel.manifest import Manifest
from switchboard.content import AppEvent
from switchboard.identity import ChannelIdentity, ChannelName
from switchboard.ids import AccountKey
from switchboard.reason import Reason, ReasonCode
from switchboard.rules.route import plan_route


class PlannedEvent(Struct, frozen=True):
    """Where an event goes, or why nowhere."""

    identity: ChannelIdentity | None
    refused: Reason | None = None


def kind_of(event: AppEvent) -> str:
    """The name of the one event that is given, as manifests name it."""
    return next((name for name in event.__struct_fields__ if getattr(event, name) is not None), "")


def plan_event(
    event: AppEvent,
    identities: Sequence[ChannelIdentity],
    order: Sequence[ChannelName],
    configured: Mapping[ChannelName, AccountKey | None],
    manifests: Mapping[ChannelName, Manifest],
) -> PlannedEvent:
    """The one channel of an event: the first of the order, else of the identities.

    A channel without support for this kind of event refuses it with BAD_REQUEST, naming both.
    """
    asked = tuple(order[:1]) or tuple(identity.channel for identity in identities[:1])
    mine = [identity for identity in identities if identity.channel in asked]
    route = plan_route(mine, asked, configured, manifests)
    if not route.steps:
        return PlannedEvent(next(iter(mine), next(iter(identities), None)), route.empty_because)
    identity = route.steps[0].identity
    kind = kind_of(event)
    if kind not in manifests[identity.channel].events:
        return PlannedEvent(identity, Reason(ReasonCode.BAD_REQUEST, f"{identity.channel} does not support {kind}."))
    return PlannedEvent(identity)

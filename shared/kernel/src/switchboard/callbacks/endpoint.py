"""Where a callback goes: the webhooks of the app that ask for it, or the message's own URL (conversation-api 10.5).

An endpoint is what has one health: a webhook, or for overriding URLs the server of an app's URLs, since each message
may bring another path. Its key names its lane.
"""

from collections.abc import Iterable
from typing import Final, Protocol
from urllib.parse import urlsplit

from msgspec import Struct

from switchboard.ids import AppId, LaneId
from switchboard.trigger import Trigger

#: The target type of a webhook to which nothing is sent.
_DISMISS: Final = "DISMISS"
_PORTS: Final = {"http": 80, "https": 443}


class WebhookFacts(Protocol):
    """What of a webhook decides where callbacks go."""

    @property
    def id(self) -> str: ...
    @property
    def target(self) -> str: ...
    @property
    def target_type(self) -> str: ...
    @property
    def triggers(self) -> Iterable[str]: ...


class Endpoint(Struct, frozen=True):
    """Where one callback goes, as `DeliverCallback` carries it."""

    #: The webhook's id, or "" where `target` overrides all webhooks.
    webhook_id: str
    #: The overriding URL, or "": a webhook's target is looked up when it is posted to.
    target: str


def endpoints_of(trigger: Trigger, webhooks: Iterable[WebhookFacts], callback_url: str = "") -> tuple[Endpoint, ...]:
    """The endpoints of a callback, in the order of the webhooks; none if nobody asked for it.

    `callback_url` is the message's own: delivery reports of messages and events go there and nowhere else.
    """
    if callback_url and trigger in OVERRIDDEN:
        return (Endpoint("", callback_url),)
    wanted = _same(trigger)
    return tuple(
        Endpoint(webhook.id, "")
        for webhook in webhooks
        if webhook.target_type != _DISMISS and any(_same(asked) == wanted for asked in webhook.triggers)
    )


#: What a message's (or event's) own `callback_url` redirects.
OVERRIDDEN: Final = frozenset({Trigger.MESSAGE_DELIVERY, Trigger.EVENT_DELIVERY})


def lane_of(app_id: AppId, webhook_id: str, target: str) -> LaneId:
    """The lane of an endpoint: its webhook's, or that of one app's URLs on one server.

    Raises ValueError if there is no webhook and the URL names no server.
    """
    if webhook_id:
        return LaneId(f"endpoint:{webhook_id}")
    parts = urlsplit(target)
    port = parts.port or _PORTS.get(parts.scheme)
    if not parts.hostname or port is None:
        raise ValueError("the callback URL names no server that can be reached by HTTP")
    return LaneId(f"endpoint:{app_id}:{parts.scheme}:{parts.hostname.rstrip('.')}:{port}")


def _same(asked: str) -> str:
    return Trigger.SMART_CONVERSATION if asked == Trigger.SMART_CONVERSATIONS else asked

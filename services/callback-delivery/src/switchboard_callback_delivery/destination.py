"""Where an event is posted and how: looked up when it is posted, so that a changed webhook counts at once."""

from collections.abc import Iterable
from typing import Final, Protocol

from msgspec import Struct

from switchboard.configuration import App, ClientCredentials, RetentionType, TargetType, Webhook
from switchboard.ids import AppId
from switchboard_callback_delivery.event import Event

_DAY_SECONDS: Final = 86_400
#: What is kept until somebody deletes it is kept as long as a policy of days can say.
_MOST_DAYS: Final = 3650


class Apps(Protocol):
    """What is asked of the configuration."""

    async def app(self, app_id: AppId) -> App | None: ...

    async def webhooks(self, app_id: AppId) -> tuple[Webhook, ...]: ...

    def forget(self, app_id: AppId) -> None: ...


class Destination(Struct, frozen=True):
    """Where and how an event is posted. Secrets are in clear: never logged."""

    url: str
    #: Newest first.
    secrets: tuple[str, ...]
    credentials: ClientCredentials | None
    #: Callbacks a second.
    per_second: float
    #: How long the app keeps messages; None: not at all.
    kept_seconds: float | None
    #: Answers the webhook wants to be final.
    ends_on: frozenset[int] = frozenset()
    #: Until when the secrets before the newest sign too, in Unix seconds; None: as long as they are there.
    rotation_until: float | None = None

    def secrets_at(self, unix_seconds: float) -> tuple[str, ...]:
        """The secrets that sign at that time, the newest first."""
        is_over = self.rotation_until is not None and unix_seconds >= self.rotation_until
        return self.secrets[:1] if is_over else self.secrets

    def __repr__(self) -> str:
        return "Destination()"


async def destination_of(apps: Apps, event: Event) -> Destination | None:
    """Where the event goes now. None if its app or webhook is gone, or dismisses what it gets.

    None is for good, so it is never said from memory: the router may have heard of a new webhook before this process.
    """
    found = await _destination_of(apps, event)
    if found is None:
        apps.forget(event.app_id)
        found = await _destination_of(apps, event)
    return found


async def _destination_of(apps: Apps, event: Event) -> Destination | None:
    app = await apps.app(event.app_id)
    if app is None:
        return None
    per_second, kept = float(app.rate_limits.webhooks), kept_seconds(app)
    if not event.webhook_id:
        # No OAuth2 for overriding URLs (conversation-api 10.5).
        secret = app.callback_settings.secret_for_overridden_callback_urls
        return Destination(event.target, (secret,) if secret else (), None, per_second, kept)
    for webhook in await apps.webhooks(event.app_id):
        if webhook.id == event.webhook_id and webhook.target_type is not TargetType.DISMISS:
            return Destination(
                webhook.target,
                webhook.secrets,
                webhook.client_credentials,
                per_second,
                kept,
                frozenset(webhook.ends_retries_on),
                webhook.rotation_until.timestamp() if webhook.rotation_until else None,
            )
    return None


async def destinations_of(apps: Apps, events: Iterable[Event]) -> list[Destination | None]:
    """Where each of a batch goes now: looked up once for those that go to the same place."""
    found: dict[tuple[AppId, str, str], Destination | None] = {}
    destinations = []
    for event in events:
        place = (event.app_id, event.webhook_id, event.target)
        if place not in found:
            found[place] = await destination_of(apps, event)
        destinations.append(found[place])
    return destinations


def kept_seconds(app: App) -> float | None:
    """How long an app keeps messages; None: not at all."""
    policy = app.retention
    if policy.retention_type is RetentionType.PERSIST_RETENTION_POLICY:
        return _MOST_DAYS * _DAY_SECONDS
    return policy.ttl_days * _DAY_SECONDS or None

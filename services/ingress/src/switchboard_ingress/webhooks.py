"""Webhooks: made, read, changed, deleted (conversation-api 4.3, 9.1)."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from switchboard.configuration import ConfigurationStore, Conflict, Webhook
from switchboard.ids import AppId, ProjectId, WebhookId, mint, random_token
from switchboard.store import callbacks
from switchboard.validation import Violation
from switchboard_ingress.apps import Apps
from switchboard_ingress.body import Body
from switchboard_ingress.checks import check_rotation, check_webhook
from switchboard_ingress.errors import BadRequest, NotFound
from switchboard_ingress.patching import patched
from switchboard_ingress.requests import SecretRotation, WebhookInput

FIELDS: Final = ("id", *WebhookInput.__struct_fields__)
#: Signing secrets kept after a change: the new one, and the one before for receivers that have not changed yet.
_SECRETS_KEPT: Final = 2

#: How long the secret before signs too after it was changed without saying for how long.
_OVERLAP: Final = timedelta(days=1)

_body: Final = Body(WebhookInput)
_rotation: Final = Body(SecretRotation)


class Webhooks:
    """The webhooks of all apps, by the API's rules."""

    def __init__(self, store: ConfigurationStore, apps: Apps) -> None:
        self._store = store
        self._apps = apps

    async def list(self, project_id: ProjectId, app_id: str) -> dict[str, Any]:
        """The webhooks of an app. Raises NotFound."""
        app = await self._apps.find(project_id, app_id)
        return {"webhooks": [_view(webhook) for webhook in await self._store.webhooks(app.id)]}

    async def get(self, project_id: ProjectId, webhook_id: str) -> dict[str, Any]:
        """One webhook. Raises NotFound."""
        return _view(await self.find(project_id, webhook_id))

    async def create(self, project_id: ProjectId, raw: bytes) -> dict[str, Any]:
        """Make a webhook. Raises BadRequest, and NotFound for its app."""
        given = _body.read(raw)
        secrets = (given.secret,) if given.secret else ()
        webhook = _webhook(WebhookId(mint()), project_id, given, secrets, None)
        await self._put(webhook)
        return _view(webhook)

    async def change(
        self, project_id: ProjectId, webhook_id: str, raw: bytes, mask: Sequence[str] | None
    ) -> dict[str, Any]:
        """Change what the mask, or else the body, names. Raises NotFound, BadRequest."""

        def change(before: Webhook) -> Webhook:
            given = _body.plain(raw or b"{}")
            if not isinstance(given, dict):
                _body.convert(given)  # refuses it by name
            changed = _body.convert(patched(_writable(before), given, mask, FIELDS))
            secrets, until = before.secrets, before.rotation_until
            if changed.secret != before.secret:
                secrets = (changed.secret, *secrets)[:_SECRETS_KEPT] if changed.secret else ()
                until = datetime.now(UTC) + _OVERLAP
            return _webhook(before.id, project_id, changed, secrets, until)

        return _view(await self._change(project_id, webhook_id, change))

    async def rotate_secret(self, project_id: ProjectId, webhook_id: str, raw: bytes) -> dict[str, Any]:
        """Give a webhook a new secret; for a while the one before signs too. Raises NotFound, BadRequest."""

        def rotate(before: Webhook) -> Webhook:
            rotation = _rotation.read(raw or b"{}")
            if found := check_rotation(rotation):
                raise BadRequest(*found)
            secret = rotation.secret or random_token()
            secrets = before.secrets if secret == before.secret else (secret, *before.secrets)[:_SECRETS_KEPT]
            until = datetime.now(UTC) + timedelta(seconds=int(rotation.overlap[:-1]))
            if until <= datetime.now(UTC):
                secrets = secrets[:1]
            return replace(before, secrets=secrets, rotation_until=until if len(secrets) > 1 else None)

        changed = await self._change(project_id, webhook_id, rotate)
        return {"webhook": _view(changed), "previous_secret_until": changed.rotation_until}

    async def delete(self, project_id: ProjectId, webhook_id: str) -> None:
        """Delete a webhook, and give up what waits for it. Raises NotFound."""
        webhook = await self.find(project_id, webhook_id)
        if not await self._store.delete_webhook(webhook.id):
            raise _no_such_webhook()
        # Its lane would come to each at its own time: behind a closed gate at the next probe.
        await callbacks.dismiss_waiting(self._store.pool, project_id, webhook.app_id, webhook.id)

    async def _change(self, project_id: ProjectId, webhook_id: str, change: Callable[[Webhook], Webhook]) -> Webhook:
        """Write what `change` makes of the webhook as it is; again, if somebody else changed it meanwhile."""
        while True:
            before = await self.find(project_id, webhook_id)
            after = change(before)
            if await self._put(after, instead_of=before):
                return after

    async def _put(self, webhook: Webhook, *, instead_of: Webhook | None = None) -> bool:
        await self._apps.find(webhook.project_id, webhook.app_id)
        try:
            return await self._store.put_webhook(webhook, instead_of=instead_of)
        except Conflict as conflict:
            raise BadRequest(Violation(conflict.field, conflict.description)) from conflict

    async def find(self, project_id: ProjectId, webhook_id: str) -> Webhook:
        """One webhook of a project. Raises NotFound."""
        webhook = await self._store.webhook(WebhookId(webhook_id))
        if webhook is None or webhook.project_id != project_id:
            raise _no_such_webhook()
        return webhook


def _no_such_webhook() -> NotFound:
    return NotFound("There is no such webhook in the project.")


def _webhook(
    webhook_id: WebhookId,
    project_id: ProjectId,
    given: WebhookInput,
    secrets: tuple[str, ...],
    rotation_until: datetime | None,
) -> Webhook:
    """The webhook that an input makes. Raises BadRequest."""
    if found := check_webhook(given):
        raise BadRequest(*found)
    return Webhook(
        id=webhook_id,
        app_id=AppId(given.app_id),
        project_id=project_id,
        target=given.target,
        triggers=given.triggers,
        target_type=given.target_type,
        secrets=secrets,
        client_credentials=given.client_credentials,
        rotation_until=rotation_until if len(secrets) > 1 else None,
        ends_retries_on=given.ends_retries_on,
    )


def _view(webhook: Webhook) -> dict[str, Any]:
    shown = {name: getattr(webhook, name) for name in FIELDS}
    if not webhook.ends_retries_on:
        # A field that the contract does not know stands only where somebody set it.
        del shown["ends_retries_on"]
    return shown


def _writable(webhook: Webhook) -> dict[str, Any]:
    shown = {name: msgspec.to_builtins(getattr(webhook, name)) for name in WebhookInput.__struct_fields__}
    return {name: value for name, value in shown.items() if value is not None}

"""Webhooks: made, read, changed, deleted (conversation-api 4.3, 9.1)."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from switchboard.configuration import ConfigurationStore, Conflict, Webhook
from switchboard.ids import AppId, ProjectId, WebhookId, mint
from switchboard.validation import Violation
from switchboard_ingress.apps import Apps
from switchboard_ingress.body import Body
from switchboard_ingress.checks import check_webhook
from switchboard_ingress.errors import BadRequest, NotFound
from switchboard_ingress.patching import patched
from switchboard_ingress.requests import WebhookInput

FIELDS: Final = ("id", *WebhookInput.__struct_fields__)
#: Signing secrets kept after a change: the new one, and the one before for receivers that have not changed yet.
_SECRETS_KEPT: Final = 2

_body: Final = Body(WebhookInput)


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
        return _view(await self._find(project_id, webhook_id))

    async def create(self, project_id: ProjectId, raw: bytes) -> dict[str, Any]:
        """Make a webhook. Raises BadRequest, and NotFound for its app."""
        given = _body.read(raw)
        secrets = (given.secret,) if given.secret else ()
        return await self._put(project_id, WebhookId(mint()), given, secrets)

    async def change(
        self, project_id: ProjectId, webhook_id: str, raw: bytes, mask: Sequence[str] | None
    ) -> dict[str, Any]:
        """Change what the mask, or else the body, names. Raises NotFound, BadRequest."""
        webhook = await self._find(project_id, webhook_id)
        given = _body.plain(raw or b"{}")
        if not isinstance(given, dict):
            _body.convert(given)  # refuses it by name
        changed = _body.convert(patched(_writable(webhook), given, mask, FIELDS))
        secrets = webhook.secrets
        if changed.secret != webhook.secret:
            secrets = (changed.secret, *secrets)[:_SECRETS_KEPT] if changed.secret else ()
        return await self._put(project_id, webhook.id, changed, secrets)

    async def delete(self, project_id: ProjectId, webhook_id: str) -> None:
        """Delete a webhook. Raises NotFound."""
        webhook = await self._find(project_id, webhook_id)
        if not await self._store.delete_webhook(webhook.id):
            raise _no_such_webhook()

    async def _put(
        self, project_id: ProjectId, webhook_id: WebhookId, given: WebhookInput, secrets: tuple[str, ...]
    ) -> dict[str, Any]:
        if found := check_webhook(given):
            raise BadRequest(*found)
        await self._apps.find(project_id, given.app_id)
        webhook = Webhook(
            id=webhook_id,
            app_id=AppId(given.app_id),
            project_id=project_id,
            target=given.target,
            triggers=given.triggers,
            target_type=given.target_type,
            secrets=secrets,
            client_credentials=given.client_credentials,
        )
        try:
            await self._store.put_webhook(webhook)
        except Conflict as conflict:
            raise BadRequest(Violation(conflict.field, conflict.description)) from conflict
        return _view(webhook)

    async def _find(self, project_id: ProjectId, webhook_id: str) -> Webhook:
        webhook = None if "\x00" in webhook_id else await self._store.webhook(WebhookId(webhook_id))
        if webhook is None or webhook.project_id != project_id:
            raise _no_such_webhook()
        return webhook


def _no_such_webhook() -> NotFound:
    return NotFound("There is no such webhook in the project.")


def _view(webhook: Webhook) -> dict[str, Any]:
    return {name: getattr(webhook, name) for name in FIELDS}


def _writable(webhook: Webhook) -> dict[str, Any]:
    shown = {name: msgspec.to_builtins(getattr(webhook, name)) for name in WebhookInput.__struct_fields__}
    return {name: value for name, value in shown.items() if value is not None}

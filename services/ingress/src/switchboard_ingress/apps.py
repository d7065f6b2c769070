"""Apps: made, read, changed, deleted (conversation-api 4.2)."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from switchboard.channel.manifest import AccountOwner, Manifest
from switchboard.configuration import App, AppSettings, Configuration, Credential
from switchboard.configuration.credential import CredentialState, CredentialStatus
from switchboard.identity import ChannelName
from switchboard.ids import AppId, ProjectId, mint
from switchboard.records import ProcessingMode
from switchboard.store import callbacks
from switchboard_ingress.body import Body
from switchboard_ingress.checks import check_app
from switchboard_ingress.errors import BadRequest, NotFound
from switchboard_ingress.limits import WaitingCounts
from switchboard_ingress.patching import patched
from switchboard_ingress.requests import AppInput

#: Every field of an app, in the order clients read them.
FIELDS: Final = (
    "id", "channel_credentials", "conversation_metadata_report_view", "display_name", "rate_limits",
    "retention_policy", "dispatch_retention_policy", "processing_mode", "smart_conversation", "queue_stats",
    "persist_message_status", "message_search", "callback_settings", "delivery_report_based_fallback",
    "message_retry_settings", "on_unknown",
)  # fmt: skip

_body: Final = Body(AppInput)


class Apps:
    """The apps of all projects, by the API's rules."""

    def __init__(
        self,
        configuration: Configuration,
        manifests: Mapping[ChannelName, Manifest],
        waiting: WaitingCounts,
        default_mode: ProcessingMode,
    ) -> None:
        """`default_mode` is that of an app that is made without saying one."""
        self._configuration = configuration
        self._store = configuration.store
        self._manifests = manifests
        self._waiting = waiting
        self._default_mode = default_mode

    async def list(self, project_id: ProjectId) -> dict[str, Any]:
        """All apps of the project."""
        return {"apps": [await self._view(app) for app in await self._store.apps(project_id)]}

    async def get(self, project_id: ProjectId, app_id: str) -> dict[str, Any]:
        """One app. Raises NotFound."""
        return await self._view(await self.find(project_id, app_id))

    async def create(self, project_id: ProjectId, raw: bytes) -> dict[str, Any]:
        """Make an app. Raises BadRequest."""
        app = self._app(_body.read(raw), AppId(mint()), project_id)
        await self._store.insert_app(app)
        return await self._view(app, is_fresh=True)

    async def change(
        self, project_id: ProjectId, app_id: str, raw: bytes, mask: Sequence[str] | None
    ) -> dict[str, Any]:
        """Change what the mask, or else the body, names. Raises NotFound, BadRequest."""
        app = await self.find(project_id, app_id)
        given = _body.plain(raw or b"{}")
        if not isinstance(given, dict):
            _body.convert(given)  # refuses it by name

        def change(before: App) -> App:
            changed = _body.convert(patched(_writable(before), given, mask, FIELDS))
            return self._app(changed, before.id, project_id, before=before)

        written = await self._store.change_app(app.id, change)
        if written is None:
            raise _no_such_app()
        return await self._view(written)

    async def delete(self, project_id: ProjectId, app_id: str) -> None:
        """Delete an app with its webhooks, and give up what waits for them. Raises NotFound."""
        app = await self.find(project_id, app_id)
        if not await self._store.delete_app(app.id):
            raise _no_such_app()
        await callbacks.dismiss_waiting(self._store.pool, project_id, app.id)

    async def find(self, project_id: ProjectId, app_id: str) -> App:
        """An app of the project as it is stored now. Raises NotFound."""
        app = None if "\x00" in app_id else await self._store.app(AppId(app_id))
        if app is None or app.project_id != project_id:
            raise _no_such_app()
        return app

    def _app(self, given: AppInput, app_id: AppId, project_id: ProjectId, before: App | None = None) -> App:
        """The app that an input makes. What only operators write stays as it was. Raises BadRequest."""
        if found := check_app(given):
            raise BadRequest(*found)
        fields = {name: getattr(given, name) for name in given.__struct_fields__}
        fields["processing_mode"] = given.processing_mode or self._default_mode
        if before:
            fields |= {name: getattr(before, name) for name in AppSettings.__struct_fields__ if name not in fields}
        return App(id=app_id, project_id=project_id, **fields)

    async def _view(self, app: App, *, is_fresh: bool = False) -> dict[str, Any]:
        shown: dict[str, Any] = {name: getattr(app, name, None) for name in FIELDS}
        shown["channel_credentials"] = [
            self._credential_view(app, credential, is_fresh) for credential in app.channel_credentials
        ]
        shown["queue_stats"] = {
            "outbound_size": 0 if is_fresh else await self._waiting.count(app.id),
            "outbound_limit": self._waiting.limit,
        }
        return shown

    def _credential_view(self, app: App, credential: Credential, is_fresh: bool) -> dict[str, Any]:
        return {
            "channel": credential.channel,
            **{name: getattr(credential, name) for name in credential.given},
            "callback_secret": credential.callback_secret,
            "channel_known_id": "",
            "state": CredentialState() if is_fresh else self._state(app, credential),
            "credential_ordinal_number": credential.credential_ordinal_number,
        }

    def _state(self, app: App, credential: Credential) -> CredentialState:
        manifest = self._manifests.get(credential.channel)
        if manifest is None:
            return CredentialState(CredentialStatus.FAILING, f"{credential.channel} is not installed here.")
        is_operators = manifest.owner is AccountOwner.OPERATOR
        if is_operators and self._configuration.account_key(app, credential.channel) is None:
            return CredentialState(CredentialStatus.FAILING, "The operator has no provider account of this name.")
        return CredentialState(CredentialStatus.ACTIVE)


def _no_such_app() -> NotFound:
    return NotFound("There is no such app in the project.")


def _writable(app: App) -> dict[str, Any]:
    return {name: msgspec.to_builtins(getattr(app, name)) for name in AppInput.__struct_fields__}

"""Configuration in PostgreSQL, secrets sealed. Every write is told to all services by the tables' triggers."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final

import asyncpg
import msgspec
import structlog
from msgspec import Struct

from switchboard.channel.errors import NotConfigured
from switchboard.channel.manifest import Manifest
from switchboard.configuration.app import App, AppSettings, CallbackSettings, RateLimits
from switchboard.configuration.credential import Credential
from switchboard.configuration.types import AccessKey, ClientCredentials, ProviderAccount, TargetType, Webhook
from switchboard.identity import ChannelName
from switchboard.ids import AccountKey, AppId, ProjectId, WebhookId
from switchboard.rules.consent import ConsentSettings
from switchboard.secrets import MIN_ACCESS_SECRET_LENGTH, KeyRing, SecretError, hash_access_secret
from switchboard.store.pool import Pool
from switchboard.trigger import Trigger

log = structlog.get_logger(__name__)

#: Webhooks an app may have (conversation-api 9.1).
MAX_WEBHOOKS: Final = 5

_encode: Final = msgspec.json.Encoder().encode


class Conflict(Exception):
    """What was to be written contradicts what is there. `field` is the request's."""

    def __init__(self, field: str, description: str) -> None:
        super().__init__(f"{field}: {description}")
        self.field = field
        self.description = description


class _AppSecrets(Struct, frozen=True):
    channel_credentials: tuple[Credential, ...] = ()
    callback_settings: CallbackSettings = CallbackSettings()


class _WebhookSecrets(Struct, frozen=True):
    secrets: tuple[str, ...] = ()
    client_credentials: ClientCredentials | None = None
    rotation_until: datetime | None = None


_settings: Final = msgspec.json.Decoder(AppSettings)
_app_secrets: Final = msgspec.json.Decoder(_AppSecrets)
_webhook_secrets: Final = msgspec.json.Decoder(_WebhookSecrets)

_APP: Final = "SELECT id, project_id, settings::text, credentials FROM switchboard.apps WHERE deleted_at IS NULL"
_WEBHOOK: Final = (
    "SELECT id, app_id, project_id, target, target_type, triggers, secrets, ends_retries_on"
    " FROM switchboard.webhooks WHERE deleted_at IS NULL"
)


class ConfigurationStore:
    """Reads and writes configuration. Nothing is cached here: see `switchboard.configuration.cache`."""

    def __init__(self, pool: Pool, keys: KeyRing, manifests: Mapping[ChannelName, Manifest]) -> None:
        self.pool = pool
        self.manifests = manifests
        self._keys = keys

    # -- projects and access keys

    async def put_project(self, project_id: ProjectId, display_name: str) -> None:
        """Make a project, or rename it."""
        await self.pool.execute(
            "INSERT INTO switchboard.projects (id, display_name) VALUES ($1, $2)"
            " ON CONFLICT (id) DO UPDATE SET display_name = excluded.display_name",
            project_id, display_name,
        )  # fmt: skip

    async def put_access_key(self, key_id: str, project_id: ProjectId, secret: str) -> None:
        """Make an access key, or give it a new secret. Raises ValueError for a secret that could be guessed."""
        if len(secret) < MIN_ACCESS_SECRET_LENGTH:
            raise ValueError(f"a random secret of at least {MIN_ACCESS_SECRET_LENGTH} characters is expected")
        await self.pool.execute(
            "INSERT INTO switchboard.access_keys (id, project_id, secret_hash) VALUES ($1, $2, $3) ON CONFLICT (id)"
            " DO UPDATE SET project_id = excluded.project_id, secret_hash = excluded.secret_hash, revoked_at = NULL",
            key_id, project_id, hash_access_secret(key_id, secret),
        )  # fmt: skip

    async def revoke_access_key(self, key_id: str) -> None:
        """End an access key; tokens made with it end too."""
        await self.pool.execute(
            "UPDATE switchboard.access_keys SET revoked_at = switchboard.now() WHERE id = $1 AND revoked_at IS NULL",
            key_id,
        )

    async def access_key(self, key_id: str) -> AccessKey | None:
        """The key of that id, revoked or not."""
        row = await self.pool.fetchrow(
            "SELECT id, project_id, secret_hash, revoked_at FROM switchboard.access_keys WHERE id = $1", key_id
        )
        return AccessKey(*row) if row else None

    # -- apps

    async def app(self, app_id: AppId) -> App | None:
        """The app of that id, unless it was deleted."""
        row = await self.pool.fetchrow(f"{_APP} AND id = $1", app_id)
        return self._read_app(row) if row else None

    async def apps(self, project_id: ProjectId) -> list[App]:
        """All apps of a project, oldest first."""
        rows = await self.pool.fetch(f"{_APP} AND project_id = $1 ORDER BY id", project_id)
        return [self._read_app(row) for row in rows]

    async def app_ids(self, project_id: ProjectId) -> tuple[AppId, ...]:
        """The ids of all apps of a project, oldest first."""
        rows = await self.pool.fetch(
            "SELECT id FROM switchboard.apps WHERE project_id = $1 AND deleted_at IS NULL ORDER BY id", project_id
        )
        return tuple(AppId(row["id"]) for row in rows)

    async def insert_app(self, app: App) -> None:
        """Make an app. Raises Conflict if its project does not exist."""
        try:
            await self.pool.execute(
                "INSERT INTO switchboard.apps (id, project_id, settings, credentials)"
                " VALUES ($1, $2, $3::text::jsonb, $4)",
                app.id, app.project_id, *self._app_columns(app),
            )  # fmt: skip
        except asyncpg.ForeignKeyViolationError:
            raise Conflict("project_id", "no such project") from None

    async def update_app(self, app: App) -> bool:
        """Write an app anew, whatever it was. Returns whether there was one."""
        return await self.change_app(app.id, lambda _: app) is not None

    async def change_app(self, app_id: AppId, change: Callable[[App], App]) -> App | None:
        """Write an app as `change` makes it of what it is, and return that. None if there is none.

        What `change` raises is raised, and nothing is written.
        """
        async with self.pool.acquire() as connection, connection.transaction():
            # Whoever changes it meanwhile waits, and changes what was written here.
            row = await connection.fetchrow(f"{_APP} AND id = $1 FOR UPDATE", app_id)
            if row is None:
                return None
            app = change(self._read_app(row))
            await connection.execute(
                "UPDATE switchboard.apps SET settings = $2::text::jsonb, credentials = $3,"
                " updated_at = switchboard.now() WHERE id = $1",
                app_id, *self._app_columns(app),
            )  # fmt: skip
        return app

    async def set_consent(self, app_id: AppId, consent: ConsentSettings) -> None:
        """Set an app's consent management."""
        await self.pool.execute(
            "UPDATE switchboard.apps SET settings = jsonb_set(settings, '{consent}', $2::text::jsonb),"
            " updated_at = switchboard.now() WHERE id = $1 AND deleted_at IS NULL",
            app_id, _encode(consent).decode(),
        )  # fmt: skip

    async def set_rate_limits(self, app_id: AppId, limits: RateLimits) -> bool:
        """Give an app its rates: an operator's right. Returns whether there was one."""
        changed = await self.pool.fetchval(
            "UPDATE switchboard.apps SET settings = jsonb_set(settings, '{rate_limits}', $2::text::jsonb),"
            " updated_at = switchboard.now() WHERE id = $1 AND deleted_at IS NULL RETURNING 1",
            app_id, _encode(limits).decode(),
        )  # fmt: skip
        return changed is not None

    async def delete_app(self, app_id: AppId) -> bool:
        """Delete an app with its webhooks and numbers. Returns whether there was one."""
        async with self.pool.acquire() as connection, connection.transaction():
            deleted = await connection.fetchval(
                "UPDATE switchboard.apps SET deleted_at = switchboard.now() WHERE id = $1 AND deleted_at IS NULL"
                " RETURNING 1",
                app_id,
            )
            await connection.execute(
                "UPDATE switchboard.webhooks SET deleted_at = switchboard.now()"
                " WHERE app_id = $1 AND deleted_at IS NULL",
                app_id,
            )
            await connection.execute("DELETE FROM switchboard.provider_numbers WHERE app_id = $1", app_id)
        return deleted is not None

    # -- webhooks

    async def webhook(self, webhook_id: WebhookId) -> Webhook | None:
        """The webhook of that id, unless it was deleted."""
        row = await self.pool.fetchrow(f"{_WEBHOOK} AND id = $1", webhook_id)
        return self._read_webhook(row) if row else None

    async def webhooks(self, app_id: AppId) -> tuple[Webhook, ...]:
        """All webhooks of an app, oldest first."""
        rows = await self.pool.fetch(f"{_WEBHOOK} AND app_id = $1 ORDER BY id", app_id)
        return tuple(self._read_webhook(row) for row in rows)

    async def put_webhook(self, webhook: Webhook, *, instead_of: Webhook | None = None) -> bool:
        """Make a webhook, or write it anew. Raises Conflict for a sixth one of the app or a target it already has.

        With `instead_of` only if it still is as that says. Returns whether it was written.
        """
        async with self.pool.acquire() as connection, connection.transaction():
            # The app's row keeps two requests from both making the fifth.
            await connection.execute("SELECT FROM switchboard.apps WHERE id = $1 FOR UPDATE", webhook.app_id)
            others = await connection.fetchval(
                "SELECT count(*) FROM switchboard.webhooks WHERE app_id = $1 AND id <> $2 AND deleted_at IS NULL",
                webhook.app_id, webhook.id,
            )  # fmt: skip
            if others >= MAX_WEBHOOKS:
                raise Conflict("app_id", f"an app has at most {MAX_WEBHOOKS} webhooks")
            if instead_of is not None:
                row = await connection.fetchrow(f"{_WEBHOOK} AND id = $1 FOR UPDATE", webhook.id)
                if row is None or self._read_webhook(row) != instead_of:
                    return False
            # The trigger tells of the app it belongs to now; the one it leaves has to hear of it too.
            await connection.execute(
                "SELECT pg_notify('switchboard_configuration', 'webhooks:' || app_id)"
                " FROM switchboard.webhooks WHERE id = $1 AND app_id <> $2",
                webhook.id, webhook.app_id,
            )  # fmt: skip
            try:
                await connection.execute(
                    "INSERT INTO switchboard.webhooks"
                    " (id, app_id, project_id, target, target_type, triggers, secrets, ends_retries_on)"
                    " VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (id) DO UPDATE SET app_id = excluded.app_id,"
                    " target = excluded.target, target_type = excluded.target_type, triggers = excluded.triggers,"
                    " secrets = excluded.secrets, ends_retries_on = excluded.ends_retries_on,"
                    " updated_at = switchboard.now()",
                    webhook.id, webhook.app_id, webhook.project_id, webhook.target, webhook.target_type.value,
                    [trigger.value for trigger in webhook.triggers], self._seal_webhook(webhook),
                    webhook.ends_retries_on,
                )  # fmt: skip
            except asyncpg.UniqueViolationError:
                raise Conflict("target", "the app already has a webhook with this target") from None
        return True

    async def delete_webhook(self, webhook_id: WebhookId) -> bool:
        """Delete a webhook. Returns whether there was one."""
        deleted = await self.pool.fetchval(
            "UPDATE switchboard.webhooks SET deleted_at = switchboard.now() WHERE id = $1 AND deleted_at IS NULL"
            " RETURNING 1",
            webhook_id,
        )
        return deleted is not None

    # -- provider accounts and numbers

    async def put_account(self, channel: ChannelName, name: str, settings: bytes) -> AccountKey:
        """Make a provider account, or change its settings: JSON that the channel's manifest describes.

        Raises NotConfigured for settings the channel does not take.
        """
        self._read_settings(channel, name, settings)
        key = AccountKey(f"{channel}:{name}")
        await self.pool.execute(
            "INSERT INTO switchboard.provider_accounts (key, channel, name, settings) VALUES ($1, $2, $3, $4)"
            " ON CONFLICT (key) DO UPDATE SET settings = excluded.settings, updated_at = switchboard.now()",
            key, channel, name, self._keys.seal(settings, f"provider_accounts:{key}"),
        )  # fmt: skip
        return key

    async def accounts(self) -> list[ProviderAccount]:
        """All provider accounts of channels this process knows. One that cannot be read is left out and logged."""
        rows = await self.pool.fetch(
            "SELECT key, channel, name, settings FROM switchboard.provider_accounts"
            " WHERE channel = ANY($1::text[]) ORDER BY key",
            list(self.manifests),
        )
        found = []
        for row in rows:
            try:
                plain = self._keys.open(row["settings"], f"provider_accounts:{row['key']}")
                settings = self._read_settings(row["channel"], row["name"], plain)
            except (SecretError, NotConfigured) as error:
                log.error("a provider account cannot be used", account=row["key"], why=str(error))
                continue
            found.append(ProviderAccount(row["key"], row["channel"], row["name"], settings))
        return found

    async def put_number(self, account: AccountKey, number: str, app_id: AppId) -> None:
        """Give a number of an account to an app: what people write to it is the app's."""
        await self.pool.execute(
            "INSERT INTO switchboard.provider_numbers (account, number, app_id) VALUES ($1, $2, $3)"
            " ON CONFLICT (account, number) DO UPDATE SET app_id = excluded.app_id",
            account, number, app_id,
        )  # fmt: skip

    async def numbers(self, account: AccountKey) -> Mapping[str, AppId]:
        """Whose each number of an account is."""
        rows = await self.pool.fetch(
            "SELECT number, app_id FROM switchboard.provider_numbers WHERE account = $1", account
        )
        return {row["number"]: AppId(row["app_id"]) for row in rows}

    # -- rows

    def _app_columns(self, app: App) -> tuple[str, bytes]:
        settings = AppSettings(**{name: getattr(app, name) for name in AppSettings.__struct_fields__})
        secrets = _AppSecrets(app.channel_credentials, app.callback_settings)
        return _encode(settings).decode(), self._keys.seal(_encode(secrets), f"apps:{app.id}")

    def _read_app(self, row: asyncpg.Record) -> App:
        settings = _settings.decode(row["settings"])
        secrets = _app_secrets.decode(self._keys.open(row["credentials"], f"apps:{row['id']}"))
        return App(
            id=row["id"],
            project_id=row["project_id"],
            channel_credentials=secrets.channel_credentials,
            callback_settings=secrets.callback_settings,
            **msgspec.structs.asdict(settings),
        )

    def _seal_webhook(self, webhook: Webhook) -> bytes:
        secrets = _WebhookSecrets(webhook.secrets, webhook.client_credentials, webhook.rotation_until)
        return self._keys.seal(_encode(secrets), f"webhooks:{webhook.id}")

    def _read_webhook(self, row: asyncpg.Record) -> Webhook:
        secrets = _webhook_secrets.decode(self._keys.open(row["secrets"], f"webhooks:{row['id']}"))
        return Webhook(
            id=row["id"],
            app_id=row["app_id"],
            project_id=row["project_id"],
            target=row["target"],
            target_type=TargetType(row["target_type"]),
            triggers=tuple(map(Trigger, row["triggers"])),
            secrets=secrets.secrets,
            client_credentials=secrets.client_credentials,
            rotation_until=secrets.rotation_until,
            ends_retries_on=tuple(row["ends_retries_on"]),
        )

    def _read_settings(self, channel: ChannelName, name: str, settings: bytes) -> object:
        kind = self.manifests[channel].account_settings if channel in self.manifests else None
        if kind is None:
            raise NotConfigured(f"{channel} has no provider accounts")
        try:
            return kind.model_validate_json(settings)
        except ValueError as error:
            raise NotConfigured(f"provider account {name!r} of {channel}: {_fields(error)}") from None


def _fields(error: ValueError) -> str:
    """Which settings are wrong, without their values."""
    errors = getattr(error, "errors", None)
    if errors is None:
        return "not JSON"
    return "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in errors(include_input=False))

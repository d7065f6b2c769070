"""Configuration as services read it: from memory, told of every change by the database (DESIGN 5).

While the connection that hears of changes is away, what is in memory is still answered and nothing new is kept; when
it is back everything is forgotten, for a change may have been missed.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable, Mapping
from contextlib import suppress
from typing import Any, Final, Generic, TypeVar

import structlog

from switchboard.channel.contract import Account
from switchboard.channel.manifest import AccountOwner
from switchboard.configuration.app import App
from switchboard.configuration.credential import claimed_account
from switchboard.configuration.store import ConfigurationStore
from switchboard.configuration.types import AccessKey, ProviderAccount, Webhook
from switchboard.identity import ChannelName
from switchboard.ids import AccountKey, AppId, ProjectId
from switchboard.store.pool import TRANSIENT_ERRORS

log = structlog.get_logger(__name__)

_CHANNEL: Final = "switchboard_configuration"
#: How long "there is none" is believed. A row that appears is told at once; this bounds what a missed one costs.
ABSENT_SECONDS: Final = 5.0
_MOST_ABSENT: Final = 10_000
#: How often the connection that hears of changes is asked whether it still lives, and how long it may take.
_HEARTBEAT_SECONDS: Final = 10.0
_HEARTBEAT_TIMEOUT_SECONDS: Final = 5.0
_RECONNECT_SECONDS: Final = 0.5
_START_SECONDS: Final = 10.0

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Shelf(Generic[K, V]):
    """One kind of thing in memory. A thing that is changed while it is being read is not kept."""

    def __init__(self, load: Callable[[K], Awaitable[V | None]], clock: Callable[[], float] = time.monotonic) -> None:
        self._load = load
        self._clock = clock
        self._kept: dict[K, V] = {}
        self._absent: dict[K, float] = {}
        self._loading: dict[K, asyncio.Task[V | None]] = {}
        #: Whether changes are heard of, so that what is read may be kept.
        self.hears = False

    async def get(self, key: K) -> V | None:
        """The thing, from memory if it is there. Readers of one key share one look at the database."""
        kept = self._kept.get(key)
        if kept is not None:
            return kept
        until = self._absent.get(key)
        if until is not None and self._clock() < until:
            return None
        task = self._loading.get(key)
        if task is None:
            task = asyncio.create_task(self._read(key))
            self._loading[key] = task
        # A caller that gives up does not take the look away from the others.
        return await asyncio.shield(task)

    async def _read(self, key: K) -> V | None:
        task = asyncio.current_task()
        try:
            found = await self._load(key)
            # Not the registered look any more: the thing changed meanwhile, so this is good for those who asked only.
            if self._loading.get(key) is task and self.hears:
                self._keep(key, found)
            return found
        finally:
            if self._loading.get(key) is task:
                del self._loading[key]

    def _keep(self, key: K, found: V | None) -> None:
        if found is not None:
            self._kept[key] = found
            self._absent.pop(key, None)
            return
        if len(self._absent) >= _MOST_ABSENT:
            self._absent.clear()
        self._absent[key] = self._clock() + ABSENT_SECONDS

    def drop(self, key: K) -> None:
        """Forget one thing: it changed."""
        self._kept.pop(key, None)
        self._absent.pop(key, None)
        self._loading.pop(key, None)

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()
        self._absent.clear()
        self._loading.clear()


class Configuration:
    """Cached reads of apps, webhooks, accounts, numbers and access keys."""

    def __init__(self, store: ConfigurationStore) -> None:
        self.store = store
        self._manifests = store.manifests
        self._apps: Shelf[AppId, App] = Shelf(store.app)
        self._app_ids: Shelf[ProjectId, tuple[AppId, ...]] = Shelf(store.app_ids)
        self._webhooks: Shelf[AppId, tuple[Webhook, ...]] = Shelf(store.webhooks)
        self._numbers: Shelf[AccountKey, Mapping[str, AppId]] = Shelf(store.numbers)
        self._access_keys: Shelf[str, AccessKey] = Shelf(store.access_key)
        self._accounts: Mapping[AccountKey, ProviderAccount] = {}
        self._account_names: Mapping[tuple[ChannelName, str], AccountKey] = {}
        self._task: asyncio.Task[None] | None = None
        self._accounts_changed = asyncio.Event()
        self._listeners: list[Callable[[str], None]] = []
        self._hears = asyncio.Event()

    # -- life

    async def start(self) -> None:
        """Read the provider accounts and begin to hear of changes. Raises what the database raises."""
        await self._read_accounts()
        self._task = asyncio.create_task(self._listen())
        try:
            await asyncio.wait_for(self._hears.wait(), _START_SECONDS)
        except TimeoutError:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop hearing."""
        if self._task:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def hears(self) -> None:
        """Wait until changes are heard of: so from the start on, but not while the connection was lost."""
        await self._hears.wait()

    def on_change(self, tell: Callable[[str], None]) -> None:
        """Call `tell` after each change with what changed, `table:key`, and with "" when everything was forgotten."""
        self._listeners.append(tell)

    # -- reads

    async def app(self, app_id: AppId) -> App | None:
        """The app of that id."""
        return await self._apps.get(app_id)

    async def apps(self, project_id: ProjectId) -> tuple[App, ...]:
        """The apps of a project, oldest first."""
        found = [await self.app(app_id) for app_id in await self._app_ids.get(project_id) or ()]
        return tuple(app for app in found if app is not None)

    async def webhooks(self, app_id: AppId) -> tuple[Webhook, ...]:
        """The webhooks of an app."""
        return await self._webhooks.get(app_id) or ()

    def forget(self, app_id: AppId) -> None:
        """Ask the database when the app or its webhooks are read next: for who must not act on what was missed."""
        self._apps.drop(app_id)
        self._webhooks.drop(app_id)

    async def access_key(self, key_id: str) -> AccessKey | None:
        """The access key of that id, unless it was revoked."""
        key = await self._access_keys.get(key_id)
        return key if key and key.revoked_at is None else None

    def account_key(self, app: App, channel: ChannelName) -> AccountKey | None:
        """What the app sends through on a channel. None if it has no credentials or names no existing account."""
        credential = app.credentials.get(channel)
        manifest = self._manifests.get(channel)
        if credential is None or manifest is None:
            return None
        if manifest.owner is AccountOwner.APP:
            return AccountKey(f"app:{app.id}:{channel}")
        claimed = claimed_account(credential)
        return self._account_names.get((channel, claimed)) if claimed else None

    def account_keys(self, app: App) -> Mapping[ChannelName, AccountKey | None]:
        """What each of the app's channels sends through. None: the credentials name no account there is."""
        return {channel: self.account_key(app, channel) for channel in app.credentials}

    async def account(self, key: AccountKey, app_id: AppId) -> Account | None:
        """What a channel sends through, with its secrets. None if it does not exist any more.

        `app_id` is the app that sends; an app's own account is only given to that app.
        """
        if not key.startswith("app:"):
            found = self._accounts.get(key)
            return Account(key, settings=found.settings) if found else None
        _, owner, channel = key.split(":", 2)
        app = await self.app(app_id) if owner == app_id else None
        credential = app.credentials.get(ChannelName(channel)) if app else None
        if credential is None:
            return None
        fields = dict(credential.fields)
        if credential.callback_secret:
            fields["callback_secret"] = credential.callback_secret
        return Account(key, fields)

    async def accounts(self, channel: ChannelName) -> tuple[ProviderAccount, ...]:
        """The provider accounts of a channel."""
        return tuple(account for account in self._accounts.values() if account.channel == channel)

    async def app_of_number(self, account: AccountKey, number: str) -> AppId | None:
        """Whose a number of an account is."""
        return (await self._numbers.get(account) or {}).get(number)

    # -- changes

    @property
    def _shelves(self) -> tuple[Shelf[Any, Any], ...]:
        return self._apps, self._app_ids, self._webhooks, self._numbers, self._access_keys

    async def _listen(self) -> None:
        while True:
            try:
                await self._listen_once()
            except TRANSIENT_ERRORS as error:
                log.warning("configuration changes are not heard of", error=type(error).__name__)
            finally:
                self._hears.clear()
                for shelf in self._shelves:
                    shelf.hears = False
            await asyncio.sleep(_RECONNECT_SECONDS)

    async def _listen_once(self) -> None:
        lost = asyncio.Event()

        def lose(_: object) -> None:
            lost.set()

        async with self.store.pool.acquire() as connection:
            connection.add_termination_listener(lose)
            await connection.add_listener(_CHANNEL, self._heard)
            try:
                await self._forget_everything()
                while not lost.is_set():
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._next(lost), _HEARTBEAT_SECONDS)
                    if self._accounts_changed.is_set():
                        self._accounts_changed.clear()
                        await self._read_accounts()
                        self._tell("provider_accounts:")
                    # A connection that was cut without a word looks alive until it is asked.
                    await connection.fetchval("SELECT 1", timeout=_HEARTBEAT_TIMEOUT_SECONDS)
            finally:
                connection.remove_termination_listener(lose)
                with suppress(*TRANSIENT_ERRORS):
                    await connection.remove_listener(_CHANNEL, self._heard)

    async def _next(self, lost: asyncio.Event) -> None:
        waits = [asyncio.create_task(event.wait()) for event in (lost, self._accounts_changed)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _forget_everything(self) -> None:
        for shelf in self._shelves:
            shelf.clear()
            shelf.hears = True
        await self._read_accounts()
        self._hears.set()
        self._tell("")

    async def _read_accounts(self) -> None:
        accounts = await self.store.accounts()
        self._accounts = {account.key: account for account in accounts}
        self._account_names = {(account.channel, account.name): account.key for account in accounts}

    def _heard(self, _connection: object, _process: int, _channel: str, payload: object) -> None:
        change = str(payload)
        table, _, key = change.partition(":")
        match table:
            case "apps":
                self._apps.drop(AppId(key))
                # It may be a new one: which project it belongs to is not told.
                self._app_ids.clear()
            case "webhooks":
                self._webhooks.drop(AppId(key))
            case "provider_numbers":
                self._numbers.drop(AccountKey(key))
            case "access_keys":
                self._access_keys.drop(key)
            case "provider_accounts":
                self._accounts_changed.set()
                return  # told once they are read
            case _:
                return
        self._tell(change)

    def _tell(self, change: str) -> None:
        for tell in self._listeners:
            tell(change)

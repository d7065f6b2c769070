"""An app of its own in the shared installation, with its account, number, bot and receiver, and what became of it."""

from __future__ import annotations

import itertools
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import msgspec
from tests.flow.installed import Installed

import switchboard_channels
from switchboard.channel.registry import manifests
from switchboard.configuration import ConfigurationStore
from switchboard.identity import ChannelName
from switchboard.ids import AppId, MessageId, random_token
from switchboard.secrets import KeyRing
from switchboard.store.pool import open_pool
from switchboard.testing import wait_until
from switchboard.timeline import Kind

_numbers = itertools.count(1)
#: What the router decided; the rest of a timeline is told by others, at their own pace.
_DECIDED = frozenset({Kind.PLANNED, Kind.OUTCOME, Kind.RECEIPT, Kind.DUE, Kind.ABANDONED, Kind.DEAD_LETTER})
#: What an outcome's own record comes to where a receipt's told it already, and where that led to the next channel.
_NOTHING_NEW = frozenset({"late outcome", "outcome of an earlier attempt"})
#: A text of three parts.
LONG = "The ferry leaves at noon. " * 15


def phone(ending: str = "0000") -> str:
    """A number nobody else uses; its last four digits may be magic."""
    return f"4677{next(_numbers):05}{ending}"


def chat(ending: str = "0000") -> str:
    """A chat nobody else uses; its last four digits may be magic."""
    return f"70{next(_numbers):05}{ending}"


class Evidence:
    """The receiver's log, read once however often it is asked."""

    def __init__(self, installation: Installed) -> None:
        self._path = installation.home.callbacks_log
        self._read = 0
        self._lines: list[tuple[dict[str, Any], Any]] = []

    def of(self, receiver: str, about: str) -> list[tuple[dict[str, Any], Any]]:
        """Requests to a receiver whose body holds `about`, each with its JSON, in the order they came."""
        self._look()
        return [(line, body) for line, body in self._lines if line["receiver"] == receiver and about in line["body"]]

    def _look(self) -> None:
        if not self._path.exists():
            return
        with self._path.open("rb") as log:
            log.seek(self._read)
            fresh = log.read()
        whole = fresh[: fresh.rfind(b"\n") + 1]
        self._read += len(whole)
        for raw in whole.splitlines():
            line = msgspec.json.decode(raw)
            self._lines.append((line, msgspec.json.decode(line["body"])))


class Tenant:
    """One app."""

    def __init__(self, installation: Installed, evidence: Evidence, app: Mapping[str, Any], **facts: str) -> None:
        self.installation = installation
        self.app_id = AppId(app["id"])
        self.number = facts["number"]
        self.token = facts["token"]
        self.receiver = facts["receiver"]
        self.secret = facts["secret"]
        self.account = facts["account"]
        self._evidence = evidence

    async def send(self, text: str, *to: tuple[str, str], **fields: Any) -> MessageId:
        """Send a text to identities `(channel, identity)`, in this order of channels."""
        return await self.installation.send(text, *to, **{"app_id": self.app_id, **fields})

    async def say(self, channel: str, sender: str, text: str) -> None:
        """A person writes to the app."""
        to = self.number if channel == "SMS" else self.token.partition(":")[0]
        await self.installation.say(channel, sender, text, to)

    def callbacks(self, about: str, receiver: str = "") -> list[Any]:
        """Bodies of what was posted and answered 2xx. Asserts that each was signed right."""
        found = self._evidence.of(receiver or self.receiver, about)
        assert all(line["signature"] == "valid" for line, _ in found), found
        return [body for line, body in found if line["status"] is not None and line["status"] < 300]

    def tried(self, about: str) -> list[int]:
        """How each request about a message was answered, in order."""
        return [line["status"] for line, _ in self._evidence.of(self.receiver, about)]

    def reports(self, message_id: str, receiver: str = "") -> list[Any]:
        """The delivery reports of a message, in order."""
        bodies = self.callbacks(message_id, receiver)
        return [body["message_delivery_report"] for body in bodies if "message_delivery_report" in body]

    def told(self, message_id: str, receiver: str = "") -> list[str]:
        """The statuses the app was told, in order."""
        return [report["status"] for report in self.reports(message_id, receiver)]

    async def reported(self, message_id: MessageId, *statuses: str, timeout_seconds: float = 30.0) -> None:
        """Wait until the app was told exactly these statuses, in this order."""
        await wait_until(
            lambda: len(self.told(message_id)) >= len(statuses),
            timeout_seconds,
            lambda: f"{message_id}: {statuses}; told were {self.told(message_id)}",
        )
        assert self.told(message_id) == list(statuses), await self.story(message_id)

    def inbound(self, sender: str) -> list[Any]:
        """What the app was told that a person wrote, in order."""
        bodies = self.callbacks(sender)
        return [body["message"] for body in bodies if "contact_message" in body.get("message", {})]

    async def story(self, message_id: MessageId) -> list[str]:
        """What the router decided about a message, in order.

        A receipt may reach the router before its outcome does. Then one record tells both, and the outcome's own
        record nothing new: the story is the same.
        """
        moments = await self.installation.timeline(message_id)
        told = [note for moment in moments if moment.kind in _DECIDED for note in moment.entry.note.split("; ")]
        return [note for note in told if note not in _NOTHING_NEW]

    async def noted(self, message_id: MessageId, note: str, timeout_seconds: float = 20.0) -> None:
        """Wait until the router decided that."""

        async def is_noted() -> bool:
            return note in await self.story(message_id)

        await wait_until(is_noted, timeout_seconds, f"{message_id}: {note}")

    @staticmethod
    async def until(condition: Callable[[], Any], what: str, timeout_seconds: float = 20.0) -> None:
        """Wait until something is so."""
        await wait_until(condition, timeout_seconds, what)

    async def row(self, message_id: MessageId) -> Mapping[str, Any]:
        """The message's row, once the router made it."""

        async def found() -> Mapping[str, Any] | None:
            async with self.installation.database() as connection:
                row = await connection.fetchrow("SELECT * FROM messages WHERE id = $1", message_id)
            return None if row is None else dict(row)

        row: Mapping[str, Any] | None = await wait_until(found, 20, f"{message_id} is planned")
        assert row is not None
        return row

    async def in_phase(self, message_id: MessageId, phase: str) -> None:
        """Wait until the message is in this phase."""

        async def is_there() -> bool:
            async with self.installation.database() as connection:
                return bool(
                    await connection.fetchval(
                        "SELECT true FROM messages WHERE id = $1 AND phase = $2", message_id, phase
                    )
                )

        await wait_until(is_there, 20, f"{message_id} in {phase}")

    async def hasten(self, message_id: MessageId, **by: float) -> None:
        """Let time pass for this message alone: each of its deadlines moves so much nearer."""
        async with self.installation.database() as connection:
            await connection.execute(
                "UPDATE messages SET first_failed_at = first_failed_at - $2::interval,"
                " expires_at = expires_at - $2::interval, ttl_ends_at = ttl_ends_at - $2::interval,"
                " step_due_at = step_due_at - $2::interval, retry_at = retry_at - $2::interval,"
                " claim_due_at = claim_due_at - $2::interval, horizon_at = horizon_at - $2::interval,"
                " next_due = next_due - $2::interval WHERE id = $1 AND NOT final",
                message_id, timedelta(**by),
            )  # fmt: skip

    async def submitted(self, message_id: MessageId) -> int:
        """How many attempts were ever claimed by an adapter."""
        async with self.installation.database() as connection:
            return int(
                await connection.fetchval(
                    "SELECT count(*) FROM attempts WHERE message_id = $1 AND claimed_at IS NOT NULL", message_id
                )
            )


@asynccontextmanager
async def tenant(
    installation: Installed, name: str, *, sms: Mapping[str, Any] | None = None, rate: int = 500, **fields: Any
) -> AsyncIterator[Tenant]:
    """An app named `name`, ready to send. `sms` are settings of its provider account, `fields` those of the app."""
    running = installation.running
    number, secret, token = phone(), random_token(), f"{800_000_000 + next(_numbers)}:{random_token(20)}"
    async with ConfiguredStore(installation) as store:
        settings = {
            "host": "127.0.0.1", "port": installation.home.ports().smpp, "system_id": name[:15],
            "password": "password", "default_sender": number, "messages_per_second": None, "window": 100,
            "first_reconnect_seconds": 0.05, "longest_reconnect_seconds": 0.2, **(sms or {}),
        }  # fmt: skip
        account = await store.put_account(ChannelName("SMS"), name, msgspec.json.encode(settings))
        app = await _made(
            installation, "/apps",
            display_name=name, processing_mode="DISPATCH",
            dispatch_retention_policy={"retention_type": "MESSAGE_EXPIRE_POLICY", "ttl_days": 7},
            channel_credentials=[
                {"channel": "SMS", "static_bearer": {"claimed_identity": name, "token": "unused"}},
                {"channel": "TELEGRAM", "telegram_credentials": {"token": token}},
            ],
            **fields,
        )  # fmt: skip
        await store.put_number(account, number, AppId(app["id"]))
    receiver = f"{name}-{app['id'].lower()}"
    answer = await installation.simulator("PUT", f"/receivers/{receiver}", secret=secret)
    assert answer.status == 200, answer.content
    await _made(
        installation, "/webhooks",
        app_id=app["id"], target=f"{running.simulator_url}/receiver/{receiver}", target_type="HTTP", secret=secret,
        triggers=["MESSAGE_SUBMIT", "MESSAGE_DELIVERY", "MESSAGE_INBOUND"],
    )  # fmt: skip
    async with installation.database() as connection:
        await connection.execute(
            "UPDATE apps SET settings = jsonb_set(settings, '{rate_limits,outbound}', to_jsonb($2::int)) WHERE id = $1",
            app["id"], rate,
        )  # fmt: skip
    made = Tenant(
        installation, Evidence(installation), app,
        number=number, token=token, receiver=receiver, secret=secret, account=account,
    )  # fmt: skip
    await made.reported(await made.send("Is it open?", ("SMS", phone())), "QUEUED_ON_CHANNEL", "DELIVERED")
    yield made
    await installation.call("DELETE", f"/apps/{made.app_id}")


class ConfiguredStore:
    """The configuration of an installation, as an operator writes it."""

    def __init__(self, installation: Installed) -> None:
        self._installation = installation

    async def __aenter__(self) -> ConfigurationStore:
        home, running = self._installation.home, self._installation.running
        keys = KeyRing.parse(os.environ.get("SWITCHBOARD_SECRET_KEYS") or home.secret_keys())
        self._pool = await open_pool(running.postgres, size=1, service="tests")
        return ConfigurationStore(self._pool, keys, manifests(switchboard_channels))

    async def __aexit__(self, *_: object) -> None:
        await self._pool.close()


async def _made(installation: Installed, path: str, **body: Any) -> Any:
    answer = await installation.call("POST", path, body)
    assert answer.status == 200, answer.content
    return answer.json

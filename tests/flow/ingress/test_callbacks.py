"""Callbacks and endpoints over HTTP: what owners see, and the orders they give."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from tests.flow.ingress.conftest import OTHER_PROJECT, Client

from switchboard.configuration import App, ConfigurationStore
from switchboard.ids import WebhookId, derive, mint
from switchboard.store.pool import Pool

HOOK = {"target": "https://quay.example/callbacks", "triggers": ["MESSAGE_DELIVERY"], "secret": "wharf-lantern-42"}


async def a_callback(pool: Pool, app: App, state: str = "delivered", *, body: bytes | None = b"{}", **more: Any) -> str:
    """A row as callback-delivery leaves it."""
    about = mint()
    fields: dict[str, Any] = {
        "id": derive(about, "callback"),
        "project_id": app.project_id,
        "app_id": app.id,
        "endpoint": "endpoint:quay",
        "webhook_id": "quay",
        "target": "",
        "trigger": "MESSAGE_DELIVERY",
        "stream": about,
        "sequence": 1,
        "event_at": datetime.now(UTC),
        "recorded_at": datetime.now(UTC),
        "expires_at": datetime.now(UTC),
        "state": state,
        "attempts": 3,
        "last_status": 503,
        "last_answer": b"closed",
        "finished_at": None if state == "waiting" else datetime.now(UTC),
        "body": body,
        **more,
    }
    await pool.execute(
        f"INSERT INTO switchboard.callback_events ({', '.join(fields)})"
        f" VALUES ({', '.join(f'${place}' for place in range(1, len(fields) + 1))})",
        *fields.values(),
    )
    return str(fields["id"])


async def test_callbacks_are_listed_by_what_is_asked_for(call: Client, app: App, pool: Pool) -> None:
    delivered = await a_callback(pool, app)
    expired = await a_callback(pool, app, "expired", body=None)
    about = (await call("GET", f"/callbacks/{expired}")).json["about"]

    async def found(query: str) -> list[str]:
        answer = await call("GET", f"/apps/{app.id}/callbacks?{query}")
        assert answer.status == 200
        return [one["id"] for one in answer.json["callbacks"]]

    assert await found("") == [expired, delivered]
    assert await found("states=EXPIRED,ended") == [expired]
    assert await found(f"message_id={about}") == [expired]
    assert await found("min_attempts=4") == []
    assert await found("end_time=2020-01-01T00:00:00Z") == []
    page = (await call("GET", f"/apps/{app.id}/callbacks?page_size=1")).json
    assert [one["id"] for one in page["callbacks"]] == [expired]
    assert await found(f"page_size=1&page_token={page['next_page_token']}") == [delivered]


async def test_a_callback_shows_why_it_failed_and_not_what_it_says(call: Client, app: App, pool: Pool) -> None:
    shown = (await call("GET", f"/callbacks/{await a_callback(pool, app, 'expired')}")).json

    assert (shown["state"], shown["attempts"], shown["last_status"], shown["last_answer"]) == (
        "expired", 3, 503, "closed",
    )  # fmt: skip
    assert shown["has_content"] is True
    assert "body" not in shown


@pytest.mark.parametrize(("state", "kind"), [("delivered", "replay"), ("expired", "resume"), ("ended", "resume")])
async def test_one_is_redelivered_as_its_state_asks(call: Client, app: App, pool: Pool, state: str, kind: str) -> None:
    callback_id = await a_callback(pool, app, state)

    placed = (await call("POST", f"/callbacks/{callback_id}:redeliver")).json

    assert (placed["kind"], placed["state"], placed["callback_ids"]) == (kind, "waiting", [callback_id])
    assert (await call("GET", f"/callback-orders/{placed['id']}")).json == placed
    assert (await call("GET", f"/apps/{app.id}/callback-orders")).json == {"orders": [placed]}


async def test_what_is_not_kept_cannot_be_redelivered(call: Client, app: App, pool: Pool) -> None:
    answer = await call("POST", f"/callbacks/{await a_callback(pool, app, 'expired', body=None)}:redeliver")

    assert (answer.status, answer.error["status"]) == (410, "FAILED_PRECONDITION")
    assert "content" in answer.error["message"]


async def test_a_window_is_replayed_resumed_and_dismissed(call: Client, app: App) -> None:
    window = {"start_time": "2026-11-01T00:00:00Z", "end_time": "2026-11-02T00:00:00Z"}
    wish = {**window, "target": "https://spare.example/", "per_second": 5, "states": ["delivered"]}

    replay = (await call("POST", f"/apps/{app.id}/callbacks:replay", wish)).json
    resume = (await call("POST", f"/apps/{app.id}/callbacks:resume")).json
    dismiss = (await call("POST", f"/apps/{app.id}/callbacks:dismiss", window)).json

    assert (replay["kind"], replay["target"], replay["per_second"], replay["states"]) == (
        "replay", "https://spare.example/", 5.0, ["delivered"],
    )  # fmt: skip
    assert (resume["kind"], resume["states"]) == ("resume", ["expired", "ended"])
    assert (dismiss["kind"], dismiss["states"], dismiss["from_at"]) == ("dismiss", ["waiting"], window["start_time"])
    cancelled = (await call("DELETE", f"/callback-orders/{replay['id']}")).json
    assert cancelled["state"] == "cancelled"


@pytest.mark.parametrize(
    ("wish", "field"),
    [
        ({"per_second": 0}, "per_second"),
        ({"target": "ftp://x"}, "target"),
        ({"states": ["waiting"]}, "states"),
        ({"start_time": "2026-11-02T00:00:00Z", "end_time": "2026-11-01T00:00:00Z"}, "start_time"),
        ({"start_time": "2026-11-02T00:00:00"}, "start_time"),
    ],
)
async def test_a_replay_that_cannot_be_is_refused(call: Client, app: App, wish: Any, field: str) -> None:
    assert (await call("POST", f"/apps/{app.id}/callbacks:replay", wish)).fields == [field]


async def test_nobody_sees_or_orders_anything_of_another_project(call: Client, app: App, pool: Pool) -> None:
    theirs = await a_callback(pool, app, project_id=OTHER_PROJECT)

    for method, path in (
        ("GET", f"/callbacks/{theirs}"),
        ("POST", f"/callbacks/{theirs}:redeliver"),
        ("POST", f"/callbacks/{theirs}:dismiss"),
        ("GET", f"/apps/{mint()}/callbacks"),
        ("GET", f"/apps/{mint()}/endpoints"),
        ("POST", f"/apps/{mint()}/callbacks:resume"),
        ("POST", f"/webhooks/{mint()}:test"),
        ("GET", f"/callback-orders/{mint()}"),
    ):
        assert (await call(method, path)).status == 404, path
    assert (await call("GET", f"/apps/{app.id}/callbacks")).json["callbacks"] == []


async def test_a_test_callback_is_ordered_for_a_webhook(call: Client, app: App) -> None:
    webhook = (await call("POST", "/webhooks", {**HOOK, "app_id": app.id})).json

    placed = (await call("POST", f"/webhooks/{webhook['id']}:test")).json

    assert (placed["kind"], placed["webhook_id"], placed["app_id"]) == ("test", webhook["id"], app.id)


async def test_a_new_secret_and_the_one_before_sign_side_by_side_for_a_while(
    call: Client, app: App, store: ConfigurationStore
) -> None:
    webhook = (await call("POST", "/webhooks", {**HOOK, "app_id": app.id})).json
    path = f"/webhooks/{webhook['id']}:rotate-secret"

    answer = (await call("POST", path, {"overlap": "3600s"})).json

    new = answer["webhook"]["secret"]
    kept = await store.webhook(WebhookId(webhook["id"]))
    assert kept is not None
    assert kept.secrets == (new, HOOK["secret"])
    assert kept.rotation_until is not None
    assert 3590 < (kept.rotation_until - datetime.now(UTC)).total_seconds() <= 3600
    answer = (await call("POST", path, {"secret": new, "overlap": "0s"})).json
    ended = await store.webhook(WebhookId(webhook["id"]))
    assert ended is not None
    assert (answer["previous_secret_until"], ended.secrets) == (None, (new,))
    assert (await call("POST", path, {"overlap": "1d"})).fields == ["overlap"]


async def test_answers_that_end_retries_are_a_webhooks_own_choice(call: Client, app: App) -> None:
    made = (await call("POST", "/webhooks", {**HOOK, "app_id": app.id, "ends_retries_on": [410, 404]})).json

    assert made["ends_retries_on"] == [410, 404]
    assert (await call("GET", f"/webhooks/{made['id']}")).json == made
    for status in (200, 408, 429, 500):
        answer = await call("PATCH", f"/webhooks/{made['id']}", {"ends_retries_on": [status]})
        assert answer.fields == ["ends_retries_on"]


async def test_endpoints_show_their_health(call: Client, app: App, pool: Pool) -> None:
    await pool.execute(
        "INSERT INTO switchboard.callback_endpoints (endpoint, app_id, webhook_id, last_status, last_error,"
        " last_answer) VALUES ('endpoint:quay', $1, 'quay', 503, 'answered 503', 'closed')",
        app.id,
    )

    (seen,) = (await call("GET", f"/apps/{app.id}/endpoints")).json["endpoints"]

    assert (seen["endpoint"], seen["state"], seen["last_answer"]) == ("endpoint:quay", "working", "closed")
    assert seen["success_rate"] is None

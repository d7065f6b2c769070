"""Webhooks over HTTP."""

import asyncio
from typing import Any

import pytest
from tests.flow.ingress.conftest import OTHER_PROJECT, Client, make_app

from switchboard.configuration import App, ConfigurationStore, Webhook
from switchboard.ids import WebhookId, is_ulid, mint
from switchboard.store.callbacks import CallbackState, OrderKind, orders
from switchboard.store.pool import Pool
from switchboard.testing import wait_until
from switchboard.trigger import Trigger


def a_create(app: App, **fields: Any) -> dict[str, Any]:
    return {
        "app_id": app.id,
        "target": "https://quay.example/callbacks",
        "triggers": ["MESSAGE_DELIVERY", "MESSAGE_INBOUND"],
    } | fields


async def test_a_webhook_is_made_read_listed_and_deleted(call: Client, app: App) -> None:
    made = await call("POST", "/webhooks", a_create(app, secret="wharf-lantern-42"))
    path = f"/webhooks/{made.json['id']}"

    assert made.status == 200
    assert is_ulid(made.json["id"])
    assert made.json == {
        "id": made.json["id"],
        "app_id": app.id,
        "target": "https://quay.example/callbacks",
        "target_type": "HTTP",
        "secret": "wharf-lantern-42",
        "triggers": ["MESSAGE_DELIVERY", "MESSAGE_INBOUND"],
        "client_credentials": None,
    }
    assert (await call("GET", path)).json == made.json
    assert (await call("GET", f"/apps/{app.id}/webhooks")).json == {"webhooks": [made.json]}
    deleted = await call("DELETE", path)
    assert (deleted.status, deleted.json) == (200, {})
    for method in ("GET", "PATCH", "DELETE"):
        assert (await call(method, path)).status == 404


@pytest.mark.parametrize("whole_app", [False, True])
async def test_what_waits_for_a_deleted_webhook_is_given_up(
    call: Client, app: App, pool: Pool, whole_app: bool
) -> None:
    made = await call("POST", "/webhooks", a_create(app))

    await call("DELETE", f"/apps/{app.id}" if whole_app else f"/webhooks/{made.json['id']}")

    [order] = await orders(pool, app.id)
    assert (order.kind, order.states) == (OrderKind.DISMISS, (CallbackState.WAITING,))
    assert order.webhook_id == ("" if whole_app else made.json["id"])


async def test_client_credentials_come_back_without_what_was_not_given(call: Client, app: App) -> None:
    client = {"client_id": "id", "client_secret": "s", "endpoint": "https://quay.example/token"}
    made = await call("POST", "/webhooks", a_create(app, client_credentials=client))

    assert made.json["client_credentials"] == client


async def test_masks_change_what_they_name(call: Client, app: App) -> None:
    made = (await call("POST", "/webhooks", a_create(app, secret="first-secret"))).json
    path = f"/webhooks/{made['id']}"
    answer = await call("PATCH", f"{path}?update_mask=triggers,secret", {"triggers": ["OPT_IN"], "target": "ignored"})

    assert answer.status == 200
    assert answer.json == made | {"triggers": ["OPT_IN"], "secret": ""}
    answer = await call("PATCH", path, {"target": "https://quay.example/2", "target_type": "DISMISS"})
    assert answer.json == made | {
        "triggers": ["OPT_IN"], "secret": "", "target": "https://quay.example/2", "target_type": "DISMISS",
    }  # fmt: skip
    assert (await call("PATCH", path)).json == answer.json


async def test_a_changed_secret_keeps_the_one_before_for_receivers(
    call: Client, app: App, store: ConfigurationStore
) -> None:
    made = (await call("POST", "/webhooks", a_create(app, secret="first"))).json
    for secret in ("second", "second", "third"):
        assert (await call("PATCH", f"/webhooks/{made['id']}", {"secret": secret})).json["secret"] == secret
    webhook = await store.webhook(made["id"])

    assert webhook is not None
    assert webhook.secrets == ("third", "second")


async def test_a_webhook_may_move_to_another_app_of_the_project(
    call: Client, app: App, store: ConfigurationStore
) -> None:
    other = make_app()
    await store.insert_app(other)
    made = (await call("POST", "/webhooks", a_create(app))).json

    assert (await call("PATCH", f"/webhooks/{made['id']}", {"app_id": other.id})).json["app_id"] == other.id
    assert (await call("GET", f"/apps/{app.id}/webhooks")).json == {"webhooks": []}


CLIENT = {"client_id": "id", "client_secret": "s", "endpoint": "https://quay.example/token"}
REFUSED: list[tuple[dict[str, Any], list[str]]] = [
    ({"app_id": ""}, ["app_id"]),
    ({"target": ""}, ["target"]),
    ({"target": "quay.example"}, ["target"]),
    ({"target": "ftp://quay.example"}, ["target"]),
    ({"target": "https://quay.example/" + "x" * 742}, ["target"]),
    ({"target": "https://conversation-api.eu.sinch.com/x"}, ["target"]),
    ({"triggers": []}, ["triggers"]),
    ({"triggers": ["OPT_IN", "OPT_IN"]}, ["triggers"]),
    ({"triggers": ["UNSPECIFIED_TRIGGER"]}, ["triggers[0]"]),
    ({"triggers": ["OPT_IN", "NOTHING"]}, ["triggers[1]"]),
    ({"target_type": "MAIL"}, ["target_type"]),
    ({"secret": "x" * 257}, ["secret"]),
    ({"client_credentials": {"client_id": "id"}}, ["client_credentials.client_secret"]),
    ({"client_credentials": {**CLIENT, "client_id": ""}}, ["client_credentials.client_id"]),
    ({"client_credentials": {**CLIENT, "endpoint": "x"}}, ["client_credentials.endpoint"]),
    ({"client_credentials": {**CLIENT, "scope": "x" * 1025}}, ["client_credentials.scope"]),
    ({"client_credentials": {**CLIENT, "response_type": "x" * 65}}, ["client_credentials.response_type"]),
    ({"client_credentials": {**CLIENT, "token_request_type": "MAIL"}}, ["client_credentials.token_request_type"]),
]


async def test_wrong_webhooks_are_refused_by_field(call: Client, app: App) -> None:
    made = (await call("POST", "/webhooks", a_create(app))).json
    for change, fields in REFUSED:
        created = await call("POST", "/webhooks", a_create(app) | {"target": "https://quay.example/new"} | change)
        changed = await call("PATCH", f"/webhooks/{made['id']}", change)
        assert [field.replace("[...]", "[0]") for field in created.fields] == fields, change
        assert [field.replace("[...]", "[0]") for field in changed.fields] == fields, change
    assert len((await call("GET", f"/apps/{app.id}/webhooks")).json["webhooks"]) == 1


async def test_a_sixth_webhook_and_a_target_twice_are_refused(call: Client, app: App) -> None:
    for number in range(5):
        assert (await call("POST", "/webhooks", a_create(app, target=f"https://quay.example/{number}"))).status == 200
    webhooks = (await call("GET", f"/apps/{app.id}/webhooks")).json["webhooks"]

    assert (await call("POST", "/webhooks", a_create(app))).fields == ["app_id"]
    moved = await call("PATCH", f"/webhooks/{webhooks[0]['id']}", {"target": webhooks[1]["target"]})
    assert moved.fields == ["target"]


async def test_changes_at_once_lose_nothing_of_each_other(
    call: Client, app: App, store: ConfigurationStore, pool: Pool
) -> None:
    path = f"/webhooks/{(await call('POST', '/webhooks', a_create(app, secret='wharf-lantern-42'))).json['id']}"
    async with pool.acquire() as connection, connection.transaction():
        # Whoever writes a webhook of the app has read it by the time it waits for this lock.
        await connection.execute("SELECT FROM switchboard.apps WHERE id = $1 FOR UPDATE", app.id)
        changes = [
            asyncio.create_task(call("PATCH", path, {"target": "https://quay.example/elsewhere"})),
            asyncio.create_task(call("POST", f"{path}:rotate-secret", {"secret": "buoy-and-bell-77"})),
        ]
        await wait_until(lambda: connection.fetchval("SELECT count(*) = 2 FROM pg_locks WHERE NOT granted"))
    answers = await asyncio.gather(*changes)

    [stored] = await store.webhooks(app.id)
    assert [answer.status for answer in answers] == [200, 200]
    assert stored.target == "https://quay.example/elsewhere"
    assert stored.secrets == ("buoy-and-bell-77", "wharf-lantern-42")


@pytest.mark.parametrize("spelling", ["SMART_CONVERSATION", "SMART_CONVERSATIONS"])
async def test_both_spellings_of_a_trigger_come_back_as_given(call: Client, app: App, spelling: str) -> None:
    assert (await call("POST", "/webhooks", a_create(app, triggers=[spelling]))).json["triggers"] == [spelling]


async def test_webhooks_of_unknown_apps_and_other_projects_are_not_found(
    call: Client, store: ConfigurationStore
) -> None:
    others = make_app(project_id=OTHER_PROJECT)
    await store.insert_app(others)
    webhook = Webhook(
        id=WebhookId(mint()), app_id=others.id, project_id=OTHER_PROJECT, target="https://a.example",
        triggers=(Trigger.OPT_IN,),
    )  # fmt: skip
    await store.put_webhook(webhook)

    assert (await call("POST", "/webhooks", a_create(others))).status == 404
    assert (await call("GET", f"/webhooks/{webhook.id}")).status == 404
    assert (await call("GET", f"/apps/{others.id}/webhooks")).status == 404
    assert (await call("DELETE", f"/webhooks/{webhook.id}")).status == 404

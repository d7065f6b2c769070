"""Apps over HTTP: what is written is read back, masks change what they name, wrong values are named."""

import asyncio
from typing import Any

import pytest
from tests.flow.ingress.conftest import OTHER_PROJECT, Client, Serve, make_app

from switchboard.configuration import App, ConfigurationStore
from switchboard.configuration.app import RateLimits
from switchboard.ids import AppId, is_ulid, mint
from switchboard.rules.progress import OnUnknown
from switchboard.store.pool import Pool
from switchboard.testing import wait_until

SMS = {"channel": "SMS", "static_bearer": {"claimed_identity": "harbour_plan", "token": "4e1c2d"}}
#: A fresh app with nothing but what is required, as the reference shows it (conversation-api 4.2).
FRESH = {
    "channel_credentials": [
        {
            "channel": "SMS",
            "static_bearer": {"claimed_identity": "harbour_plan", "token": "4e1c2d"},
            "callback_secret": "",
            "channel_known_id": "",
            "state": {"status": "PENDING", "description": ""},
            "credential_ordinal_number": 0,
        }
    ],
    "conversation_metadata_report_view": "NONE",
    "display_name": "Harbour notices",
    "rate_limits": {"inbound": 100, "outbound": 20, "webhooks": 100},
    "retention_policy": {"retention_type": "MESSAGE_EXPIRE_POLICY", "ttl_days": 180},
    "dispatch_retention_policy": {"retention_type": "MESSAGE_EXPIRE_POLICY", "ttl_days": 0},
    "processing_mode": "DISPATCH",
    "smart_conversation": {"enabled": False},
    "queue_stats": {"outbound_size": 0, "outbound_limit": 500000},
    "persist_message_status": {"enabled": False},
    "message_search": {"enabled": False},
    "callback_settings": {"secret_for_overridden_callback_urls": ""},
    "delivery_report_based_fallback": {"enabled": False, "delivery_report_waiting_time": 0},
    "message_retry_settings": {"retry_duration": 3600},
    "on_unknown": "FAIL",
}


def a_create(**fields: Any) -> dict[str, Any]:
    return {"display_name": "Harbour notices", "channel_credentials": [SMS]} | fields


async def test_changes_at_once_lose_nothing_of_each_other(
    call: Client, app: App, store: ConfigurationStore, pool: Pool
) -> None:
    path = f"/apps/{app.id}"
    async with pool.acquire() as connection, connection.transaction():
        # Whoever would write what it read before has read it by the time it waits for this lock.
        await connection.execute("SELECT FROM switchboard.apps WHERE id = $1 FOR UPDATE", app.id)
        changes = [
            asyncio.create_task(call("PATCH", path, {"display_name": "New name"})),
            asyncio.create_task(call("PATCH", path, {"on_unknown": "FAIL_OVER"})),
            asyncio.create_task(store.set_rate_limits(app.id, RateLimits(outbound=7))),
        ]
        await wait_until(lambda: connection.fetchval("SELECT count(*) = 3 FROM pg_locks WHERE NOT granted"))
    await asyncio.gather(*changes)

    stored = await store.app(app.id)
    assert stored is not None
    assert (stored.display_name, stored.on_unknown, stored.rate_limits.outbound) == ("New name", OnUnknown.FAIL_OVER, 7)


async def test_a_fresh_app_looks_as_in_the_reference(call: Client) -> None:
    answer = await call("POST", "/apps", a_create())
    shown = answer.json

    assert answer.status == 200
    assert is_ulid(shown.pop("id"))
    assert shown == FRESH


async def test_the_mode_of_a_fresh_app_is_a_setting_and_stays_what_it_was(serve: Serve) -> None:
    dispatching, talking = await serve(), await serve(default_processing_mode="CONVERSATION")
    old, young = [(await call("POST", "/apps", a_create())).json for call in (dispatching, talking)]
    said = (await talking("POST", "/apps", a_create(processing_mode="DISPATCH"))).json
    touched = (await talking("PATCH", f"/apps/{old['id']}", {"display_name": "New"})).json

    modes = [one["processing_mode"] for one in (old, young, said, touched)]
    assert modes == ["DISPATCH", "CONVERSATION", "DISPATCH", "DISPATCH"]


async def test_what_is_kept_for_ever_needs_no_days(call: Client) -> None:
    policy = {"retention_type": "PERSIST_RETENTION_POLICY", "ttl_days": 0}
    made = await call("POST", "/apps", a_create(retention_policy=policy))

    assert (made.status, made.json["retention_policy"]) == (200, policy)
    path = f"/apps/{made.json['id']}?update_mask=retention_policy.retention_type"
    refused = await call("PATCH", path, {"retention_policy": {"retention_type": "MESSAGE_EXPIRE_POLICY"}})
    assert refused.fields == ["retention_policy.ttl_days"]


async def test_an_app_is_read_listed_and_deleted(call: Client, app: App) -> None:
    made = (await call("POST", "/apps", a_create(callback_settings={"secret_for_overridden_callback_urls": "s"}))).json
    read = (await call("GET", f"/apps/{made['id']}")).json
    listed = (await call("GET", "/apps")).json["apps"]

    assert read["callback_settings"] == {"secret_for_overridden_callback_urls": "s"}
    assert read["channel_credentials"][0]["static_bearer"]["token"] == "4e1c2d"
    assert {found["id"] for found in listed} == {app.id, made["id"]}
    deleted = await call("DELETE", f"/apps/{made['id']}")
    assert (deleted.status, deleted.json) == (200, {})
    for method in ("GET", "DELETE", "PATCH"):
        assert (await call(method, f"/apps/{made['id']}")).status == 404
    assert (await call("GET", f"/apps/{made['id']}/webhooks")).status == 404


async def test_the_state_of_credentials_tells_what_keeps_a_channel_from_working(
    call: Client, store: ConfigurationStore
) -> None:
    credentials = [
        SMS,
        {"channel": "TELEGRAM", "telegram_credentials": {"token": "1:t"}},
        {"channel": "RCS", "static_bearer": {"claimed_identity": "agent", "token": "t"}},
    ]
    made = (await call("POST", "/apps", a_create(channel_credentials=credentials))).json
    read = (await call("GET", f"/apps/{made['id']}")).json["channel_credentials"]

    assert [found["state"]["status"] for found in read] == ["FAILING", "ACTIVE", "FAILING"]
    assert "provider account" in read[0]["state"]["description"]


async def test_the_queue_of_an_app_is_what_waits_for_all_its_channels(call: Client, app: App, pool: Pool) -> None:
    await pool.execute(
        "INSERT INTO switchboard.lanes (id, kind, interval_ns, max_in_flight, tat, waiting)"
        " SELECT 'dispatch:' || $1 || ':' || c, 'dispatch', 1000, 1, switchboard.now(), 3"
        " FROM unnest(ARRAY['SMS', 'TELEGRAM']) AS c",
        app.id,
    )

    assert (await call("GET", f"/apps/{app.id}")).json["queue_stats"]["outbound_size"] == 6


async def test_without_a_mask_exactly_the_given_fields_change(call: Client, app: App) -> None:
    answer = await call(
        "PATCH", f"/apps/{app.id}", {"display_name": "New", "dispatch_retention_policy": {"ttl_days": 7}, "id": "x"}
    )
    before = (await call("GET", f"/apps/{app.id}")).json

    assert answer.status == 200
    assert answer.json == before
    assert before["display_name"] == "New"
    assert before["dispatch_retention_policy"] == {"retention_type": "MESSAGE_EXPIRE_POLICY", "ttl_days": 7}
    assert before["id"] == app.id
    assert len(before["channel_credentials"]) == 2


@pytest.mark.parametrize(
    "query",
    [
        "update_mask=display_name,dispatch_retention_policy.ttl_days",
        "update_mask.paths=display_name&update_mask.paths=dispatch_retention_policy.ttl_days",
        "update_mask=displayName,dispatchRetentionPolicy.ttlDays",
    ],
)
async def test_with_a_mask_exactly_its_paths_change(call: Client, app: App, query: str) -> None:
    answer = await call(
        "PATCH",
        f"/apps/{app.id}?{query}",
        {
            "display_name": "New",
            "dispatch_retention_policy": {"ttl_days": 5, "retention_type": "PERSIST_RETENTION_POLICY"},
            "message_retry_settings": {"retry_duration": 60},
        },
    )

    assert answer.status == 200
    assert answer.json["display_name"] == "New"
    assert answer.json["dispatch_retention_policy"] == {"retention_type": "MESSAGE_EXPIRE_POLICY", "ttl_days": 5}
    assert answer.json["message_retry_settings"] == {"retry_duration": 3600}


async def test_a_masked_field_that_is_not_given_is_cleared(call: Client, app: App) -> None:
    await call("PATCH", f"/apps/{app.id}", {"message_retry_settings": {"retry_duration": 60}})
    answer = await call("PATCH", f"/apps/{app.id}?update_mask=message_retry_settings,rate_limits", {})

    assert answer.json["message_retry_settings"] == {"retry_duration": 3600}
    assert (await call("PATCH", f"/apps/{app.id}?update_mask=display_name", {})).fields == ["display_name"]


async def test_a_patch_of_nothing_answers_the_app_unchanged(call: Client, app: App) -> None:
    before = (await call("GET", f"/apps/{app.id}")).json

    assert (await call("PATCH", f"/apps/{app.id}", {})).json == before
    assert (await call("PATCH", f"/apps/{app.id}")).json == before


async def test_credentials_are_replaced_whole(call: Client, app: App) -> None:
    answer = await call("PATCH", f"/apps/{app.id}?update_mask=channel_credentials", {"channelCredentials": [SMS]})

    assert [found["channel"] for found in answer.json["channel_credentials"]] == ["SMS"]


TELEGRAM = {"channel": "TELEGRAM", "telegram_credentials": {"token": "1:t"}}
LINE = {"channel": "LINE", "line_credentials": {"token": "t", "secret": "s"}}
REFUSED: list[tuple[dict[str, Any], list[str]]] = [
    ({"display_name": ""}, ["display_name"]),
    ({"display_name": "a\x00b"}, ["display_name"]),
    ({"display_name": "x" * 1025}, ["display_name"]),
    ({"channel_credentials": []}, ["channel_credentials"]),
    ({"channel_credentials": [{"channel": "SMS"}]}, ["channel_credentials[0]"]),
    ({"channel_credentials": [{"channel": "PIGEON"}]}, ["channel_credentials[0].channel"]),
    ({"channel_credentials": [{**SMS, "channel": "TELEGRAM"}]}, ["channel_credentials[0]"]),
    ({"channel_credentials": [{**SMS, **TELEGRAM}]}, ["channel_credentials[0]"]),
    ({"channel_credentials": [{"channel": "SMS", "static_bearer": {"token": "t"}}]},
     ["channel_credentials[0].static_bearer.claimed_identity"]),
    ({"channel_credentials": [{"channel": "SMS", "static_bearer": {"claimed_identity": "", "token": "t"}}]},
     ["channel_credentials[0].static_bearer.claimed_identity"]),
    ({"channel_credentials": [SMS, SMS]}, ["channel_credentials[1].channel"]),
    ({"channel_credentials": [LINE, LINE]}, ["channel_credentials[1].channel"]),
    ({"channel_credentials": [{"channel": "LINE", "line_enterprise_credentials": {}}]},
     ["channel_credentials[0].line_enterprise_credentials"]),
    ({"channel_credentials": [{**SMS, "callback_secret": "x" * 257}]}, ["channel_credentials[0].callback_secret"]),
    ({"channel_credentials": [{**LINE, "credential_ordinal_number": 256}]},
     ["channel_credentials[0].credential_ordinal_number"]),
    ({"retention_policy": {"ttl_days": 0}}, ["retention_policy.ttl_days"]),
    ({"retention_policy": {"ttl_days": 3651}}, ["retention_policy.ttl_days"]),
    ({"retention_policy": {"retention_type": "FOREVER"}}, ["retention_policy.retention_type"]),
    ({"dispatch_retention_policy": {"ttl_days": 8}}, ["dispatch_retention_policy.ttl_days"]),
    ({"dispatch_retention_policy": {"ttl_days": -1}}, ["dispatch_retention_policy.ttl_days"]),
    ({"dispatch_retention_policy": {"retention_type": "PERSIST_RETENTION_POLICY"}},
     ["dispatch_retention_policy.retention_type"]),
    ({"processing_mode": "TELEPATHY"}, ["processing_mode"]),
    ({"message_retry_settings": {"retry_duration": 29}}, ["message_retry_settings.retry_duration"]),
    ({"message_retry_settings": {"retry_duration": 3601}}, ["message_retry_settings.retry_duration"]),
    ({"delivery_report_based_fallback": {"enabled": True}},
     ["delivery_report_based_fallback.delivery_report_waiting_time"]),
    ({"delivery_report_based_fallback": {"delivery_report_waiting_time": 259_201}},
     ["delivery_report_based_fallback.delivery_report_waiting_time"]),
    ({"on_unknown": "RETRY"}, ["on_unknown"]),
    ({"callback_settings": {"secret_for_overridden_callback_urls": "x" * 257}},
     ["callback_settings.secret_for_overridden_callback_urls"]),
]  # fmt: skip


async def test_wrong_apps_are_refused_by_field_on_create_and_change(call: Client, app: App) -> None:
    for change, fields in REFUSED:
        created = await call("POST", "/apps", a_create(**change))
        changed = await call("PATCH", f"/apps/{app.id}", change)
        assert created.fields == fields, change
        assert changed.fields == fields, change
    assert len((await call("GET", "/apps")).json["apps"]) == 1


async def test_two_line_credentials_need_two_ordinals(call: Client) -> None:
    answer = await call("POST", "/apps", a_create(channel_credentials=[LINE, {**LINE, "credential_ordinal_number": 1}]))

    assert answer.status == 200


async def test_a_mask_of_no_field_and_a_body_of_no_object_are_refused(call: Client, app: App) -> None:
    assert (await call("PATCH", f"/apps/{app.id}?update_mask=nothing", {})).fields == ["update_mask"]
    assert (await call("PATCH", f"/apps/{app.id}?update_mask=display_name", [1])).status == 400
    assert (await call("PATCH", f"/apps/{app.id}", {"channel_credentials": 1})).status == 400
    assert (await call("POST", "/apps")).status == 400


async def test_apps_of_other_projects_are_not_there(call: Client, store: ConfigurationStore) -> None:
    others = make_app(project_id=OTHER_PROJECT)
    await store.insert_app(others)

    for app_id in (others.id, AppId(mint()), "nothing", "a%00b"):
        for method in ("GET", "PATCH", "DELETE"):
            assert (await call(method, f"/apps/{app_id}")).status == 404

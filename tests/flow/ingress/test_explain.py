"""`messages:explain`: the plan of a send, and that nothing is sent."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.flow.ingress.conftest import PROJECT, Client, Topic, a_send, make_app

from switchboard.configuration import App, ConfigurationStore
from switchboard.contact import Contact
from switchboard.identity import ChannelIdentity, ChannelName
from switchboard.ids import ContactId, mint
from switchboard.records import ProcessingMode
from switchboard.rules.consent import ConsentList, ConsentMode, ConsentSettings
from switchboard.store import consents, contacts
from switchboard.store.consents import Change, Origin
from switchboard.store.pool import Pool

SMS = ChannelName("SMS")
BOTH = {
    "identified_by": {
        "channel_identities": [
            {"channel": "SMS", "identity": "+46701230001"},
            {"channel": "TELEGRAM", "identity": "777000"},
        ]
    }
}


@pytest.fixture(autouse=True)
async def account(store: ConfigurationStore) -> None:
    await store.put_account(SMS, "harbour", b'{"host": "smsc", "system_id": "sb", "default_sender": "Quay"}')


async def explained(call: Client, body: dict[str, Any]) -> Any:
    answer = await call("POST", "/messages:explain", body)
    assert answer.status == 200, answer.body
    return answer.json


async def test_a_plan_is_told_and_nothing_is_sent(call: Client, app: App, topic: Topic, pool: Pool) -> None:
    plan = await explained(
        call,
        a_send(
            app,
            recipient=BOTH,
            channel_steps=[{"channel": "SMS", "wait_seconds": 60}],
            on_unknown="FAIL_OVER",
            ttl="600s",
        ),
    )
    sms, telegram = plan["steps"]

    assert plan["candidates"] == [
        {"channel": "SMS", "verdict": "KEPT"}, {"channel": "TELEGRAM", "verdict": "KEPT"},
    ]  # fmt: skip
    assert (plan["processing_mode"], plan["fails_with"], plan["on_unknown"]) == ("DISPATCH", None, "FAIL_OVER")
    assert plan["retry_seconds"] == 3600
    assert sms["identity"]["identity"] == "46701230001"
    assert (sms["account"], sms["reports"], sms["wait_seconds"]) == ("SMS:harbour", ["DELIVERED"], 60)
    assert sms["rendered"] == {
        "units": 1,
        "encoding": "GSM7",
        "submissions": [{"sender": "Quay", "text": "The ferry leaves at noon."}],
    }
    assert (telegram["wait_seconds"], telegram["reports"]) == (None, [])
    [sent] = telegram["rendered"]["submissions"]
    assert (sent["method"], sent["chat_id"], sent["text"]) == ("sendMessage", 777000, "The ferry leaves at noon.")
    assert await topic.messages() == []
    assert await pool.fetchval("SELECT count(*) FROM switchboard.lanes") == 0


async def test_the_time_a_message_has_is_told(call: Client, app: App, topic: Topic) -> None:
    with_ttl = await explained(call, a_send(app, ttl="600s"))
    without = await explained(call, a_send(app))
    difference = datetime.fromisoformat(without["expires_at"]) - datetime.fromisoformat(with_ttl["expires_at"])

    assert timedelta(hours=71) < difference < timedelta(hours=72)


async def test_long_texts_are_counted_in_parts_and_odd_letters_in_ucs2(call: Client, app: App) -> None:
    long = await explained(call, a_send(app, message={"text_message": {"text": "Ж" * 71}}))

    [step] = long["steps"]
    assert (step["rendered"]["units"], step["rendered"]["encoding"]) == (2, "UCS2")


async def test_what_a_channel_refuses_is_said_with_its_reason(call: Client, app: App) -> None:
    plan = await explained(
        call,
        a_send(
            app,
            message={"text_message": {"text": "x" * 200}},
            channel_properties={"SMS_MAX_NUMBER_OF_MESSAGE_PARTS": "1"},
        ),
    )

    [step] = plan["steps"]
    assert step["rendered"] is None
    assert step["refused"]["code"] == "MESSAGE_SPLIT_REQUIRED"


async def test_the_line_before_a_message_is_told_by_priority(call: Client, app: App, pool: Pool) -> None:
    lane = f"dispatch:{app.id}:SMS"
    await pool.execute(
        "INSERT INTO switchboard.lanes (id, kind, interval_ns, max_in_flight, tat, waiting)"
        " VALUES ($1, 'dispatch', 50000000, 1000, '2020-01-01Z', 200)",
        lane,
    )
    await pool.execute(
        "INSERT INTO switchboard.lane_items (message_id, step, submission, lane, priority, sequence, units,"
        " other_channel_left, entered_at) SELECT 'm' || n, 0, 1, $1, 0, n, 1, false, now()"
        " FROM generate_series(1, 20) AS n",
        lane,
    )
    unused = await explained(call, a_send(app, recipient=BOTH, channel_priority_order=["TELEGRAM"]))
    normal = await explained(call, a_send(app))
    high = await explained(call, a_send(app, queue="HIGH_PRIORITY"))

    assert unused["steps"][0]["lane"] == {
        "gate": "open", "ahead": 0, "per_second": 0.0, "expected_wait_seconds": 0.0,
    }  # fmt: skip
    assert normal["steps"][0]["lane"] == {
        "gate": "open",
        "ahead": 200,
        "per_second": 20.0,
        "expected_wait_seconds": 10.0,
    }
    assert high["steps"][0]["lane"] == {"gate": "open", "ahead": 20, "per_second": 20.0, "expected_wait_seconds": 1.0}


async def test_a_closed_gate_is_told(call: Client, app: App, pool: Pool) -> None:
    await pool.execute(
        "INSERT INTO switchboard.lanes (id, kind, interval_ns, max_in_flight, tat, gate)"
        " VALUES ('account:SMS:harbour', 'account', 50000000, 1000, '2020-01-01Z', 'paused')"
    )
    [step] = (await explained(call, a_send(app)))["steps"]

    assert step["lane"] == {"gate": "paused", "ahead": 0, "per_second": 0.0, "expected_wait_seconds": None}


async def test_a_message_that_would_go_nowhere_is_explained_too(call: Client, app: App, store: Any) -> None:
    nowhere = await explained(call, a_send(app, channel_priority_order=["TELEGRAM"]))

    assert nowhere["steps"] == []
    assert nowhere["fails_with"]["code"] == "NO_CHANNEL_IDENTITY_FOR_CONTACT"
    assert nowhere["candidates"] == [
        {"channel": "TELEGRAM", "verdict": "NO_IDENTITY"}, {"channel": "SMS", "verdict": "NOT_ASKED_FOR"},
    ]  # fmt: skip


async def test_what_a_send_refuses_explaining_refuses(call: Client, app: App) -> None:
    assert (await call("POST", "/messages:explain", a_send(app, ttl="1s"))).fields == ["ttl"]
    assert (await call("POST", "/messages:explain", a_send(app, app_id="01K06TM94A7E3S3E28JT97KB6C"))).status == 404
    assert (await call("GET", "/messages:explain")).status == 501


async def test_a_contact_is_explained_by_its_identities_and_its_consent(
    call: Client, store: ConfigurationStore, pool: Pool
) -> None:
    talking = make_app(processing_mode=ProcessingMode.CONVERSATION, consent=ConsentSettings(mode=ConsentMode.PRIMARY))
    await store.insert_app(talking)
    phone, chat = ChannelIdentity(SMS, "46701230001"), ChannelIdentity(ChannelName("TELEGRAM"), "777000")
    elsewhere = ChannelIdentity(ChannelName("RCS"), "46701230001")
    contact = Contact(ContactId(mint()), (chat, phone, elsewhere), (SMS,), "Ada")
    async with pool.acquire() as connection:
        await contacts.insert(connection, [(PROJECT, contact)], told=0)
    to_contact = a_send(talking, recipient={"contact_id": contact.id})
    before = await explained(call, to_contact)
    async with pool.acquire() as connection:
        out, now = ConsentList.OPT_OUT_ALL, datetime.now(UTC)
        left = Change(talking.id, PROJECT, phone.identity, out, True, Origin.ORIGIN_MO, "cause", now)
        await consents.change(connection, [left])
    after = await explained(call, to_contact)
    nobody = await explained(call, a_send(talking, recipient={"contact_id": mint()}))

    assert [step["identity"]["channel"] for step in before["steps"]] == ["SMS", "TELEGRAM"]
    assert {one["channel"]: one["verdict"] for one in after["candidates"]} == {
        "SMS": "NOT_OPTED_IN",
        "TELEGRAM": "KEPT",
        "RCS": "NOT_INSTALLED",
    }
    assert nobody["fails_with"]["code"] == "CONTACT_NOT_FOUND"

"""`GET /messages/{id}/timeline`: what happened to a message, to those whose it is."""

from datetime import UTC, datetime, timedelta

from tests.flow.ingress.conftest import OTHER_PROJECT, PROJECT, Client, make_app
from tests.flow.ingress.test_messages import stored

from switchboard.channel.contract import Exchange
from switchboard.configuration import App, ConfigurationStore
from switchboard.identity import ChannelName
from switchboard.ids import mint
from switchboard.reason import Reason, ReasonCode
from switchboard.rules.route import Candidate, Verdict
from switchboard.store import timeline
from switchboard.store.pool import Pool
from switchboard.timeline import Entry, Happening, Kind

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


async def test_what_happened_is_told_in_order_with_exchanges(call: Client, app: App, pool: Pool) -> None:
    message_id = await stored(pool, app, kept=None)
    exchange = Exchange("submit_sm 1/1", "ESME_RINVDSTADR", NOON + timedelta(seconds=1), NOON + timedelta(seconds=2))
    async with pool.acquire() as connection:
        await timeline.write(
            connection,
            [
                Happening(
                    message_id, NOON, Kind.PLANNED, "accepted",
                    Entry(
                        note="planned", channel="SMS", step=0,
                        candidates=(
                            Candidate(ChannelName("TELEGRAM"), Verdict.NO_CAPABILITY),
                            Candidate(ChannelName("SMS"), Verdict.KEPT),
                        ),
                    ),
                ),
                Happening(
                    message_id, NOON + timedelta(seconds=2), Kind.SUBMITTED, "submitted:0.1",
                    Entry(channel="SMS", step=0, submission=1, exchanges=(exchange,)),
                ),
                Happening(
                    message_id, NOON + timedelta(seconds=2.5), Kind.OUTCOME, "outcome:0.1",
                    Entry(
                        note="rejected, no channel left", channel="SMS", step=0, submission=1, status="rejected",
                        reason=Reason(ReasonCode.RECIPIENT_INVALID_CHANNEL_IDENTITY, "Invalid destination."),
                    ),
                ),
            ],
        )  # fmt: skip
    answer = await call("GET", f"/messages/{message_id}/timeline")
    told = answer.json

    assert answer.status == 200
    assert (told["message_id"], told["status"], told["final"]) == (message_id, "FAILED", True)
    assert [(entry["after_seconds"], entry["kind"], entry["what"]) for entry in told["entries"]] == [
        (0.0, "planned", "planned (SMS)"),
        (1.0, "submitted", "submit_sm 1/1"),
        (2.0, "submitted", "submitted to the provider (SMS step 1, submission 1)"),
        (2.5, "outcome", "outcome (SMS step 1, submission 1)"),
    ]
    assert told["entries"][0]["candidates"] == [
        {"channel": "TELEGRAM", "verdict": "NO_CAPABILITY"}, {"channel": "SMS", "verdict": "KEPT"},
    ]  # fmt: skip
    last = told["entries"][-1]
    assert (last["step"], last["submission"], last["status"]) == (1, 1, "rejected")
    assert last["reason"]["code"] == "RECIPIENT_INVALID_CHANNEL_IDENTITY"
    assert "46701230001" not in answer.body.decode()


async def test_timelines_of_others_and_of_nothing_are_not_there(
    call: Client, app: App, pool: Pool, store: ConfigurationStore
) -> None:
    others = make_app(project_id=OTHER_PROJECT)
    await store.insert_app(others)
    theirs = await stored(pool, others, project_id=OTHER_PROJECT)
    ours = await stored(pool, app, 1, project_id=PROJECT)

    for message_id in (theirs, mint(), "nothing", "a%00b"):
        assert (await call("GET", f"/messages/{message_id}/timeline")).status == 404
    assert (await call("GET", f"/messages/{ours}/timeline")).json["entries"] == []

"""`switchboard simulate`: the same story every time, as expected, and what is wrong in a file told with its line."""

import json
from pathlib import Path

import pytest

from switchboard.simulate import Scenario, play
from switchboard.simulate.play import NeverEnds
from switchboard_standalone.commands.simulate import simulate
from switchboard_standalone.fleet import BadOption
from switchboard_standalone.scenario_file import read_scenario

SAMPLES = sorted((Path(__file__).parent.parent / "simulate" / "scenarios").glob("*.yaml"))
EACH = pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)


@EACH
def test_a_sample_comes_to_what_it_expects(path: Path) -> None:
    scenario = read_scenario(path)

    assert scenario.expect is not None
    assert play(scenario).differences(scenario.expect) == []


@EACH
def test_a_scenario_comes_to_the_same_bytes_every_time(path: Path) -> None:
    assert play(read_scenario(path)).to_json() == play(read_scenario(path)).to_json()


def test_times_are_exact() -> None:
    late = next(path for path in SAMPLES if path.stem == "late-delivery")
    lines = [(line.at_seconds, line.fact, line.channel) for line in play(read_scenario(late)).timeline]

    assert lines == [
        (0.0, "planned", "WHATSAPP"),
        (0.2, "outcome", "WHATSAPP"),
        (60.2, "deadline", "WHATSAPP"),
        (60.3, "outcome", "SMS"),
        (75.0, "receipt", "WHATSAPP"),
        (90.2, "receipt", "SMS"),
    ]


def test_what_is_taken_back_is_told() -> None:
    taken_back = next(path for path in SAMPLES if path.stem == "taken-back")

    asked = [(line.at_seconds, line.takes_back) for line in play(read_scenario(taken_back)).timeline if line.takes_back]
    assert asked == [(30.0, "VIBERBM")]


async def test_the_command_prints_the_timeline_and_succeeds(capsys: pytest.CaptureFixture[str]) -> None:
    code = await simulate(SAMPLES[0])
    printed = capsys.readouterr()

    assert (code, printed.err) == (0, "")
    assert set(json.loads(printed.out)) == {"candidates", "timeline", "end"}


async def test_the_command_fails_where_it_comes_otherwise(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("channels: [{channel: SMS}]\nexpect: {status: DELIVERED, told: [DELIVERED SMS]}\n")
    code = await simulate(path)

    assert code == 1
    assert capsys.readouterr().err.splitlines() == [
        f"switchboard: {path}: status: expected DELIVERED, came to QUEUED_ON_CHANNEL",
        f"switchboard: {path}: told: expected DELIVERED SMS, came to SUBMIT SMS, QUEUED_ON_CHANNEL SMS",
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("channels:\n  - channel: PIGEON", "2: channels[0]: unknown channel PIGEON"),
        ("channels:\n  - channel: SMS\n    atempts: []", "3: channels[0].atempts: extra inputs are not permitted"),
        ("channels: []", "1: channels: tuple should have at least 1 item after validation, not 0"),
        (
            "message:\n  fallback_wait_seconds: 9\nchannels: [{channel: SMS}]",
            "2: message.fallback_wait_seconds: input should be greater than or equal to 10",
        ),
        ("channels:\n  - channel: SMS\n    channel: MMS", "3: channels[0].channel: is there twice"),
        ("channels:\n  - channel: [SMS", "2: expected ',' or ']', but got '<stream end>'"),
        ("&a {channels: *a}", "1: is nested too deeply"),
        ("- 1", "1: input should be a valid dictionary or instance of Scenario"),
        (
            "channels:\n  - channel: SMS\n    attempts:\n      - receipts:\n        - {status: READ, after_seconds: x}",
            "5: channels[0].attempts[0].receipts[0].after_seconds: input should be a valid number,"
            " unable to parse string as a number",
        ),
        ("message:\n  channel_steps: [{channel: SMS}]\nchannels: [{channel: MMS}]",
         "1: channel_steps: SMS is not among the channels"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_line(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(text)

    with pytest.raises(BadOption) as refused:
        read_scenario(path)

    assert str(refused.value) == f"{path}:{told}"


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadOption, match="cannot be read"):
        read_scenario(tmp_path / "nothing.yaml")


def test_a_provider_that_throttles_for_ever_ends_with_the_message() -> None:
    throttled = {"answer": "failed_for_now", "throttled": True, "retry_after_seconds": 600}
    played = play(
        Scenario.model_validate(
            {"message": {"ttl_seconds": 1800}, "channels": [{"channel": "SMS", "attempts": [throttled]}]}
        )
    )

    assert played.end.status == "FAILED"


def test_a_scenario_of_too_many_facts_is_stopped() -> None:
    at_once = {"answer": "failed_for_now", "throttled": True, "retry_after_seconds": 0.001}
    with pytest.raises(NeverEnds):
        play(Scenario.model_validate({"channels": [{"channel": "SMS", "attempts": [at_once]}]}))

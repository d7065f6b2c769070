"""`schemas/` is what the code says, and a difference is told by file."""

from pathlib import Path

from switchboard_standalone.schemas import documents, drift, write


def test_what_was_written_is_as_the_code_says(tmp_path: Path) -> None:
    write(tmp_path)

    assert drift(tmp_path) == []
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.json")} == set(documents())


def test_changed_missing_and_left_over_files_are_told(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "openapi.json").write_text("{}")
    (tmp_path / "asyncapi.json").unlink()
    (tmp_path / "channels" / "pigeon.json").write_text("{}")

    assert drift(tmp_path) == ["asyncapi.json", "channels/pigeon.json", "openapi.json"]
    write(tmp_path)
    assert drift(tmp_path) == []


def test_every_channel_trigger_and_topic_is_described() -> None:
    names = set(documents())

    assert {"openapi.json", "asyncapi.json", "channels/sms.json", "channels/telegram.json"} <= names
    assert {"events/message_delivery.json", "events/message_submit.json", "events/message_inbound.json"} <= names

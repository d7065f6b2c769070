"""Settings: a wrong one is one line that names the variable and never its value."""

import pytest

from switchboard.settings import CommonSettings, SettingsError, read_settings

GOOD = {
    "SWITCHBOARD_POSTGRES_DSN": "postgresql://u:secret@127.0.0.1/db",
    "SWITCHBOARD_KAFKA_BOOTSTRAP": "127.0.0.1:9092",
    "SWITCHBOARD_SECRET_KEYS": "k1:AAAA",
}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)


def test_they_are_read_from_the_environment():
    settings = read_settings(CommonSettings)

    assert settings.kafka_bootstrap == "127.0.0.1:9092"
    assert settings.topic_prefix == "switchboard."


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("SWITCHBOARD_KAFKA_BOOTSTRAP", None, "SWITCHBOARD_KAFKA_BOOTSTRAP: is not set"),
        ("SWITCHBOARD_PORT", "seventy", "SWITCHBOARD_PORT: "),
        ("SWITCHBOARD_PORT", "70000", "SWITCHBOARD_PORT: "),
        ("SWITCHBOARD_OTLP_ENDPOINT", "nowhere", "SWITCHBOARD_OTLP_ENDPOINT: "),
        ("SWITCHBOARD_LOG_LEVEL", "loud", "SWITCHBOARD_LOG_LEVEL: "),
        ("SWITCHBOARD_TRACE_SAMPLE_RATIO", "2", "SWITCHBOARD_TRACE_SAMPLE_RATIO: "),
    ],
)
def test_a_wrong_one_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str | None, told: str):
    if value is None:
        monkeypatch.delenv(name)
    else:
        monkeypatch.setenv(name, value)

    with pytest.raises(SettingsError) as raised:
        read_settings(CommonSettings)

    text = str(raised.value)
    assert text.startswith(told)
    assert "\n" not in text
    assert value is None or value not in text.removeprefix(name)


def test_a_secret_does_not_show():
    assert "secret" not in repr(read_settings(CommonSettings)).replace("secret_keys", "")

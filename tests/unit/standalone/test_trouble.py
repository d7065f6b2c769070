"""What goes wrong is told in one line that names the setting to look at."""

import asyncpg
import pytest
from aiokafka.errors import KafkaConnectionError

from switchboard.bus import BusError
from switchboard_standalone.trouble import one_line


def of_kafka() -> BusError:
    error = BusError("cannot create topics: KafkaConnectionError")
    error.__cause__ = KafkaConnectionError()
    return error


@pytest.mark.parametrize(
    ("error", "setting"),
    [
        (KafkaConnectionError(), "SWITCHBOARD_KAFKA_BOOTSTRAP"),
        (of_kafka(), "SWITCHBOARD_KAFKA_BOOTSTRAP"),
        (ConnectionRefusedError(111, "Connect call failed ('127.0.0.1', 1)"), "SWITCHBOARD_POSTGRES_DSN"),
        (asyncpg.InvalidPasswordError("no"), "SWITCHBOARD_POSTGRES_DSN"),
        (asyncpg.ClientConfigurationError("no"), "SWITCHBOARD_POSTGRES_DSN"),
        (ExceptionGroup("several", [ConnectionRefusedError()]), "SWITCHBOARD_POSTGRES_DSN"),
    ],
    ids=repr,
)
def test_a_server_that_does_not_answer_is_told_with_its_setting(error: Exception, setting: str):
    line = one_line(error)

    assert line is not None
    assert setting in line
    assert "\n" not in line


def test_a_bug_is_not_dressed_up_as_trouble():
    assert one_line(KeyError("x")) is None

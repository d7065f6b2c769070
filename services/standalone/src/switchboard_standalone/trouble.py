"""What goes wrong for the person at the command line, as one line that says what to do."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import structlog
from pydantic import ValidationError

from switchboard.channel.errors import NotConfigured
from switchboard.embedded import EmbeddedError
from switchboard.settings import PREFIX, SettingsError
from switchboard_standalone.fleet import BadOption
from switchboard_standalone.home import HomeError
from switchboard_standalone.supervisor import ServiceFailed

EXIT_FAILED: Final = 1
EXIT_BAD_INPUT: Final = 2


class Refused(Exception):
    """What was asked for cannot be done. The text is the line that is told."""


#: These say themselves what to do.
_PLAIN: Final = (Refused, EmbeddedError, ServiceFailed, HomeError, BadOption, NotConfigured, SettingsError)
_BAD_INPUT: Final = (BadOption, SettingsError, ValidationError)


@contextmanager
def telling_trouble() -> Iterator[None]:
    """Turn every error a person can do something about into one line on standard error and an exit code."""
    _quieten_libraries()
    try:
        yield
    except Exception as error:
        line = one_line(error)
        if line is None:
            raise
        sys.stderr.write(f"switchboard: {line}\n")
        sys.exit(EXIT_BAD_INPUT if isinstance(error, _BAD_INPUT) else EXIT_FAILED)
    except KeyboardInterrupt:
        sys.stderr.write("switchboard: stopped\n")
        sys.exit(130)


def _quieten_libraries() -> None:
    """What libraries log of every failed try is not for people; what matters of it is in our line."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def one_line(error: BaseException) -> str | None:
    """The line to tell. None for an error that is a bug of ours."""
    # Here, because nothing that only works needs them: together they take half a second to import.
    import asyncpg
    from aiokafka.errors import KafkaError

    from switchboard.bus import BusError
    from switchboard.store.migrate import MigrationError

    if isinstance(error, BaseExceptionGroup):
        return one_line(error.exceptions[0])
    if isinstance(error, BusError) and isinstance(error.__cause__, KafkaError):
        return one_line(error.__cause__)
    if isinstance(error, (*_PLAIN, BusError, MigrationError)):
        return " ".join(str(error).split())
    if isinstance(error, ValidationError):
        return "; ".join(
            f"{PREFIX}{str(problem['loc'][0]).upper()}: {problem['msg'].lower()}"
            for problem in error.errors(include_url=False, include_input=False)
        )
    if isinstance(error, asyncpg.InvalidPasswordError | asyncpg.InvalidAuthorizationSpecificationError):
        return "PostgreSQL refuses the user or the password in SWITCHBOARD_POSTGRES_DSN"
    if isinstance(error, asyncpg.InvalidCatalogNameError):
        return "the database in SWITCHBOARD_POSTGRES_DSN does not exist; create it"
    if isinstance(error, asyncpg.UndefinedTableError | asyncpg.InvalidSchemaNameError):
        return "the database has no tables of this version; run `switchboard migrate`"
    if isinstance(error, asyncpg.PostgresError | asyncpg.InterfaceError):
        return f"PostgreSQL refuses ({type(error).__name__}); check SWITCHBOARD_POSTGRES_DSN and the user's rights"
    if isinstance(error, KafkaError):
        return f"Kafka does not answer ({type(error).__name__}); check SWITCHBOARD_KAFKA_BOOTSTRAP, or that it runs"
    # Only the database's client lets the socket's own error through.
    if isinstance(error, ConnectionError):
        return "PostgreSQL does not answer; check SWITCHBOARD_POSTGRES_DSN, or that it runs"
    if isinstance(error, OSError):
        return f"{error.strerror or type(error).__name__}: {error.filename or 'a server does not answer'}"
    return None

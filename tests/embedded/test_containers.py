"""Servers in containers, where asked for. The engine is a stand-in: what counts is what it is asked."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest

from switchboard.embedded import EngineMissing, ServerSettings, SoftwareMissing, ensure_servers

ASKED = ServerSettings(testcontainers=True, postgres_dsn=None, kafka_bootstrap=None)


class Engine:
    """What containers were started and stopped, and with which settings."""

    def __init__(self) -> None:
        self.running: list[str] = []
        self.environment: dict[str, str] = {}
        self.ports: dict[int, int] = {}
        self.is_down = False


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    """The package testcontainers, with an engine that starts nothing."""
    engine = Engine()

    class Container:
        def __init__(self, image: str) -> None:
            if engine.is_down:
                raise ConnectionError("no engine")
            self.image = image

        def with_bind_ports(self, inside: int, outside: int) -> Container:
            engine.ports[inside] = outside
            return self

        def with_env(self, name: str, value: str) -> Container:
            engine.environment[name] = value
            return self

        def start(self) -> Container:
            engine.running.append(self.image)
            return self

        def stop(self) -> None:
            engine.running.remove(self.image)

        def get_connection_url(self, driver: str | None) -> str:
            return "postgresql://test:test@localhost:1/test"

    def module(name: str, **content: Any) -> None:
        made = ModuleType(name)
        vars(made).update(content)
        monkeypatch.setitem(sys.modules, name, made)

    module("testcontainers")
    module("testcontainers.core")
    module("testcontainers.postgres", PostgresContainer=Container)
    module("testcontainers.core.container", DockerContainer=Container)
    module("testcontainers.core.waiting_utils", wait_for_logs=lambda *_, timeout: None)
    return engine


def test_both_servers_run_in_containers_until_stopped(engine: Engine) -> None:
    with ensure_servers(ASKED) as servers:
        assert engine.running == ["postgres:18", "apache/kafka:4.3.1"]
        assert servers.postgres_dsn == "postgresql://test:test@localhost:1/test"
        assert servers.kafka_bootstrap == f"127.0.0.1:{engine.ports[9092]}"
        assert servers.pids == {}
    assert engine.running == []


def test_the_broker_in_a_container_is_set_up_like_the_embedded_one(engine: Engine) -> None:
    with ensure_servers(ASKED) as servers:
        advertised = f"PLAINTEXT://{servers.kafka_bootstrap}"

    assert engine.environment["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"
    assert engine.environment["KAFKA_ADVERTISED_LISTENERS"] == advertised


def test_what_is_configured_gets_no_container(engine: Engine) -> None:
    with ensure_servers(ASKED.model_copy(update={"kafka_bootstrap": "kafka.example:9092"})):
        assert engine.running == ["postgres:18"]


def test_without_an_engine_there_is_one_clear_line(engine: Engine) -> None:
    engine.is_down = True
    with pytest.raises(EngineMissing, match=r"no container engine answers \(ConnectionError\); start one, or unset"):
        ensure_servers(ASKED)
    assert engine.running == []


def test_without_the_package_there_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "testcontainers", None)
    with pytest.raises(SoftwareMissing, match="needs the package testcontainers, which is not installed"):
        ensure_servers(ASKED)

"""Traps of FastStream and aiokafka that only the shape of our code can avoid (DESIGN 4)."""

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

from switchboard.bus import BusSettings, Consumer, Producer
from switchboard.bus.frame import MAX_POLL_INTERVAL_MS, build_broker, build_subscriber

ROOT = Path(__file__).parents[2]
BUS = ROOT / "shared/kernel/src/switchboard/bus"
SOURCES = sorted([*ROOT.glob("shared/*/src/**/*.py"), *ROOT.glob("services/*/src/**/*.py")])
SETTINGS = BusSettings(bootstrap="localhost:9092")


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def calls(path: Path, method: str) -> list[ast.Call]:
    return [
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == method
    ]


def test_only_the_bus_knows_the_kafka_client() -> None:
    allowed = {
        BUS,
        ROOT / "shared/kernel/src/switchboard/embedded",
        ROOT / "shared/kernel/src/switchboard/testing",
        # The command looks at a broker as an operator does: it carries no record.
        ROOT / "services/standalone/src/switchboard_standalone",
    }
    guilty = [
        str(path.relative_to(ROOT))
        for path in SOURCES
        if not allowed & set(path.parents)
        and any(name.split(".")[0] == "aiokafka" or name.startswith("faststream.kafka") for name in imports(path))
    ]

    assert guilty == []


def test_faststreams_telemetry_is_not_used_because_it_puts_record_keys_into_spans() -> None:
    guilty = [
        str(path.relative_to(ROOT))
        for path in SOURCES
        if any("faststream" in name and ("opentelemetry" in name or "prometheus" in name) for name in imports(path))
    ]

    assert guilty == []
    assert list(build_broker(SETTINGS).middlewares) == []


def test_getmany_is_called_in_one_place_and_always_names_partitions() -> None:
    found = [(path, call) for path in SOURCES for call in calls(path, "getmany")]

    assert [path for path, _ in found] == [BUS / "consumer.py"]
    assert isinstance(found[0][1].args[0], ast.Starred)


def test_getmany_is_never_put_under_a_deadline() -> None:
    for node in ast.walk(ast.parse((BUS / "consumer.py").read_text())):
        if isinstance(node, ast.AsyncWith):
            assert not any(isinstance(inner, ast.Attribute) and inner.attr == "getmany" for inner in ast.walk(node))
    assert calls(BUS / "consumer.py", "wait_for") == []


def test_partitions_are_chosen_in_getmany_and_never_paused() -> None:
    for path in BUS.glob("*.py"):
        assert calls(path, "pause") == calls(path, "resume") == [], path.name


def test_the_subscriber_has_no_handler_and_says_every_default_aloud() -> None:
    broker = build_broker(SETTINGS)
    subscriber = build_subscriber(
        broker, SETTINGS, topics=["t"], group="g", member="m-0", listener=None, max_poll_records=500
    )
    options = subscriber._connection_args

    assert not subscriber.calls
    assert subscriber.ack_policy.name == "MANUAL"
    assert options["enable_auto_commit"] is False
    assert options["auto_offset_reset"] == "earliest"
    assert options["fetch_max_wait_ms"] == 200
    assert options["group_instance_id"] == "m-0"
    assert options["session_timeout_ms"] == 6_000
    assert options["heartbeat_interval_ms"] == 2_000
    assert options["max_poll_interval_ms"] == MAX_POLL_INTERVAL_MS >= 3_600_000
    drain_ms = 1_000 * (SETTINGS.drain_seconds + SETTINGS.commit_timeout_seconds)
    assert options["rebalance_timeout_ms"] == 30_000 > drain_ms
    assert broker.config.graceful_timeout
    assert broker.config.broker_config.allow_auto_create_topics is False


def test_the_broker_publishes_nothing_so_its_weak_acks_cannot_matter() -> None:
    assert build_broker(SETTINGS).config.broker_config.consumer_only


@pytest.mark.parametrize("hook", [Consumer.start, Consumer.stop, Producer.start, Producer.stop])
def test_hooks_are_coroutines_because_faststream_runs_plain_functions_in_a_thread(hook: object) -> None:
    assert inspect.iscoroutinefunction(hook)


@pytest.mark.parametrize("module", ["offsets", "scheduler", "policy", "errors", "record", "murmur2"])
def test_the_rules_of_the_bus_do_no_io(module: str) -> None:
    impure = {"aiokafka", "faststream", "structlog", "prometheus_client", "socket", "os", "time", "random", "threading"}
    ours = {f"switchboard.bus.{name}" for name in ("offsets", "scheduler", "policy", "errors", "record")}

    for name in imports(BUS / f"{module}.py"):
        assert name.split(".")[0] not in impure
        if name.startswith("switchboard."):
            assert any(name == allowed or name.startswith(f"{allowed}.") for allowed in ours), name


def test_no_log_line_of_the_bus_names_a_key_a_payload_a_header_or_an_errors_text() -> None:
    secret = {"key", "value", "headers", "detail", "payload", "records"}
    for path in BUS.glob("*.py"):
        tree = ast.parse(path.read_text())
        for call in ast.walk(tree):
            if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
                continue
            if not isinstance(call.func.value, ast.Name) or call.func.value.id != "log":
                continue
            for argument in [*call.args, *(keyword.value for keyword in call.keywords)]:
                for node in ast.walk(argument):
                    assert not (isinstance(node, ast.Attribute) and node.attr in secret), (path.name, call.lineno)
                    assert not (isinstance(node, ast.Name) and node.id in ("str", "repr")), (path.name, call.lineno)

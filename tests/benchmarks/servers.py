"""The broker and the database of a run: embedded ones, durable, and compiled fully, in a folder of their own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from msgspec import Struct

from switchboard.embedded import BENCHMARK_FLAGS, EmbeddedKafka, EmbeddedPostgres, ServerSettings


class BenchServers(Struct, frozen=True):
    """Servers that answer."""

    postgres: EmbeddedPostgres
    kafka: EmbeddedKafka

    @property
    def pids(self) -> dict[str, int]:
        """Process ids by name."""
        return {"postgres": self.postgres.pid or 0, "kafka": self.kafka.pid or 0}

    @property
    def environment(self) -> dict[str, str]:
        """What services need to know to use them."""
        return {
            "SWITCHBOARD_POSTGRES_DSN": self.postgres.dsn,
            "SWITCHBOARD_KAFKA_BOOTSTRAP": self.kafka.bootstrap,
            "SWITCHBOARD_TOPIC_PARTITIONS": "6",
        }


@contextmanager
def bench_servers(folder: Path) -> Iterator[BenchServers]:
    """Start both, until the block ends. Main thread only. Programs that were fetched before are used again.

    The database has as much memory as one that is meant for such loads; the embedded one's 128 MB are a laptop's.
    """
    software = ServerSettings().programs
    with ExitStack() as stack:
        postgres = EmbeddedPostgres(folder / "postgres", software=software, settings={"shared_buffers": "1GB"})
        kafka = EmbeddedKafka(folder / "kafka", software=software, flags=BENCHMARK_FLAGS)
        for server in (postgres, kafka):
            stack.callback(server.stop)
            server.start()
        yield BenchServers(postgres, kafka)

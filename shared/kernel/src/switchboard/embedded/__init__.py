"""PostgreSQL and Kafka without Docker: managed child processes with their data in one folder."""

from switchboard.embedded.child import ChildProcess
from switchboard.embedded.errors import (
    DamagedDownload,
    DownloadFailed,
    EmbeddedError,
    EngineMissing,
    FolderInUse,
    FolderUnusable,
    PortTaken,
    ServerFailed,
    SoftwareMissing,
)
from switchboard.embedded.folder import default_data_folder
from switchboard.embedded.jars import Download, Progress
from switchboard.embedded.kafka import BENCHMARK_FLAGS, EmbeddedKafka
from switchboard.embedded.port import free_port
from switchboard.embedded.postgres import EmbeddedPostgres
from switchboard.embedded.servers import Servers, ServerSettings, ensure_servers

__all__ = [
    "BENCHMARK_FLAGS",
    "ChildProcess",
    "DamagedDownload",
    "Download",
    "DownloadFailed",
    "EmbeddedError",
    "EmbeddedKafka",
    "EmbeddedPostgres",
    "EngineMissing",
    "FolderInUse",
    "FolderUnusable",
    "PortTaken",
    "Progress",
    "ServerFailed",
    "ServerSettings",
    "Servers",
    "SoftwareMissing",
    "default_data_folder",
    "ensure_servers",
    "free_port",
]

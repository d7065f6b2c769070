"""Errors of the embedded servers. Every message is one line that says what is wrong and what to do.

EmbeddedError
├── FolderUnusable     the data folder cannot be entered, written or has no room
├── FolderInUse        another process runs a server on this folder
├── PortTaken          somebody else listens on the port that was asked for
├── SoftwareMissing    a wheel that carries a server is not installed
├── DownloadFailed     Kafka could not be fetched
├── DamagedDownload    a fetched file is not the one that was released
├── ServerFailed       a server ended, or did not become ready
└── EngineMissing      test containers were asked for and no container engine answers
"""

from __future__ import annotations


class EmbeddedError(Exception):
    """Something about an embedded server that the person who started it has to change."""


class FolderUnusable(EmbeddedError):
    """The data folder cannot be entered or written, or its disk is full."""


class FolderInUse(EmbeddedError):
    """Another process runs a server on this folder."""


class PortTaken(EmbeddedError):
    """Somebody else listens on the port that was asked for."""


class SoftwareMissing(EmbeddedError):
    """A wheel that carries a server is not installed."""


class DownloadFailed(EmbeddedError):
    """Kafka could not be fetched. Carries no address: those may hold the credentials of a mirror."""


class DamagedDownload(EmbeddedError):
    """A fetched file is not the one that was released."""


class ServerFailed(EmbeddedError):
    """A server ended by itself, or did not become ready in time."""


class EngineMissing(EmbeddedError):
    """Test containers were asked for and no container engine answers."""

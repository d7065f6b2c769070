"""A version to come: every record a service writes has a field and a header that today's code does not know.

Python runs this before anything else in a process that has this folder on its path.
"""

from typing import Any

import msgspec

from switchboard.topics import Topic

_encode, _headers = Topic.encode, Topic.headers


def _encode_more(topic: Topic[Any], record: Any) -> bytes:
    return msgspec.json.encode(
        msgspec.json.decode(_encode(topic, record)) | {"a_field_of_the_future": {"deep": [1, 2]}}
    )


def _headers_more(topic: Topic[Any], record: Any) -> dict[str, bytes]:
    return _headers(topic, record) | {"future": b"1"}


setattr(Topic, "encode", _encode_more)  # noqa: B010
setattr(Topic, "headers", _headers_more)  # noqa: B010

"""Reads request bodies within a bound, and the forms that providers accept."""

import email.parser
import email.policy
from urllib.parse import parse_qsl

import msgspec
from msgspec import Struct
from starlette.requests import Request


class TooLarge(Exception):
    """A body is larger than this server takes."""


class Malformed(Exception):
    """A body is not what its content type says."""


class Upload(Struct, frozen=True):
    """A file sent as a part of a form."""

    name: str
    content_type: str
    content: bytes


#: What a field holds: JSON of any shape, text from a form, or a file.
FieldValue = object


async def read_body(request: Request, most_bytes: int) -> bytes:
    """The whole body. Raises TooLarge as soon as it is."""
    chunks: list[bytes] = []
    size_bytes = 0
    async for chunk in request.stream():
        size_bytes += len(chunk)
        if size_bytes > most_bytes:
            raise TooLarge
        chunks.append(chunk)
    return b"".join(chunks)


def read_fields(content_type: str, query: str, body: bytes) -> dict[str, FieldValue]:
    """The fields of a call, from the query string and a JSON, form or multipart body. Raises Malformed."""
    fields: dict[str, FieldValue] = dict(parse_qsl(query, keep_blank_values=True))
    kind = content_type.partition(";")[0].strip().lower()
    if not body:
        return fields
    if kind == "application/json":
        return fields | _json(body)
    if kind == "multipart/form-data":
        return fields | _multipart(content_type, body)
    if kind in ("application/x-www-form-urlencoded", ""):
        try:
            return fields | dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=1000))
        except ValueError as error:
            raise Malformed("the form cannot be read") from error
    raise Malformed("the content type is not one that is understood")


def _json(body: bytes) -> dict[str, FieldValue]:
    try:
        return msgspec.json.decode(body, type=dict[str, FieldValue])
    except (msgspec.DecodeError, RecursionError) as error:
        raise Malformed("the body is not a JSON object") from error


def _multipart(content_type: str, body: bytes) -> dict[str, FieldValue]:
    head = f"Content-Type: {content_type}\r\nMIME-Version: 1.0\r\n\r\n".encode()
    form = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + body)
    if not form.is_multipart():
        raise Malformed("the body is not the multipart form it says it is")
    fields: dict[str, FieldValue] = {}
    for part in form.iter_parts():
        name = part.get_param("name", header="content-disposition")
        content = part.get_payload(decode=True)
        if not isinstance(name, str) or not isinstance(content, bytes):
            raise Malformed("a part of the form has no name")
        filename = part.get_filename()
        if filename is None:
            fields[name] = content.decode("utf-8", "replace")
        else:
            fields[name] = Upload(filename, part.get_content_type(), content)
    return fields

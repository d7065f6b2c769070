"""Files that went through the Bot API: uploads of bots and of phones. Bounded by bytes; the oldest goes first."""

from collections import OrderedDict

from msgspec import Struct

from switchboard.ids import mint


class StoredFile(Struct, frozen=True):
    """One file."""

    file_id: str
    name: str
    content_type: str
    content: bytes

    @property
    def path(self) -> str:
        """Its `file_path`, good for `/file/bot{token}/{file_path}`."""
        return f"files/{self.file_id}/{self.name}"


class Files:
    """All files there are."""

    def __init__(self, most_bytes: int = 100_000_000) -> None:
        self._files: OrderedDict[str, StoredFile] = OrderedDict()
        self._size_bytes = 0
        self._most_bytes = most_bytes

    def add(self, name: str, content_type: str, content: bytes) -> StoredFile:
        """Keep a file under a new id."""
        safe = "".join(c if c.isalnum() or c in "._-" else "_" for c in name).lstrip(".")[-80:] or "file"
        file = StoredFile(f"F{mint()}", safe, content_type, content)
        self._files[file.file_id] = file
        self._size_bytes += len(content)
        while self._size_bytes > self._most_bytes and len(self._files) > 1:
            _, oldest = self._files.popitem(last=False)
            self._size_bytes -= len(oldest.content)
        return file

    def get(self, file_id: str) -> StoredFile | None:
        """A file by its id."""
        return self._files.get(file_id)

    def clear(self) -> None:
        """Forget every file."""
        self._files.clear()
        self._size_bytes = 0

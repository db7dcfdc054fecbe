"""Oracle of relay/native/reader.pxd: a reader over bytes; None means that it could not, and did not move."""

from typing import Any

LONGEST = 5  # bytes of a tag and of a length
TAGS = 2**32  # there is none from this one on


def varint(data: bytes, longest: int = 10) -> tuple[int, int] | None:
    """(value, size) of the varint at the start of data, of at most `longest` bytes and 64 bits."""
    for size in range(1, longest + 1):
        if size > len(data):
            return None
        if data[size - 1] < 0x80:
            value = sum((byte & 0x7F) << (7 * place) for place, byte in enumerate(data[:size]))
            return (value, size) if value < 2**64 else None
    return None


class Reader:
    """Reads from the front of `data`, which holds what is left."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def take(self, size: int) -> bytes | None:
        if size > len(self.data):
            return None
        taken, self.data = self.data[:size], self.data[size:]
        return taken

    def skip(self, size: int) -> bool | None:
        return None if self.take(size) is None else True

    def varint(self) -> int | None:
        found = varint(self.data)
        if found is None:
            return None
        value, size = found
        self.take(size)
        return value

    def skip_varint(self) -> bool | None:
        return None if self.varint() is None else True

    def tag(self) -> tuple[int, int] | None:
        found = varint(self.data, LONGEST)
        if found is None:
            return None
        value, size = found
        if not 8 <= value < TAGS:
            return None
        self.take(size)
        return value >> 3, value & 7

    def bytes(self) -> bytes | None:
        found = varint(self.data, LONGEST)
        if found is None:
            return None
        value, size = found
        if value > len(self.data) - size:
            return None
        self.take(size)
        return self.take(value)

    def run(self, operation: str, argument: int | None) -> Any:
        method = getattr(self, operation)
        return method() if argument is None else method(argument)

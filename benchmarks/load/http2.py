"""As much of HTTP/2 (RFC 9113) as a load source or sink needs: frames in, frames out."""

from __future__ import annotations

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADER = 9
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE = 3, 4
LARGEST_WINDOW = 2**31 - 1
FIRST_WINDOW = 65_535  # of a connection, and of a stream until SETTINGS say otherwise


def pack(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def settings(values: dict[int, int]) -> bytes:
    return pack(SETTINGS, 0, 0, b"".join(k.to_bytes(2, "big") + v.to_bytes(4, "big") for k, v in values.items()))


def window_update(stream: int, size: int) -> bytes:
    return pack(WINDOW_UPDATE, 0, stream, size.to_bytes(4, "big"))


def literal_headers(pairs: list[tuple[str, str]]) -> bytes:
    """Header fields without indexing and without Huffman coding (RFC 7541, 6.2.2): needs no encoder."""
    out = bytearray()
    for name, value in pairs:
        out += b"\0" + bytes((len(name),)) + name.encode() + bytes((len(value),)) + value.encode()
    return bytes(out)


class Frames:
    """Cuts received bytes into frames: (kind, flags, stream, payload)."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes | memoryview) -> list[tuple[int, int, int, bytes]]:
        """The frames that these bytes complete."""
        frames = []
        held = self._held
        held += data
        at = 0
        while len(held) - at >= HEADER:
            size = int.from_bytes(held[at : at + 3], "big")
            if len(held) - at < HEADER + size:
                break
            stream = int.from_bytes(held[at + 5 : at + 9], "big") & LARGEST_WINDOW
            frames.append((held[at + 3], held[at + 4], stream, bytes(held[at + HEADER : at + HEADER + size])))
            at += HEADER + size
        del held[:at]
        return frames


def block(flags: int, payload: bytes) -> bytes:
    """The header block of a HEADERS frame, without padding and priority."""
    padding = 0
    if flags & PADDED:
        padding, payload = payload[0], payload[1:]
    if flags & PRIORITY:
        payload = payload[5:]
    return payload[: len(payload) - padding]

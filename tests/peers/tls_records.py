"""TLS 1.3 record by record (RFC 8446, 5): a peer that shakes hands as OpenSSL does, and then seals what it likes.

No library sends half a record, alerts by the hundred, or a change of keys where a test wants it.
"""

import hashlib
import hmac
import socket
import ssl
import struct
import tempfile
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from .closing import Closing

HOST = "127.0.0.1"
WAIT = 30.0
ALERT, HANDSHAKE, DATA = 21, 22, 23  # kinds of records
HEADER = 5
TAG = 16
PLAIN = 16_384  # most bytes of a record
ASK_FOR_KEYS = b"\x18\0\0\1\1"  # KeyUpdate, update_requested (4.6.3)
GIVE_KEYS = b"\x18\0\0\1\0"  # KeyUpdate, update_not_requested
CLOSE = b"\1\0"  # close_notify, a warning


def expand(secret: bytes, label: str, size: int) -> bytes:
    """HKDF-Expand-Label with an empty context, of at most one block (7.1)."""
    name = b"tls13 " + label.encode()
    info = struct.pack(">HB", size, len(name)) + name + b"\0\1"
    return hmac.new(secret, info, hashlib.sha384).digest()[:size]


class Keys:
    """One direction's."""

    def __init__(self, secret: bytes) -> None:
        self._take(secret)

    def renew(self) -> None:
        """What follows a KeyUpdate (7.2)."""
        self._take(expand(self._secret, "traffic upd", 48))

    def seal(self, kind: int, data: bytes) -> bytes:
        inner = data + bytes([kind])
        header = struct.pack(">BHH", DATA, 0x0303, len(inner) + TAG)
        return header + self._key.encrypt(self._nonce(), inner, header)

    def open(self, header: bytes, body: bytes) -> tuple[int, bytes]:
        try:
            inner = self._key.decrypt(self._nonce(), body, header).rstrip(b"\0")
        except InvalidTag:
            raise AssertionError("a record that does not follow from those before it") from None
        return inner[-1], inner[:-1]

    def _take(self, secret: bytes) -> None:
        self._secret = secret
        self._key = AESGCM(expand(secret, "key", 32))
        self._iv = int.from_bytes(expand(secret, "iv", 12))
        self._count = 0

    def _nonce(self) -> bytes:
        nonce = (self._iv ^ self._count).to_bytes(12)
        self._count += 1
        return nonce


class Records(Closing):
    """A connection whose handshake is over; ours are the keys.

    Args:
        context: of a peer, by Python (`Trust.context`); its tickets are left out.
        server: whether we are the server.
    """

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, *, server: bool) -> None:
        self.sock = sock
        sock.settimeout(WAIT)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with tempfile.TemporaryDirectory(prefix="relay-keys-") as folder:
            log = Path(folder) / "log"
            context.keylog_filename = str(log)
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            if server:
                context.num_tickets = 0
            heard, said = ssl.MemoryBIO(), ssl.MemoryBIO()
            tls = context.wrap_bio(heard, said, server, None if server else HOST)
            self._received = b""
            while True:
                try:
                    tls.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    sock.sendall(said.read())
                    # By records: OpenSSL is not to see what comes after the handshake.
                    heard.write(b"".join(self._record()))
            sock.sendall(said.read())
            cipher = tls.cipher()
            assert cipher
            assert cipher[0] == "TLS_AES_256_GCM_SHA384"
            secrets = dict(line.split()[::2] for line in log.read_text().splitlines() if not line.startswith("#"))
        keys = [Keys(bytes.fromhex(secrets[f"{side}_TRAFFIC_SECRET_0"])) for side in ("SERVER", "CLIENT")]
        self.ours, self.theirs = keys if server else reversed(keys)

    def seal(self, data: bytes, *, size: int = PLAIN) -> bytes:
        """Bytes as records of at most `size`."""
        return b"".join(self.ours.seal(DATA, data[at : at + size]) for at in range(0, len(data), size))

    def ask(self) -> bytes:
        """A change of our keys, and a wish for the other side's."""
        sealed = self.ours.seal(HANDSHAKE, ASK_FOR_KEYS)
        self.ours.renew()
        return sealed

    def alert(self, what: bytes = CLOSE) -> bytes:
        return self.ours.seal(ALERT, what)

    def take(self) -> tuple[int, bytes]:
        """The next record's kind and bytes; changes of keys are followed."""
        kind, data = self.theirs.open(*self._record())
        if kind == HANDSHAKE and data in (ASK_FOR_KEYS, GIVE_KEYS):
            self.theirs.renew()
        return kind, data

    def close(self) -> None:
        self.sock.close()

    def _record(self) -> tuple[bytes, bytes]:
        while len(self._received) < HEADER or len(self._received) < HEADER + self._size():
            more = self.sock.recv(1 << 16)
            if not more:
                raise EOFError
            self._received += more
        end = HEADER + self._size()
        record, self._received = self._received[:end], self._received[end:]
        return record[:HEADER], record[HEADER:]

    def _size(self) -> int:
        return int.from_bytes(self._received[3:5])

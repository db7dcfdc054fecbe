"""Many byte-level subscribers at little cost: bare sockets that ask, take a while, and then do nothing."""

import select
import socket
import struct

import h2.connection
import h2.settings

from relay import feeds

from . import events
from .closing import Closing
from .h2_client import GRPC_HEADERS, connect

WAIT = 30.0
HEADERS, SETTINGS = 1, 4


def request(feed: int, window: int) -> bytes:
    """All that a client must send to subscribe: preface, SETTINGS with the window of its streams, and the request."""
    made = h2.connection.H2Connection()
    made.local_settings = h2.settings.Settings(
        client=True, initial_values={h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window}
    )
    made.initiate_connection()
    if window > 65_535:
        made.increment_flow_control_window(window - 65_535)
    target = [(":method", "POST"), (":scheme", "http"), (":path", feeds.METHODS[feed]), (":authority", "relay")]
    made.send_headers(1, [*target, *GRPC_HEADERS])
    made.send_data(1, events.frame(events.request()), end_stream=True)
    return made.data_to_send()


class Crowd(Closing):
    """Subscribers that get their response headers, and read no further until told to.

    Args:
        port: the relay's.
        count: how many.
        feed: which they watch.
        window: flow-control window of each stream and connection.
        receive_buffer: of their sockets in the kernel.
    """

    def __init__(self, port: int, count: int, feed: int, *, window: int = 65_535, receive_buffer: int = 4096) -> None:
        asked = request(feed, window)
        self.sockets: list[socket.socket] = []
        for _ in range(count):
            sock = connect(port, receive_buffer)
            sock.sendall(asked)
            self.sockets.append(sock)
        for sock in self.sockets:
            self._wait_headers(sock)

    def wait_stalled(self) -> None:
        """Wait until each of them has something that it does not read."""
        for sock in self.sockets:
            waiting = select.poll()
            waiting.register(sock, select.POLLIN)
            assert waiting.poll(WAIT * 1000), "nothing came"

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()

    @staticmethod
    def _wait_headers(sock: socket.socket) -> None:
        """Read frame by frame up to the HEADERS, and not a byte more."""
        while True:
            header = _exactly(sock, 9)
            length, kind = struct.unpack(">I", b"\0" + header[:3])[0], header[3]
            _exactly(sock, length)
            if kind == HEADERS:
                return


def _exactly(sock: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = sock.recv(size - len(data))
        assert piece, "the relay closed the connection"
        data += piece
    return bytes(data)

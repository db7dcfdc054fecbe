"""`relay observe`: print the events of a feed, one line each, from a relay or a node."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TextIO

import grpc

from relay import feeds
from relay.backoff import Backoff
from relay.flags import parse_bool
from relay.kubearmor_pb2 import Alert, Log, Message, RequestMessage
from relay.render import as_json, as_line
from relay.settings import (
    DEFAULT_PORT,
    Address,
    file_setting,
    parse_address,
    parse_choice,
    parse_integer,
    parse_word,
    setting,
)

CLASSES: tuple[Any, ...] = (Message, Alert, Log)  # by feed
LOST_TRAILER = "relay-lost"

# A server that answers so will answer so again.
FINAL = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
    }
)


DEFAULT_SERVER = Address("localhost", DEFAULT_PORT)


@dataclass(frozen=True, slots=True)
class ObserveSettings:
    """What an observer is told."""

    feed: str = setting(
        parse_choice("logs", "alerts", "messages"),
        flag="",
        default="logs",
        doc="Feed to print: logs, alerts or messages.",
    )
    server: Address = setting(
        parse_address,
        flag="server",
        value="HOST:PORT",
        default=DEFAULT_SERVER,
        doc="Relay or node to ask.",
    )
    filter: str = setting(
        parse_word,
        flag="filter",
        value="TEXT",
        default="",
        default_text="",
        doc="Filter to ask for; empty for all events.",
    )
    json: bool = setting(parse_bool, flag="json", default=False, doc="Print JSON objects instead of lines for people.")
    limit: int = setting(
        parse_integer(0, 2**63 - 1),
        flag="limit",
        value="NUMBER",
        default=0,
        default_text="0, no limit",
        doc="End after this many events.",
    )
    tls_ca: str = file_setting("tls-ca", "CA that signed the server's certificate, PEM; with it TLS is spoken.")
    tls_cert: str = file_setting("tls-cert", "Certificate to show the server, PEM.")
    tls_key: str = file_setting("tls-key", "Key of -tls-cert, PEM.")


class Ended(Exception):
    """The user wants no more."""


def observe(settings: ObserveSettings) -> int:
    """Print events until the limit, Ctrl-C or SIGTERM; returns the exit code.

    Raises:
        SettingsError: a certificate or key that cannot be used.
    """
    observer = Observer(settings, sys.stdout)
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, _end)
    try:
        return observer.run()
    except Ended:
        return 0
    finally:
        observer.say_what_was_seen()


def _end(_number: int, _frame: object) -> None:
    raise Ended


class Observer:
    """One feed of one server, through as many connections as it takes."""

    def __init__(self, settings: ObserveSettings, output: TextIO, pause: Callable[[float], None] = time.sleep) -> None:
        self._settings = settings
        self._credentials = _credentials(settings)
        self._output = output
        self._pause = pause
        self._colours = output.isatty()
        self._seen = 0
        self._lost = 0

    def run(self) -> int:
        """Print until the limit (0) or an answer that will not change (1)."""
        backoff = Backoff()
        while True:
            began = time.monotonic()
            try:
                self._stream()
            except grpc.RpcError as error:
                reason = f"{error.code().name}: {error.details()}"
                self._lost += _lost(error)
                if error.code() in FINAL:
                    self._say(reason)
                    return 1
            else:
                reason = "the server ended the stream"
            if self._is_enough():
                return 0
            backoff.was_healthy(time.monotonic() - began)
            delay = backoff.delay()
            self._say(f"{reason}; trying again in {delay:.1f} s")
            self._pause(delay)

    def say_what_was_seen(self) -> None:
        """The last line: how many events there were."""
        lost = f", {self._lost} lost because they were read too slowly" if self._lost else ""
        self._say(f"{self._seen} {self._settings.feed} seen{lost}")

    def _stream(self) -> None:
        """Print the events of one stream.

        Raises:
            grpc.RpcError: it ended with an error.
        """
        feed = feeds.BY_NAME[self._settings.feed]
        render = as_json if self._settings.json else lambda event: as_line(event, colours=self._colours)
        with self._channel() as channel:
            watch = channel.unary_stream(
                feeds.METHODS[feed],
                request_serializer=RequestMessage.SerializeToString,
                response_deserializer=CLASSES[feed].FromString,
            )
            call = watch(RequestMessage(Filter=self._settings.filter))
            for event in call:
                print(render(event), file=self._output, flush=True)
                self._seen += 1
                if self._is_enough():
                    call.cancel()
                    return

    def _channel(self) -> grpc.Channel:
        server = str(self._settings.server)
        if self._credentials is None:
            return grpc.insecure_channel(server)
        return grpc.secure_channel(server, self._credentials)

    def _is_enough(self) -> bool:
        return 0 < self._settings.limit <= self._seen

    def _say(self, text: str) -> None:
        print(f"relay observe: {text}", file=sys.stderr, flush=True)


def _credentials(settings: ObserveSettings) -> grpc.ChannelCredentials | None:
    """What TLS is spoken with; None without."""
    if not (settings.tls_ca or settings.tls_cert or settings.tls_key):
        return None
    from relay.tls_flags import load_flag_files  # loads OpenSSL

    files = load_flag_files(server=False, root=settings.tls_ca, certificate=settings.tls_cert, key=settings.tls_key)
    return files and grpc.ssl_channel_credentials(files.root, files.key or None, files.certificate or None)


def _lost(error: Any) -> int:
    """The number of lost events that the relay tells at the end of a stream."""
    for key, value in error.trailing_metadata() or ():
        if key == LOST_TRAILER and str(value).isdigit():
            return int(value)
    return 0

"""Elasticsearch and OpenSearch: documents through the bulk API, which both have in common.

Each document has an id of its own (boot id, feed, sequence number), so one that is sent twice is still one.
Whether the server refuses a document for good, or only now, is told by its status (see `_is_for_good`).
"""

from __future__ import annotations

import asyncio
import base64
import socket
import ssl
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote

import aiohttp
import msgspec
from aiohttp.abc import AbstractResolver, ResolveResult

from relay import feeds
from relay.printable import printable
from relay.resolve import Resolver
from relay.sinks.protocol import Batch, Rejected, Unavailable, Written

CONNECT_SECONDS = 10.0
KEEP_ALIVE_SECONDS = 30.0  # load balancers drop an idle connection after a minute, some without a word
# The most bytes of an answer: more than a page of a proxy, or errors about all documents that quote each of them.
ANSWER_BYTES, ANSWER_BYTES_AN_EVENT, ANSWER_BYTES_A_BYTE = 1 << 20, 1 << 10, 4
DETAIL_CHARACTERS = 300
MAX_RETRY_AFTER = 60.0
# Measured on logs (benchmarks/test_micro_bulk.py), beside 2 us an event for all else: level 1 takes 6 us and leaves a
# quarter of the bytes, level 6 takes 14 us and leaves a fifth.
GZIP_LEVEL = 1
# All that is looked at: an answer is a fraction of its usual size.
ANSWER_FIELDS = "items.*.status,items.*.error.type,items.*.error.reason,items.*.error.caused_by"


@dataclass(frozen=True, slots=True)
class Target:
    """Where documents go, and how. Times are seconds."""

    name: str  # "elasticsearch" or "opensearch"
    url: str  # scheme, host, port and path; no credentials
    index: str  # may hold a date pattern of strftime
    username: str = ""
    password: str = field(default="", repr=False)
    ca_cert_path: str = ""
    insecure: bool = False
    gzip: bool = True
    template: bool = False
    timeout: float = 60.0
    in_flight: int = 2


class _Error(msgspec.Struct):
    type: str | None = ""
    reason: str | None = ""
    caused_by: dict[str, Any] | None = None


class _Item(msgspec.Struct):
    status: int
    error: _Error | str | None = None

    @property
    def was_taken(self) -> bool:
        """Whether the document is in the index."""
        return 200 <= self.status < 300


class _Answer(msgspec.Struct):
    items: list[dict[str, _Item]]


_answers = msgspec.json.Decoder(_Answer)


class BulkSink:
    """The documents of one relay on their way to one server."""

    def __init__(self, target: Target, boot_id: str) -> None:
        self.name = target.name
        self.in_flight = target.in_flight
        self._target = target
        self._boot_id = boot_id
        self._session: aiohttp.ClientSession | None = None
        self._tls: ssl.SSLContext | None = None
        self._has_template = not target.template

    def action(self, feed: int) -> str | None:
        """Ids are `<boot id>-<feed>-<sequence>`."""
        return f"{self._boot_id}-{feeds.NAMES[feed]}-"

    async def open(self) -> None:
        """Have the index template, if one is wanted: no document may make its index without."""
        if not self._has_template:
            path = f"/_index_template/{quote(template_name(self._target.index), safe='')}"
            body = msgspec.json.encode(make_template(self._target.index))
            status, answer, headers = await self._call("PUT", path, body, "application/json", ANSWER_BYTES)
            if status != 200:
                refusal = _refusal(status, answer, headers)
                raise Unavailable(f"index template: {refusal.reason}", refusal.detail, refusal.retry_after)
            self._has_template = True

    async def write(self, batch: Batch) -> Written:
        """One request; where the server says that it is too large, its halves."""
        index = batch.read_at.strftime(self._target.index)
        path = f"/{quote(index, safe='')}/_bulk?filter_path={ANSWER_FIELDS}"
        most = ANSWER_BYTES + ANSWER_BYTES_AN_EVENT * batch.events + ANSWER_BYTES_A_BYTE * len(batch.lines)
        status, answer, headers = await self._call("POST", path, batch.lines, "application/x-ndjson", most)
        if status == 200:
            return settle(batch, answer)
        if status == 413:
            return await self._write_halves(batch)
        raise _refusal(status, answer, headers)

    async def acknowledge(self, feed: int, sequence: int) -> None:
        """Nothing to do: the server has answered for each document."""

    async def close(self) -> None:
        """Close the connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _write_halves(self, batch: Batch) -> Written:
        if batch.events == 1:
            return Written(0, (Rejected("request too large", 1, f"{len(batch.lines)} bytes in one document"),))
        documents = _documents(batch)
        half = len(documents) // 2
        first = await self.write(_some(batch, documents[:half]))
        try:
            second = await self.write(_some(batch, documents[half:]))
        except Unavailable as error:
            # What became of the first half must not be forgotten.
            second = Written(0, again=_some(batch, documents[half:]), why=error)
        rest = [written.again for written in (first, second) if written.again is not None]
        again = _some(batch, [document for part in rest for document in _documents(part)]) if rest else None
        return Written(first.taken + second.taken, (*first.rejected, *second.rejected), again, first.why or second.why)

    # --- HTTP -----------------------------------------------------------------------------

    async def _call(
        self, method: str, path: str, body: bytes, kind: str, most: int
    ) -> tuple[int, bytes, Mapping[str, str]]:
        """One request: status, body (of at most so many bytes) and headers of the answer.

        Raises:
            Unavailable: there is none.
        """
        headers = {"Content-Type": kind}
        if self._target.gzip:
            # A megabyte takes several milliseconds, in which the loop has other things to do.
            body = await asyncio.to_thread(_compress, body)
            headers["Content-Encoding"] = "gzip"
        url = self._target.url + path
        try:
            session, tls = self._connected(), self._verified()
            # A redirect would be followed with GET, and without the documents.
            async with session.request(
                method, url, data=body, headers=headers, ssl=tls, allow_redirects=False
            ) as response:
                return response.status, await _read(response, most), response.headers
        except (aiohttp.ClientSSLError, ssl.SSLError) as error:
            self._tls = None  # the file of the CA may have been replaced meanwhile
            raise Unavailable("TLS", _describe(error)) from None
        except aiohttp.ClientConnectorError as error:
            raise Unavailable("no connection", _describe(error.os_error)) from None  # its own text speaks of TLS
        except TimeoutError:
            raise Unavailable("no answer in time") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Unavailable("the connection broke", _describe(error)) from None

    def _verified(self) -> ssl.SSLContext | bool:
        """What aiohttp verifies the server with, if it speaks TLS."""
        target = self._target
        if self._tls is None and target.url.startswith("https:"):
            try:
                self._tls = tls_context(target.ca_cert_path, insecure=target.insecure)
            except OSError as error:
                raise Unavailable("the CA's file", f"{target.ca_cert_path}: {_describe(error)}") from None
        return self._tls or True

    def _connected(self) -> aiohttp.ClientSession:
        if self._session is None:
            target = self._target
            connector = aiohttp.TCPConnector(
                limit=target.in_flight, keepalive_timeout=KEEP_ALIVE_SECONDS, resolver=_Names()
            )
            # The environment's proxies and netrc stay out of it, as with the Go relay.
            self._session = aiohttp.ClientSession(
                connector=connector,
                timeout=aiohttp.ClientTimeout(total=target.timeout, sock_connect=CONNECT_SECONDS),
                headers={"Accept": "application/json"} | _authorization(target),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
            )
        return self._session


class _Names(AbstractResolver):
    """Names through the relay's resolver: the end of the process does not wait for its threads."""

    def __init__(self) -> None:
        self._resolver = Resolver(asyncio.get_running_loop())

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_UNSPEC,  # noqa: ARG002 - no family is preferred
    ) -> list[ResolveResult]:
        found: asyncio.Future[tuple[tuple[str, ...], str]] = asyncio.get_running_loop().create_future()

        def done(addresses: tuple[str, ...], error: str) -> None:
            if not found.done():  # else nobody waits any more
                found.set_result((addresses, error))

        self._resolver.resolve(host, port, done)
        addresses, error = await found
        if error:
            raise OSError(error)
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in addresses
        ]

    async def close(self) -> None:
        """Its threads go with the process."""


def tls_context(ca_cert_path: str, *, insecure: bool) -> ssl.SSLContext:
    """What servers are verified with: a CA file, the system's CAs without one, or nothing at all.

    Raises:
        OSError: the file cannot be read, or holds no certificate (ssl.SSLError).
    """
    context = ssl.create_default_context(cafile=ca_cert_path or None) if not insecure else ssl.create_default_context()
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _authorization(target: Target) -> dict[str, str]:
    """The header of basic authentication (RFC 7617), where there are credentials."""
    if not target.username:
        return {}
    # Bytes of the environment that are not UTF-8 stay what they are.
    pair = f"{target.username}:{target.password}".encode(errors="surrogateescape")
    return {"Authorization": "Basic " + base64.b64encode(pair).decode()}


def _compress(body: bytes) -> bytes:
    return zlib.compress(body, GZIP_LEVEL, wbits=31)  # 31: with gzip's header


async def _read(response: aiohttp.ClientResponse, most: int) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > most:
            raise aiohttp.ClientPayloadError(f"an answer of more than {most} bytes")
    return bytes(body)


def _describe(error: Exception) -> str:
    return printable(str(error) or type(error).__name__)[:DETAIL_CHARACTERS]


# --- answers --------------------------------------------------------------------------


def settle(batch: Batch, answer: bytes) -> Written:
    """What a bulk request's answer says about each document.

    Raises:
        Unavailable: it does not say it.
    """
    try:
        parsed = _answers.decode(answer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Unavailable("an answer that is not the bulk API's", _excerpt(answer)) from None
    # Whatever `errors` says, each document must be spoken of.
    if len(parsed.items) != batch.events or not all(parsed.items):
        detail = f"an answer about {len(parsed.items)} of {batch.events} documents"
        raise Unavailable("an answer that is not the bulk API's", detail)
    items = [next(iter(result.values())) for result in parsed.items]
    if all(item.was_taken for item in items):
        return Written(batch.events)
    again: list[bytes] = []
    why: Unavailable | None = None
    rejected: dict[str, Rejected] = {}
    for document, item in zip(_documents(batch), items, strict=True):
        if item.was_taken:
            continue
        error = item.error if isinstance(item.error, _Error) else _Error(type=item.error)
        name = printable(f"{item.status} {error.type or ''}".rstrip())[:DETAIL_CHARACTERS]
        if not _is_for_good(item.status, error):
            again.append(document)
            why = why or Unavailable(name, _tell(error))
        elif known := rejected.get(name):
            rejected[name] = known._replace(events=known.events + 1)
        else:
            rejected[name] = Rejected(name, 1, _tell(error))
    refused = sum(each.events for each in rejected.values())
    taken = batch.events - len(again) - refused
    return Written(taken, tuple(rejected.values()), _some(batch, again) if again else None, why)


# With status 400, and yet about the index or the cluster: an operator can put them right.
_NOT_ABOUT_THE_DOCUMENT = {
    "index_closed_exception",
    "invalid_index_name_exception",
    "validation_exception",  # the cluster's limit on shards
}


def _is_for_good(status: int, error: _Error) -> bool:
    """Whether the same document would be refused again, whatever an operator or time did to the server.

    400 is about the document (its mapping, mostly). 429 and 5xx pass. 403 is a block: an index that is read-only
    because its disk was full; 401 and 404 are rights and indices that can be given.
    """
    return status in (400, 409, 413) and error.type not in _NOT_ABOUT_THE_DOCUMENT


def _tell(error: _Error) -> str:
    cause = (error.caused_by or {}).get("reason")
    text = (error.reason or "") + (f" ({cause})" if cause else "")
    return printable(text)[:DETAIL_CHARACTERS]


_HINTS = {401: "wrong user name or password", 403: "no right to do this", 404: "nothing there: is the URL right?"}


def _refusal(status: int, answer: bytes, headers: Mapping[str, str]) -> Unavailable:
    """Why a request was refused."""
    reason = f"HTTP status {status}"
    if status in _HINTS:
        reason += f", {_HINTS[status]}"
    detail = _excerpt(answer)
    if 300 <= status < 400:
        reason += ", redirects are not followed: is the URL right?"
        detail = printable(f"to {headers.get('Location', 'nowhere')}")[:DETAIL_CHARACTERS]
    return Unavailable(reason, detail, _retry_after(headers))


def _excerpt(answer: bytes) -> str:
    try:
        error = msgspec.json.decode(answer)["error"]
        said = f"{error['type']}: {error['reason']}" if isinstance(error, dict) else str(error)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError, TypeError, IndexError):
        said = answer[:DETAIL_CHARACTERS].decode(errors="replace")
    return printable(said)[:DETAIL_CHARACTERS]


def _retry_after(headers: Mapping[str, str]) -> float:
    """Seconds from a Retry-After header, which has them or a date (RFC 9110, section 10.2.3); 0 without one."""
    text = headers.get("Retry-After", "")
    if text.isascii() and text.isdigit():
        seconds = float(text)
    else:
        try:
            when = parsedate_to_datetime(text)
        except (ValueError, OverflowError):
            return 0.0
        seconds = (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return min(max(seconds, 0.0), MAX_RETRY_AFTER)


def _documents(batch: Batch) -> list[bytes]:
    """Each document with its action line before it, without the last line end."""
    lines = batch.lines.split(b"\n")
    return [lines[at] + b"\n" + lines[at + 1] for at in range(0, 2 * batch.events, 2)]


def _some(batch: Batch, documents: Sequence[bytes]) -> Batch:
    return replace(batch, lines=b"\n".join(documents) + b"\n", events=len(documents))


# --- the index template ---------------------------------------------------------------


def index_pattern(index: str) -> str:
    """The wildcard that covers all indices of a date pattern; a name without one is itself."""
    first, last = index.find("%"), index.rfind("%")
    return index if first < 0 else index[:first] + "*" + index[last + 2 :]


def template_name(index: str) -> str:
    """How the template of an index is called."""
    return "relay-" + index_pattern(index).replace("*", "").strip("-_.")


def make_template(index: str) -> dict[str, Any]:
    """A composable index template: strings for exact search, times as times, numbers as numbers."""
    numbers = ("HostPPID", "HostPID", "PPID", "PID", "UID", "MaxAlertsPerSec", "DroppingAlertsInterval")
    texts = {"type": "text", "fields": {"keyword": {"type": "keyword", "ignore_above": 1024}}}
    return {
        "index_patterns": [index_pattern(index)],
        "priority": 200,
        "template": {
            "mappings": {
                "dynamic_templates": [
                    {
                        "strings": {
                            "match_mapping_type": "string",
                            # Keyword fields for dashboards, and no field is too long for the index.
                            "mapping": {"type": "keyword", "ignore_above": 8191},
                        }
                    }
                ],
                "properties": {
                    # An odd date is no reason to refuse an event.
                    "Timestamp": {"type": "date", "format": "epoch_second", "ignore_malformed": True},
                    "UpdatedTime": {"type": "date", "ignore_malformed": True},
                    "Message": texts,
                    "Resource": texts,
                    "Data": texts,
                    **{name: {"type": "long"} for name in numbers},
                },
            }
        },
    }

"""Elasticsearch and OpenSearch: documents through the bulk API, which both have in common.

Each document has an id of its own (boot id, feed, sequence number), so one that is sent twice is still one.
Whether the server refuses a document for good, or only now, is told by its status (see `_is_for_good`).
"""

from __future__ import annotations

import asyncio
import base64
import ssl
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote

import aiohttp
import msgspec

from relay import feeds
from relay.printable import printable
from relay.sinks.protocol import Batch, Rejected, Unavailable, Written

CONNECT_SECONDS = 10.0
KEEP_ALIVE_SECONDS = 60.0
ANSWER_BYTES = 64 << 20  # far more than the answer to the largest batch
REASON_CHARACTERS = 300
EXAMPLE_CHARACTERS = 300
MAX_RETRY_AFTER = 60.0
GZIP_LEVEL = 1  # the fastest; JSON of events shrinks to about a tenth with it
# All that is looked at: an answer is a fraction of its usual size.
ANSWER_FIELDS = "errors,items.*.status,items.*.error.type,items.*.error.reason,items.*.error.caused_by"


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
    type: str = ""
    reason: str | None = ""
    caused_by: dict[str, Any] | None = None


class _Item(msgspec.Struct):
    status: int
    error: _Error | str | None = None


class _Answer(msgspec.Struct):
    errors: bool
    items: list[dict[str, _Item]] = []


_answers = msgspec.json.Decoder(_Answer)


class BulkSink:
    """The documents of one relay on their way to one server."""

    def __init__(self, target: Target, boot_id: str) -> None:
        self.name = target.name
        self.in_flight = target.in_flight
        self._target = target
        self._boot_id = boot_id
        self._session: aiohttp.ClientSession | None = None
        self._has_template = not target.template

    def action(self, feed: int) -> str | None:
        """Ids are `<boot id>-<feed>-<sequence>`."""
        return f"{self._boot_id}-{feeds.NAMES[feed]}-"

    async def open(self) -> None:
        """Have the index template, if one is wanted: no document may make its index without."""
        if not self._has_template:
            path = f"/_index_template/{quote(template_name(self._target.index), safe='')}"
            body = msgspec.json.encode(make_template(self._target.index))
            status, answer, headers = await self._call("PUT", path, body, "application/json")
            if status != 200:
                raise Unavailable(f"the index template: {_refusal(status, answer)}", _retry_after(headers))
            self._has_template = True

    async def write(self, batch: Batch) -> Written:
        """One request; where the server says that it is too large, its halves."""
        index = batch.read_at.strftime(self._target.index)
        path = f"/{quote(index, safe='')}/_bulk?filter_path={ANSWER_FIELDS}"
        status, answer, headers = await self._call("POST", path, batch.lines, "application/x-ndjson")
        if status == 200:
            return settle(batch, answer)
        if status == 413:
            return await self._write_halves(batch)
        raise Unavailable(_refusal(status, answer), _retry_after(headers))

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
            second = Written(0, again=_some(batch, documents[half:]), reason=error.reason)
        rest = [written.again for written in (first, second) if written.again is not None]
        again = _some(batch, [document for part in rest for document in _documents(part)]) if rest else None
        return Written(
            first.taken + second.taken, (*first.rejected, *second.rejected), again, first.reason or second.reason
        )

    # --- HTTP -----------------------------------------------------------------------------

    async def _call(self, method: str, path: str, body: bytes, kind: str) -> tuple[int, bytes, Any]:
        """One request: status, body and headers of the answer.

        Raises:
            Unavailable: there is none.
        """
        headers = {"Content-Type": kind}
        if self._target.gzip:
            # A megabyte takes several milliseconds, in which the loop has other things to do.
            body = await asyncio.to_thread(_compress, body)
            headers["Content-Encoding"] = "gzip"
        try:
            session = self._connected()
            async with session.request(method, self._target.url + path, data=body, headers=headers) as response:
                return response.status, await _read(response), response.headers
        except (aiohttp.ClientSSLError, ssl.SSLError) as error:
            # The file of the CA may have been replaced meanwhile.
            await self.close()
            raise Unavailable(f"TLS: {_describe(error)}") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Unavailable(_describe(error)) from None

    def _connected(self) -> aiohttp.ClientSession:
        if self._session is None:
            target = self._target
            connector = aiohttp.TCPConnector(
                ssl=tls_context(target.ca_cert_path, insecure=target.insecure),
                limit=target.in_flight,
                keepalive_timeout=KEEP_ALIVE_SECONDS,
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
    pair = f"{target.username}:{target.password}".encode()
    return {"Authorization": "Basic " + base64.b64encode(pair).decode()}


def _compress(body: bytes) -> bytes:
    return zlib.compress(body, GZIP_LEVEL, wbits=31)  # 31: with gzip's header


async def _read(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > ANSWER_BYTES:
            raise aiohttp.ClientPayloadError(f"an answer of more than {ANSWER_BYTES} bytes")
    return bytes(body)


def _describe(error: Exception) -> str:
    if isinstance(error, TimeoutError) and not str(error):
        return "no answer in time"
    return printable(str(error) or type(error).__name__)[:REASON_CHARACTERS]


# --- answers --------------------------------------------------------------------------


def settle(batch: Batch, answer: bytes) -> Written:
    """What a bulk request's answer says about each document.

    Raises:
        Unavailable: it does not say it.
    """
    try:
        parsed = _answers.decode(answer)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Unavailable(f"an answer that is not the bulk API's: {_excerpt(answer)}") from None
    if not parsed.errors:
        return Written(batch.events)
    if len(parsed.items) != batch.events or not all(parsed.items):
        raise Unavailable(f"an answer about {len(parsed.items)} of {batch.events} documents")
    documents = _documents(batch)
    again: list[bytes] = []
    reason = ""
    rejected: dict[str, Rejected] = {}
    for document, result in zip(documents, parsed.items, strict=True):
        item = next(iter(result.values()))
        if item.status < 300:
            continue
        error = item.error if isinstance(item.error, _Error) else _Error(type=str(item.error or ""))
        if _is_for_good(item.status, error):
            name = f"{item.status} {error.type}"
            known = rejected.get(name)
            rejected[name] = Rejected(name, known.events + 1 if known else 1, known.example if known else _tell(error))
        else:
            again.append(document)
            reason = reason or _tell(error, f"{item.status} ")
    refused = sum(each.events for each in rejected.values())
    return Written(
        batch.events - len(again) - refused,
        tuple(rejected.values()),
        _some(batch, again) if again else None,
        reason,
    )


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


def _tell(error: _Error, before: str = "") -> str:
    cause = (error.caused_by or {}).get("reason")
    text = f"{before}{error.type}: {error.reason or ''}" + (f" ({cause})" if cause else "")
    return printable(text)[:EXAMPLE_CHARACTERS]


def _refusal(status: int, answer: bytes) -> str:
    """A refused request in a line."""
    hint = {401: "wrong user name or password", 403: "no right to do this", 404: "nothing there: is the URL right?"}
    said = _excerpt(answer)
    return f"HTTP status {status}" + (f", {hint[status]}" if status in hint else "") + (f": {said}" if said else "")


def _excerpt(answer: bytes) -> str:
    try:
        error = msgspec.json.decode(answer)["error"]
        said = f"{error['type']}: {error['reason']}" if isinstance(error, dict) else str(error)
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError, IndexError):
        said = answer[:EXAMPLE_CHARACTERS].decode(errors="replace")
    return printable(said)[:EXAMPLE_CHARACTERS]


def _retry_after(headers: Any) -> float:
    """Seconds from a Retry-After header; 0 without one in seconds."""
    text = headers.get("Retry-After", "")
    return min(float(text), MAX_RETRY_AFTER) if text.isascii() and text.isdigit() else 0.0


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

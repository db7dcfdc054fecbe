"""From settings to sinks: which there are, which feeds each reads, and when its batches are complete."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import NamedTuple

from relay import _fastpath, feeds
from relay.settings import MIB
from relay.sink_settings import ELASTICSEARCH, FILE, OPENSEARCH, Credentials, Secrets, SinkSettings
from relay.sinks.group import Running, Sinks
from relay.sinks.protocol import Sink
from relay.sinks.runner import Limits, Runner
from relay.sinks.stdout import Stdout

FILE_BATCH_BYTES = MIB
FILE_BATCH_EVENTS = 100_000


class Planned(NamedTuple):
    """A sink, the feeds that it reads, and its batches."""

    sink: Sink
    feeds: tuple[int, ...]
    limits: Limits


def make_sinks(settings: SinkSettings, credentials: Credentials, native: _fastpath.Engine) -> Sinks:
    """The sinks that the settings name, not started; call it in the loop that runs them.

    Args:
        settings: checked.
        credentials: of the search engines.
        native: whose journals they read, from the first event on.
    """
    # Sequence numbers begin at 0 in every process, and ids must not.
    boot_id = secrets.token_hex(8)
    members: list[Running] = [
        Runner(planned.sink, {feed: _fastpath.Cursor(native, feed) for feed in planned.feeds}, planned.limits)
        for planned in plan(settings, credentials, boot_id)
    ]
    if settings.stdout:
        members.append(Stdout(native, _numbers(settings.stdout)))
    return Sinks(members)


def plan(settings: SinkSettings, credentials: Credentials, boot_id: str) -> Iterator[Planned]:
    """What the settings ask for."""
    for name in settings.sink:
        if name == ELASTICSEARCH:
            sink, limits = _search(name, "es", settings, credentials.elasticsearch, boot_id)
            yield Planned(sink, (feeds.ALERTS,), limits)
        elif name == OPENSEARCH:
            sink, limits = _search(name, "os", settings, credentials.opensearch, boot_id)
            yield Planned(sink, (feeds.ALERTS, feeds.LOGS), limits)
        else:
            yield _file(settings, Path(name.removeprefix(FILE)))


def _search(name: str, prefix: str, settings: SinkSettings, secrets: Secrets, boot_id: str) -> tuple[Sink, Limits]:
    """The sink of a search engine whose settings begin with `prefix`."""
    from relay.sinks.bulk import BulkSink, Target  # an HTTP client: a run without does without its memory

    told = {option.name: getattr(settings, option.name) for option in fields(settings)}
    url, of_url = told[f"{prefix}_url"].parts()
    username, password = of_url if of_url.username else secrets
    target = Target(
        name=name,
        url=url,
        index=told[f"{prefix}_alerts_index"],
        username=username,
        password=password,
        ca_cert_path=told[f"{prefix}_ca_cert_path"],
        insecure=told[f"{prefix}_allow_insecure_tls"],
        gzip=told[f"{prefix}_gzip"],
        template=told[f"{prefix}_template"],
        timeout=told[f"{prefix}_timeout"],
        in_flight=told[f"{prefix}_in_flight"],
    )
    limits = Limits(*(told[f"{prefix}_batch_{what}"] for what in ("bytes", "events", "seconds")))
    return BulkSink(target, boot_id), limits


def _file(settings: SinkSettings, path: Path) -> Planned:
    from relay.sinks.file import Destination, FileSink

    destination = Destination(path, settings.file_rotate_bytes, settings.file_keep, settings.file_fsync)
    limits = Limits(FILE_BATCH_BYTES, FILE_BATCH_EVENTS, settings.file_batch_seconds)
    return Planned(FileSink(destination), _numbers(settings.file_feeds), limits)


def _numbers(names: tuple[str, ...]) -> tuple[int, ...]:
    return tuple(feeds.BY_NAME[name] for name in names)

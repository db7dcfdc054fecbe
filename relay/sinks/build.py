"""From settings to sinks: which there are, which feeds each reads, and when its batches are complete."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import NamedTuple

from relay import feeds
from relay.settings import MIB
from relay.sinks.protocol import Reader, Sink
from relay.sinks.runner import Limits, Runner
from relay.sinks.settings import ELASTICSEARCH, FILE, OPENSEARCH, Credentials, Secrets, SinkSettings

FILE_BATCH_BYTES = MIB
FILE_BATCH_EVENTS = 100_000


class Planned(NamedTuple):
    """A sink, the feeds that it reads, and its batches."""

    sink: Sink
    feeds: tuple[int, ...]
    limits: Limits


def make_runners(
    settings: SinkSettings, credentials: Credentials, make_reader: Callable[[int], Reader]
) -> list[Runner]:
    """A runner for each sink that the settings name, not started; call it in the loop that runs them.

    Args:
        settings: checked.
        credentials: of the search engines.
        make_reader: a cursor of a feed that begins at sequence 0.
    """
    # Sequence numbers begin at 0 in every process, and ids must not.
    boot_id = secrets.token_hex(8)
    return [
        Runner(planned.sink, {feed: make_reader(feed) for feed in planned.feeds}, planned.limits)
        for planned in plan(settings, credentials, boot_id)
    ]


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
    return Planned(FileSink(destination), tuple(map(feeds.BY_NAME.__getitem__, settings.file_feeds)), limits)

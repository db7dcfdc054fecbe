"""Events through an engine's journal and a sink into a real Elasticsearch and a real OpenSearch."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from peers import events
from peers.command import HOST, Relay
from peers.cutter import Cutter
from peers.engine import Engine
from peers.guard import USER, Front, Guarded, guarded, make_certificate, program
from peers.node import Node
from peers.search import ENGINES, Search, missing

from relay import _fastpath, feeds
from relay.backoff import Backoff
from relay.sinks.bulk import BulkSink, Target
from relay.sinks.runner import Limits, Runner

pytestmark = pytest.mark.system

WAIT = 240.0
INDEX = "test-alerts"
SOON = Limits(bytes=1_000_000, events=1_000_000, seconds=0.2)
MIB = 1 << 20


@pytest.fixture(scope="session", params=list(ENGINES))
def only_search(request: pytest.FixtureRequest) -> Iterator[Search]:
    if reason := missing(request.param):
        pytest.skip(reason)
    with Search(request.param) as search:
        yield search


@pytest.fixture
def search(only_search: Search) -> Search:
    only_search.start()
    only_search.clear()
    return only_search


class Sunk:
    """An engine whose alerts go to a search engine."""

    def __init__(self, engine: Engine, runner: Runner) -> None:
        self.engine = engine
        self.runner = runner
        self._published = 0

    @property
    def counters(self) -> dict[str, Any]:
        return self.runner.describe()

    def publish(self, *alerts: bytes) -> None:
        """Append alerts, and wait for nobody."""
        self._published += len(alerts)
        for start in range(0, len(alerts), 1000):
            while True:
                try:
                    self.engine.native.publish(feeds.ALERTS, b"".join(map(events.frame, alerts[start : start + 1000])))
                    break
                except BlockingIOError:
                    continue

    def publish_numbered(self, count: int) -> None:
        start = self._published
        self.publish(*(events.event(feeds.ALERTS, number, PPID=number) for number in range(start, start + count)))

    async def until(self, condition: Callable[[dict[str, Any]], bool]) -> None:
        """Wait until a condition holds, which is given the counters."""
        async with asyncio.timeout(WAIT):
            while not condition(self.counters):  # noqa: ASYNC110 - counters are polled, as an operator does
                await asyncio.sleep(0.02)

    async def settled(self) -> dict[str, Any]:
        """Wait until something has become of every alert; the reactor may not have seen them all yet."""
        await self.until(lambda now: now["sent"] + now["rejected"] + now["lost"] == self._published)
        assert self.counters["behind"] == 0
        return self.counters


def reasons(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Why the sink's events were not taken, as the log says it."""
    told = [record for record in caplog.records if record.getMessage() == "sink cannot take events, and is asked again"]
    return [record.relay_fields["reason"] for record in told]  # type: ignore[attr-defined]


@asynccontextmanager
async def sunk(
    search: Search, *, port: int = 0, limits: Limits = SOON, journal_bytes: int = 256 * MIB, **changes: Any
) -> AsyncIterator[Sunk]:
    url = f"http://127.0.0.1:{port or search.port}"
    target = replace(Target(name=search.name, url=url, index=INDEX), **changes)
    engine = Engine(listen=False, journal_bytes=journal_bytes)
    try:
        cursor = _fastpath.Cursor(engine.native, feeds.ALERTS)
        runner = Runner(
            BulkSink(target, "boot"), {feeds.ALERTS: cursor}, limits, backoff=lambda: Backoff(first=0.1, last=1.0)
        )
        failed: list[BaseException] = []
        runner.start(failed.append)
        try:
            yield Sunk(engine, runner)
        finally:
            await runner.stop(5.0)
        assert not failed
    finally:
        engine.close()


def test_100_000_events_are_100_000_documents(search: Search) -> None:
    async def run() -> None:
        async with sunk(search) as relay:
            relay.publish_numbered(100_000)
            counters = await relay.settled()
            assert (counters["sent"], counters["lost"], counters["rejected"]) == (100_000, 0, 0)

    asyncio.run(run())
    assert search.holds_each(INDEX, "PPID", 100_000)


def test_a_server_that_is_killed_and_comes_back_loses_and_doubles_nothing(search: Search) -> None:
    async def run() -> None:
        async with sunk(search) as relay:
            relay.publish_numbered(20_000)
            await relay.until(lambda counters: counters["sent"] > 0)
            await asyncio.to_thread(search.kill)
            relay.publish_numbered(20_000)
            await relay.until(lambda counters: counters["retried"] > 0)
            await asyncio.to_thread(search.start)
            counters = await relay.settled()
            assert (counters["sent"], counters["lost"], counters["rejected"]) == (40_000, 0, 0)

    asyncio.run(run())
    assert search.holds_each(INDEX, "PPID", 40_000)


def test_what_the_journal_does_not_hold_is_lost_and_counted_exactly(search: Search) -> None:
    """The server is off at the start, and for long."""
    search.kill()

    async def run() -> int:
        async with sunk(search, journal_bytes=26 * MIB) as relay:
            relay.publish_numbered(1000)
            await relay.until(lambda counters: counters["retried"] > 0)
            relay.publish(*(events.event(feeds.ALERTS, number, size=2000) for number in range(20_000)))
            # It is counted before anything is read again.
            await relay.until(lambda counters: counters["lost"] > 0)
            assert relay.counters["sent"] == 0
            await asyncio.to_thread(search.start)
            counters = await relay.settled()
            assert counters["sent"] + counters["lost"] == 21_000
            return int(counters["sent"])

    sent = asyncio.run(run())
    assert search.count(INDEX) == sent


def test_an_index_that_is_read_only_because_of_a_full_disk_is_waited_for(
    search: Search, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        search.call("PUT", f"/{INDEX}", {"settings": {"index.blocks.read_only_allow_delete": True}})
        async with sunk(search) as relay:
            relay.publish_numbered(100)
            await relay.until(lambda counters: counters["retried"] >= 200)
            assert (relay.counters["sent"], relay.counters["rejected"]) == (0, 0)
            path = f"/{INDEX}/_settings"
            await asyncio.to_thread(search.call, "PUT", path, {"index.blocks.read_only_allow_delete": None})
            assert (await relay.settled())["sent"] == 100

    with caplog.at_level(logging.INFO):
        asyncio.run(run())
    assert search.holds_each(INDEX, "PPID", 100)
    assert caplog.messages.count("sink cannot take events, and is asked again") == 1


@pytest.mark.parametrize(
    ("setting", "value", "reason"),
    [
        ("action.auto_create_index", "false", "404 index_not_found_exception"),
        ("cluster.max_shards_per_node", "1", "400 validation_exception"),
    ],
)
def test_an_index_that_cannot_be_made_is_waited_for(
    search: Search, setting: str, value: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        search.set_cluster(setting, value)
        async with sunk(search) as relay:
            relay.publish_numbered(100)
            await relay.until(lambda counters: counters["retried"] >= 200)
            assert (relay.counters["sent"], relay.counters["rejected"]) == (0, 0)
            await asyncio.to_thread(search.set_cluster, setting, None)
            assert (await relay.settled())["sent"] == 100

    with caplog.at_level(logging.INFO):
        asyncio.run(run())
    assert search.holds_each(INDEX, "PPID", 100)
    assert reasons(caplog) == [reason]


def test_a_closed_index_is_waited_for(search: Search, caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        search.call("PUT", f"/{INDEX}")
        search.call("POST", f"/{INDEX}/_close")
        async with sunk(search) as relay:
            relay.publish_numbered(100)
            await relay.until(lambda counters: counters["retried"] >= 200)
            assert (relay.counters["sent"], relay.counters["rejected"]) == (0, 0)
            await asyncio.to_thread(search.call, "POST", f"/{INDEX}/_open")
            assert (await relay.settled())["sent"] == 100

    with caplog.at_level(logging.INFO):
        asyncio.run(run())
    assert search.holds_each(INDEX, "PPID", 100)
    assert reasons(caplog)[:1] == ["400 index_closed_exception"]


def test_a_template_that_another_one_is_in_the_way_of_is_waited_for(
    search: Search, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        search.call("PUT", "/_index_template/test-other", {"index_patterns": ["test-*"], "priority": 200})
        async with sunk(search, index="test-%Y-alerts", template=True) as relay:
            relay.publish_numbered(10)
            await relay.until(lambda _: bool(reasons(caplog)))
            assert relay.counters["read"] == 0
            await asyncio.to_thread(search.call, "DELETE", "/_index_template/test-other")
            assert (await relay.settled())["sent"] == 10

    with caplog.at_level(logging.INFO):
        asyncio.run(run())
    assert reasons(caplog) == ["index template: HTTP status 400"]


def test_a_wrong_ca_and_a_wrong_password_are_put_right(
    search: Search, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if search.name == "opensearch" and not program():
        pytest.skip("no OpenSearch with a password: nginx, which stands before it, is not installed")
    tmp_path.chmod(0o755)

    async def run(server: Guarded) -> None:
        url, ca = f"https://{HOST}:{server.port}", tmp_path / "ca.crt"
        ca.write_bytes(make_certificate(tmp_path, "wrong").read_bytes())
        async with sunk(search, url=url, ca_cert_path=str(ca), username=USER, password="hunter2") as relay:
            relay.publish_numbered(100)
            await relay.until(lambda counters: counters["retried"] >= 200)
            assert set(reasons(caplog)) == {"TLS"}
            ca.write_bytes(server.certificate.read_bytes())
            await relay.until(lambda _: len(set(reasons(caplog))) == 2)
            assert relay.counters["sent"] == 0
            server.set_password("hunter2")
            assert (await relay.settled())["sent"] == 100

    with caplog.at_level(logging.DEBUG), guarded(search, tmp_path, "another") as server:
        asyncio.run(run(server))
        assert server.search.holds_each(INDEX, "PPID", 100)
    assert reasons(caplog) == ["TLS", "HTTP status 401, wrong user name or password"]
    assert "hunter2" not in caplog.text


def test_a_proxy_that_limits_requests_gets_parts(search: Search) -> None:
    if not program():
        pytest.skip("nginx is not installed")

    async def run(port: int) -> None:
        async with sunk(search, port=port, gzip=False) as relay:
            relay.publish_numbered(2000)
            counters = await relay.settled()
            assert (counters["sent"], counters["rejected"]) == (2000, 0)

    with Front(search.port, largest="64k") as front:
        asyncio.run(run(front.port))
    assert search.holds_each(INDEX, "PPID", 2000)


def test_a_relay_as_a_user_starts_it(search: Search) -> None:
    """Variables of the Go relay, a node, and a search engine that is there some time later."""
    engines = {
        "elasticsearch": ({"ENABLE_DASHBOARDS": "true"}, "ES", (feeds.ALERTS,)),
        "opensearch": ({"ENABLE_OPENSEARCH_DASHBOARD": "true"}, "OS", (feeds.ALERTS, feeds.LOGS)),
    }
    switch, prefix, wanted = engines[search.name]
    variables = {
        **switch,
        f"{prefix}_URL": search.url,
        f"{prefix}_ALERTS_INDEX": "test-%Y.%m.%d-kubearmor",
        f"RELAY_{prefix}_TEMPLATE": "true",
        f"RELAY_{prefix}_BATCH_SECONDS": "0.5",
    }
    search.kill()
    with Node() as node, Relay(nodes=(node.port,), **variables) as relay:
        for feed in feeds.FEEDS:
            node.wait_open(feed)
            node.send(feed, *(events.event(feed, number, ClusterName=feeds.NAMES[feed]) for number in range(1000)))
        relay.line("sink cannot take events, and is asked again")
        search.start()
        relay.line("sink takes events again")
        deadline = time.monotonic() + WAIT
        while (counted := relay.counters()["sinks"][0])["sent"] < 1000 * len(wanted):
            assert time.monotonic() < deadline, counted
            time.sleep(0.05)
        assert counted["sink"] == search.name
        assert counted["feeds"] == [feeds.NAMES[feed] for feed in wanted]
        assert (counted["rejected"], counted["lost"], counted["behind"]) == (0, 0, 0)
        assert relay.end() == 0
    assert search.count("test-*-kubearmor") == 1000 * len(wanted)
    query = {"size": 0, "aggs": {"names": {"terms": {"field": "ClusterName"}}}}
    found = search.call("POST", "/test-*-kubearmor/_search", query)["aggregations"]["names"]["buckets"]
    assert {each["key"]: each["doc_count"] for each in found} == {feeds.NAMES[feed]: 1000 for feed in wanted}


def test_documents_that_do_not_fit_the_mapping_are_skipped(search: Search, caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        search.call("PUT", f"/{INDEX}", {"mappings": {"properties": {"PolicyName": {"type": "long"}}}})
        async with sunk(search) as relay:
            for number in range(100):
                name = "word" if number % 10 == 0 else "7"
                relay.publish(events.event(feeds.ALERTS, number, PolicyName=name))
            counters = await relay.settled()
            assert (counters["sent"], counters["rejected"]) == (90, 10)

    with caplog.at_level(logging.INFO):
        asyncio.run(run())
    assert search.count(INDEX) == 90
    assert caplog.messages.count("sink skips events that its destination refuses") == 1


def test_answers_that_are_cut_off_double_nothing(search: Search) -> None:
    async def run() -> None:
        async with Cutter(search.port) as cutter:
            cutter.cut_answers = 5
            async with sunk(search, port=cutter.port, limits=SOON._replace(events=500)) as relay:
                relay.publish_numbered(5_000)
                counters = await relay.settled()
                assert counters["sent"] == 5_000
                assert counters["retried"] >= 500

    asyncio.run(run())
    assert search.holds_each(INDEX, "PPID", 5_000)


def test_requests_that_are_cut_off_come_again(search: Search) -> None:
    async def run() -> None:
        async with Cutter(search.port) as cutter:
            cutter.cut_after = 20_000
            async with sunk(search, port=cutter.port, gzip=False) as relay:
                relay.publish_numbered(5_000)
                await relay.until(lambda counters: counters["retried"] > 0)
                cutter.cut_after = 0
                assert (await relay.settled())["sent"] == 5_000

    asyncio.run(run())
    assert search.holds_each(INDEX, "PPID", 5_000)


@pytest.mark.slow
def test_answers_that_come_after_30_seconds(search: Search) -> None:
    async def run() -> None:
        async with Cutter(search.port) as cutter:
            cutter.delay = 30.0
            async with sunk(search, port=cutter.port) as relay:
                relay.publish_numbered(100)
                counters = await relay.settled()
                assert (counters["sent"], counters["retried"]) == (100, 0)

    asyncio.run(run())
    assert search.holds_each(INDEX, "PPID", 100)


def test_answers_that_come_after_the_time_limit_double_nothing(search: Search) -> None:
    async def run() -> None:
        async with Cutter(search.port) as cutter:
            cutter.delay = 3.0
            async with sunk(search, port=cutter.port, timeout=0.5) as relay:
                relay.publish_numbered(100)
                await relay.until(lambda counters: counters["retried"] > 0)
                cutter.delay = 0.0
                assert (await relay.settled())["sent"] == 100

    asyncio.run(run())
    assert search.holds_each(INDEX, "PPID", 100)


def test_a_date_in_the_index_and_a_template_for_it(search: Search) -> None:
    async def run() -> None:
        async with sunk(search, index="test-%Y.%m.%d-alerts", template=True) as relay:
            relay.publish_numbered(10)
            assert (await relay.settled())["sent"] == 10

    asyncio.run(run())
    assert search.count("test-*-alerts") == 10
    (index, made), *others = search.call("GET", "/test-*").items()
    assert others == []
    assert len(index) == len("test-2026.01.01-alerts")
    assert made["mappings"]["properties"]["Timestamp"]["type"] == "date"
    assert made["mappings"]["properties"]["HostName"]["type"] == "keyword"

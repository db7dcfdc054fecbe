"""relay.reflect: lists, watches and polls, and every way in which they fail.

Against an API that the test speaks for, with a clock that takes no time; and, at the end, over real
sockets. Whatever fails, the target is told of nothing but what is so.
"""

import asyncio
import gc
import itertools
import json
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any

import pytest
from peers import kube_http, virtual
from peers.kube_http import Configuration, bookmark, line, page, pod, status

from relay import reflect
from relay.kube_api import Api, Refused, Resource, Unreachable
from relay.objects import Pod
from relay.reflect import Mode, Reflector

POLL = 10.0
PODS = Resource("pods")
TOO_OLD = Refused(410, "Expired", "too old")


class Target:
    """Knows what it was told; `history` has each word."""

    def __init__(self) -> None:
        self.live: dict[str, list[str]] = {}
        self.history: list[str] = []

    def put(self, item: Pod) -> None:
        key = item.metadata.key.removeprefix("default/")
        self.live[key] = item.addresses
        self.history.append(f"+{key}")

    def drop(self, key: str) -> None:
        self.live.pop(key.removeprefix("default/"), None)
        self.history.append(f"-{key.removeprefix('default/')}")

    def keep(self, keys: set[str]) -> None:
        for gone in self.live.keys() - {key.removeprefix("default/") for key in keys}:
            self.drop(f"default/{gone}")
        self.history.append("listed")


class Script(Api):
    """An API server's answers, one after another: a page or lines, or what is raised; at last silence.

    `asked` has each request: when, and what for.
    """

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[float, str]] = []
        self.done = asyncio.Event()
        self.open = 0

    def _next(self, what: str) -> Any:
        self.asked.append((asyncio.get_running_loop().time() - 1000, what))
        if self.answers:
            return self.answers.pop(0)
        self.done.set()
        return None

    async def page(self, resource: Resource, continuation: str, limit: int) -> bytes:
        answer = self._next(f"list {continuation} {limit}".replace("  ", " "))
        if isinstance(answer, Exception):
            raise answer
        if answer is None:
            await asyncio.Event().wait()
        return json.dumps(answer).encode() if isinstance(answer, dict) else bytes(answer)

    async def watch(self, resource: Resource, version: str) -> AsyncGenerator[bytes, None]:
        answer = self._next(f"watch {version}")
        if isinstance(answer, Exception):
            raise answer
        self.open += 1
        try:
            yield b""
            for each in answer or [None]:
                if each is None:
                    await asyncio.Event().wait()
                elif isinstance(each, (int, float)):
                    await asyncio.sleep(each)
                elif isinstance(each, Exception):
                    raise each
                else:
                    yield each
        finally:
            self.open -= 1

    @property
    def requests(self) -> list[str]:
        return [what for _, what in self.asked]


class Run:
    """What came of a script, once its answers were used up."""

    def __init__(self, *answers: Any, draw: float = 0.0, seconds: float = 0.0) -> None:
        """`seconds`: how long to go on after the last answer, or instead of it."""
        virtual.run(self._main(answers, draw, seconds))

    async def _main(self, answers: tuple[Any, ...], draw: float, seconds: float) -> None:
        self.api = Script(*answers)
        self.target = Target()
        self.reflector = Reflector(
            self.api, PODS, Pod, self.target, purpose="discovery", poll_seconds=POLL, draw=lambda: draw
        )
        task = asyncio.get_running_loop().create_task(self.reflector.run())
        if seconds:
            await asyncio.sleep(seconds)
        else:
            ends = asyncio.ensure_future(self.api.done.wait())
            await asyncio.wait([task, ends], return_when=asyncio.FIRST_COMPLETED)
            for _ in range(5):
                await asyncio.sleep(0)
            ends.cancel()
        self.mode = self.reflector.mode
        self.seen = self.reflector.describe()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled(), "it ends by being cancelled, and only so"
        assert self.api.open == 0, "no watch is left open"

    @property
    def requests(self) -> list[str]:
        return self.api.requests

    @property
    def live(self) -> list[str]:
        return sorted(self.target.live)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno >= logging.WARNING]


A, B, C = pod("a", "10.0.0.1"), pod("b", "10.0.0.2"), pod("c", "10.0.0.3")
LISTED = page(A, B, version=5)


# --- lists --------------------------------------------------------------------------------


def test_a_list_is_followed_from_its_version() -> None:
    run = Run(LISTED)
    assert run.requests == ["list 100", "watch 5"]
    assert run.target.history == ["+a", "+b", "listed"]
    assert run.seen == {"mode": "watch", "objects": 2, "lists": 1, "watches": 1, "last_error": ""}


@pytest.mark.parametrize("items", [[], None])
def test_an_empty_list_is_a_list(items: Any) -> None:
    run = Run({"metadata": {"resourceVersion": "5"}, "items": items})
    assert run.requests == ["list 100", "watch 5"]
    assert run.target.history == ["listed"]


def test_pages_are_put_together_before_anything_is_gone() -> None:
    run = Run(
        page(A, B, version=5),
        ["", TOO_OLD],
        page(B, version=9, more="next"),
        page(version=9, more="after that"),
        page(C, version=9),
    )
    limit = run.requests[2].split()[1]
    assert run.requests[3:] == [f"list next {run.requests[3].split()[-1]}", run.requests[4], "watch 9"]
    assert run.requests[4].startswith("list after that ")
    assert limit == str(reflect.PAGE_MOST), "small objects"
    assert run.target.history == ["+a", "+b", "listed", "+b", "+c", "-a", "listed"]


@pytest.mark.parametrize("share", [0.0001, 0.01, 0.3, 0.9, 1.1, 3.0])
def test_pages_are_asked_for_in_numbers_that_fit(share: float) -> None:
    """Of the memory set for a page, whatever objects are like; and never none, or more than the server likes."""
    objects = [{**pod(str(number)), "data": "x" * int(share * reflect.PAGE_BYTES)} for number in range(2)]
    body = page(*objects, more="next")
    run = Run(body, page())
    asked = int(run.requests[1].removeprefix("list next "))
    size = len(json.dumps(body)) / 2
    if asked == 1:
        assert size > reflect.PAGE_BYTES / 2
    else:
        assert asked * size <= reflect.PAGE_BYTES
    assert asked == reflect.PAGE_MOST or (asked + 1) * size > reflect.PAGE_BYTES


def test_a_page_that_is_too_old_begins_the_list_again_and_takes_nothing_away() -> None:
    run = Run(LISTED, ["", TOO_OLD], page(A, version=7, more="next"), TOO_OLD, page(A, B, C, version=9))
    assert run.target.history == ["+a", "+b", "listed", "+a", "+a", "+b", "+c", "listed"]


@pytest.mark.parametrize(
    "failure",
    [
        Unreachable("refused"),
        Refused(500, "Internal", "oh"),
        Refused(401, "Unauthorized", ""),
        Refused(403, "Forbidden", ""),
        b"<html>",
        b'{"items": []}',
        b'{"metadata": {}, "items": {}}',
        b'{"metadata": {}, "items": [5]}',
        b'{"metadata": {"resourceVersion": null}}',
        {"metadata": {}, "items": [{"metadata": {"name": 5}}]},
    ],
)
def test_a_list_that_fails_takes_nothing_away(failure: Any) -> None:
    """Not on its first page, nor on its second."""
    first = page(A, B, version=5), ["", TOO_OLD]
    run = Run(*first, failure, page(A, version=7, more="next"), failure, page(A, B, version=9))
    assert "-a" not in run.target.history
    assert "-b" not in run.target.history
    assert run.requests[-1] == "watch 9"
    assert run.seen["lists"] == 2


# --- watches ------------------------------------------------------------------------------


@pytest.mark.parametrize("lasted", [1, 60])
def test_a_version_that_an_outage_made_too_old_takes_a_list_at_once(
    lasted: int, caplog: pytest.LogCaptureFixture
) -> None:
    """However long the delays have become; only one that is too old right after its list has to wait."""
    away = [Unreachable("refused")] * 6
    run = Run(LISTED, [lasted, Unreachable("refused")], *away, TOO_OLD, LISTED, draw=0.99)
    (refused, _), (listed, what) = run.api.asked[-3:-1]
    assert what.startswith("list ")
    assert listed == refused
    assert not [text for text in caplog.messages if "410" in text]


def test_a_version_that_is_too_old_right_after_its_list_has_to_wait() -> None:
    run = Run(LISTED, TOO_OLD, LISTED, draw=0.99)
    (refused, _), (listed, _) = run.api.asked[1:3]
    assert listed > refused


def test_a_watch_tells_of_every_change() -> None:
    run = Run(
        page(A, version=5),
        [
            line("ADDED", pod("b", version=6)),
            line("MODIFIED", pod("a", "10.0.0.9", version=7)),
            line("DELETED", pod("b", version=8)),
            60,
        ],
    )
    assert run.target.history == ["+a", "listed", "+b", "+a", "-b"]
    assert run.target.live == {"a": ["10.0.0.9"]}
    assert run.requests == ["list 100", "watch 5", "watch 8"], "it goes on from where it was"
    assert run.seen["objects"] == 1


def test_a_bookmark_moves_the_version_and_nothing_else() -> None:
    run = Run(LISTED, [line("BOOKMARK", bookmark(77)), 60])
    assert run.requests[-1] == "watch 77"
    assert run.target.history == ["+a", "+b", "listed"]


@pytest.mark.parametrize("kind", ["", "SOMETHING", "added"])
def test_events_of_another_kind_are_passed_over(kind: str) -> None:
    run = Run(LISTED, [line(kind, pod("z", version=9)), 60])
    assert run.live == ["a", "b"]
    assert run.requests[-1] == "watch 9"


def test_empty_lines_are_nothing() -> None:
    run = Run(LISTED, [b"", b"  ", b"\r", line("ADDED", C), 60])
    assert run.live == ["a", "b", "c"]


@pytest.mark.parametrize(
    "parts",
    [
        {"spec": None, "status": None},
        {"spec": {"nodeName": None}},
        {"status": {"podIP": None}},
        {"status": {"podIPs": {}}},
        {"status": "Running"},
    ],
)
@pytest.mark.parametrize("told_by", ["list", "watch"])
def test_an_object_that_cannot_be_read_stays_what_it_was(
    parts: dict[str, Any], told_by: str, caplog: pytest.LogCaptureFixture
) -> None:
    """And holds nobody else up."""
    odd = {**pod("a", version=7), **parts}
    if told_by == "list":
        run = Run(LISTED, ["", TOO_OLD], page(odd, C, version=9))
    else:
        run = Run(LISTED, [line("MODIFIED", odd), line("ADDED", pod("c", version=9)), 60])
    assert run.target.live["a"] == ["10.0.0.1"]
    assert run.target.live.keys() == ({"a", "c"} if told_by == "list" else {"a", "b", "c"})
    assert run.requests[-1] == "watch 9"
    assert warnings(caplog) == ["discovery cannot read one of the pods in all namespaces"]
    assert caplog.records[-1].relay_fields["object"] == "default/a"  # type: ignore[attr-defined]


@pytest.mark.parametrize("parts", [{}, {"spec": {}, "status": {}}, {"status": {"podIPs": None}}, {"labels": None}])
def test_an_object_may_lack_nearly_everything(parts: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    run = Run(LISTED, [line("MODIFIED", {"metadata": A["metadata"], **parts}), 60])
    assert run.target.live["a"] == []
    assert not warnings(caplog)


@pytest.mark.parametrize(
    "wrong", [b"<html>", b"{", b"null", b'{"type": "ADDED"}', line("ADDED", {}), line("ERROR", {"code": "x"})]
)
def test_a_line_that_is_no_event_leads_to_a_new_list(wrong: bytes, caplog: pytest.LogCaptureFixture) -> None:
    run = Run(LISTED, [line("ADDED", C), wrong], page(A, B, C, version=9))
    assert run.requests == ["list 100", "watch 5", "list 500", "watch 9"]
    assert not [each for each in run.target.history if each.startswith("-")]
    assert warnings(caplog) == ["discovery cannot watch pods in all namespaces"]


@pytest.mark.parametrize(
    "after", [Unreachable("reset"), Refused(429, "Busy", ""), Refused(503, "Away", ""), Refused(401, "No", "")]
)
def test_a_watch_that_breaks_goes_on_from_where_it_was(after: Exception) -> None:
    run = Run(LISTED, [line("ADDED", pod("c", version=6)), after], after, Unreachable("refused"))
    assert run.requests == ["list 100", "watch 5", "watch 6", "watch 6", "watch 6"]
    assert run.live == ["a", "b", "c"]


@pytest.mark.parametrize(
    "failure", [TOO_OLD, Refused(500, "Internal", ""), Refused(504, "Too large resource version", "")]
)
@pytest.mark.parametrize("how", ["status", "event"])
def test_a_watch_that_cannot_go_on_leads_to_a_new_list(failure: Refused, how: str) -> None:
    event = line("ERROR", status(failure.code, "Reason", "a\nmessage"))
    run = Run(LISTED, *([failure] if how == "status" else [[event]]), page(B, C, version=9))
    assert run.requests == ["list 100", "watch 5", "list 500", "watch 9"]
    assert run.target.history == ["+a", "+b", "listed", "+b", "+c", "-a", "listed"]


def test_a_version_that_is_too_old_once_in_a_while_is_nothing_to_tell(caplog: pytest.LogCaptureFixture) -> None:
    Run(LISTED, [61, TOO_OLD], LISTED, [61, TOO_OLD], LISTED)
    assert not warnings(caplog)
    Run(LISTED, TOO_OLD, LISTED, TOO_OLD, LISTED)
    assert warnings(caplog) == ["discovery cannot watch pods in all namespaces"]


# --- no hot loop --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        Unreachable("closed"),
        Refused(500, "Internal", ""),
        Refused(401, "Unauthorized", ""),
        Refused(403, "Forbidden", ""),
        TOO_OLD,
        b"<html>",
    ],
)
def test_a_list_that_always_fails_is_tried_less_and_less_often(answer: Any) -> None:
    run = Run(*[answer] * 1000, draw=1.0, seconds=300)
    waits = [later - sooner for (sooner, _), (later, _) in itertools.pairwise(run.api.asked)]
    assert waits[:8] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert set(waits[8:]) == {30}
    assert run.mode is Mode.DOWN
    assert run.seen["last_error"]


@pytest.mark.parametrize(
    "answer",
    [
        [0],
        Unreachable("closed"),
        TOO_OLD,
        Refused(500, "Internal", ""),
        Refused(503, "Away", ""),
        [line("BOOKMARK", bookmark(6))],
        [line("MODIFIED", A), Unreachable("closed")],
        [line("MODIFIED", A), line("ERROR", status(410))],
        [line("MODIFIED", A), b"<html>"],
    ],
)
def test_a_watch_that_always_ends_at_once_is_no_hot_loop(answer: Any) -> None:
    class Always(Script):
        def _next(self, what: str) -> Any:
            super()._next(what)
            return LISTED if what.startswith("list") else answer

    async def main() -> None:
        api = Always()
        made = Reflector(api, PODS, Pod, Target(), purpose="discovery", poll_seconds=POLL, draw=lambda: 0.5)
        task = asyncio.get_running_loop().create_task(made.run())
        await asyncio.sleep(300)
        task.cancel()
        await asyncio.wait([task])
        watches = [what for what in api.requests if what.startswith("watch")]
        assert 10 < len(watches) <= 301
        assert len(api.requests) - len(watches) <= 40

    virtual.run(main())


def test_a_watch_that_ends_at_once_without_a_word_is_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    run = Run(LISTED, *[[0]] * 4, draw=1.0)
    assert [when for when, _ in run.api.asked[1:]] == [0, 0.5, 1.5, 3.5, 7.5]
    assert caplog.records[0].relay_fields["error"] == "the watch ended at once, without a word"  # type: ignore[attr-defined]


def test_the_delay_is_drawn_below_its_ceiling() -> None:
    run = Run(*[Unreachable("closed")] * 4, draw=0.25)
    assert [round(when, 6) for when, _ in run.api.asked] == [0, 0.125, 0.375, 0.875, 1.875]


def test_a_minute_of_health_starts_the_delays_afresh() -> None:
    failures = [Unreachable("closed")] * 5
    run = Run(*failures, LISTED, [59.0, Unreachable("cut")], draw=1.0)
    assert run.api.asked[-1][0] - run.api.asked[-2][0] == 59 + 16, "not yet"
    run = Run(*failures, LISTED, [60.0, Unreachable("cut")], draw=1.0)
    assert run.api.asked[-1][0] - run.api.asked[-2][0] == 60 + 0.5


def test_the_server_may_ask_for_more_time() -> None:
    run = Run(Refused(429, "Too Many Requests", "", retry_after=7.0), LISTED, draw=1.0)
    assert [when for when, _ in run.api.asked] == [0, 7.5, 7.5]


# --- log lines ----------------------------------------------------------------------------


def test_versions_that_are_too_old_again_and_again_are_told_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """Although the server says of each which one it was."""
    answers = ((LISTED, Refused(410, "Expired", f"too old resource version: {number}")) for number in range(12))
    Run(*itertools.chain.from_iterable(answers), LISTED, draw=0.1)
    told = [record.relay_fields["times"] for record in caplog.records]  # type: ignore[attr-defined]
    # The first one may happen; all others are within a minute of the one before.
    assert told == [1]


def test_a_failure_is_told_once_a_minute_and_its_end_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    run = Run(*[Unreachable("refused")] * 10, LISTED, [line("ADDED", C), 1000], draw=1.0)
    told = [(record.message, record.relay_fields) for record in caplog.records]  # type: ignore[attr-defined]
    assert [(text, fields.get("times")) for text, fields in told] == [
        ("discovery cannot list pods in all namespaces", 1),
        ("discovery cannot list pods in all namespaces", 7),  # after 61.5 s
        ("discovery cannot list pods in all namespaces", 2),
        ("Kubernetes answers again", None),
    ]
    assert told[0][1] == {"resource": "pods", "verb": "list", "error": "refused", "times": 1, "retry_in": 0.5}
    assert told[-1][1] == {"resource": "pods", "purpose": "discovery"}
    assert run.seen["last_error"] == ""


def test_another_failure_is_told_at_once(caplog: pytest.LogCaptureFixture) -> None:
    Run(Unreachable("refused"), Unreachable("reset"), Unreachable("refused"), Unreachable("reset"))
    assert len(warnings(caplog)) == 2


# --- rights -------------------------------------------------------------------------------

FORBIDDEN = Refused(403, "Forbidden", "no right")


def test_without_list_the_verb_is_told(caplog: pytest.LogCaptureFixture) -> None:
    run = Run(*[FORBIDDEN] * 8, draw=1.0)
    assert warnings(caplog)[0] == "discovery may not list pods in all namespaces: grant the verb list"
    assert run.mode is Mode.LISTING  # another try


def test_without_list_what_is_known_stays() -> None:
    run = Run(LISTED, ["", TOO_OLD], *[FORBIDDEN] * 8, draw=1.0)
    assert run.live == ["a", "b"]


@pytest.mark.parametrize("verb", ["list", "watch"])
def test_a_right_that_is_missing_for_a_moment_is_not_told(verb: str, caplog: pytest.LogCaptureFixture) -> None:
    if verb == "list":
        run = Run(FORBIDDEN, FORBIDDEN, LISTED, draw=1.0)
    else:
        run = Run(LISTED, FORBIDDEN, LISTED, FORBIDDEN, LISTED, draw=1.0)
    assert not warnings(caplog)
    assert run.mode is Mode.WATCHING


def test_without_watch_it_polls(caplog: pytest.LogCaptureFixture) -> None:
    class NoWatch(Script):
        def _next(self, what: str) -> Any:
            super()._next(what)
            return FORBIDDEN if what.startswith("watch") else LISTED

    async def main() -> None:
        api, target = NoWatch(), Target()
        made = Reflector(api, PODS, Pod, target, purpose="discovery", poll_seconds=POLL, draw=lambda: 0.5)
        task = asyncio.get_running_loop().create_task(made.run())
        modes = set()
        for _ in range(7200):
            await asyncio.sleep(1)
            modes.add(made.mode)
        task.cancel()
        await asyncio.wait([task])
        watches = [when for when, what in api.asked if what.startswith("watch")]
        lists = [when for when, what in api.asked if what.startswith("list")]
        assert 7200 / POLL * 0.9 <= len(lists) <= 7200 / POLL * 1.1 + 20
        assert len([when for when in watches if when < 120]) >= 4, "soon at first: somebody may just be granting it"
        assert len(watches) <= 25, "the watch is tried again at last each 10 minutes"
        waits = [later - sooner for sooner, later in itertools.pairwise(watches)]
        assert 0 < max(waits) <= reflect.WATCH_AGAIN + 2 * POLL
        assert Mode.POLLING in modes
        assert not [each for each in target.history if each.startswith("-")]

    virtual.run(main())
    assert set(warnings(caplog)) == {
        "discovery may not watch pods in all namespaces: polling; grant the verb watch to see changes at once"
    }


def test_a_watch_that_is_granted_later_ends_the_polling() -> None:
    run = Run(
        LISTED, FORBIDDEN, LISTED, *[each for _ in range(4) for each in (FORBIDDEN, LISTED)], draw=1.0, seconds=30
    )
    assert run.requests[-1].startswith("watch")
    assert run.mode is Mode.WATCHING


def test_polls_tell_what_is_gone() -> None:
    refusals = [FORBIDDEN, LISTED, FORBIDDEN, LISTED, FORBIDDEN, LISTED, FORBIDDEN]
    run = Run(LISTED, *refusals, page(B, version=9), draw=1.0)
    assert run.live == ["b"]
    assert run.target.history[-2:] == ["-a", "listed"]


def test_a_poll_that_fails_takes_nothing_away() -> None:
    refusals = [FORBIDDEN, LISTED, FORBIDDEN, LISTED, FORBIDDEN, LISTED, FORBIDDEN]
    run = Run(LISTED, *refusals, Unreachable("refused"), *[Unreachable("refused")] * 9, draw=1.0)
    assert run.live == ["a", "b"]


# --- over real sockets --------------------------------------------------------------------


def over_sockets(
    monkeypatch: pytest.MonkeyPatch, work: Callable[[kube_http.Server, Target], Coroutine[Any, Any, None]]
) -> None:
    """A reflector that does not wait between tries, and a server."""
    monkeypatch.setattr(reflect, "SHORT_WATCH", 0.0)

    async def main() -> None:
        async with kube_http.serve() as server:
            loaded = Configuration(server.host).loaded()

            async def load() -> Any:
                return loaded

            api = Api(load)
            target = Target()
            made = Reflector(api, PODS, Pod, target, purpose="discovery", poll_seconds=POLL, draw=lambda: 0.0)
            task = asyncio.get_running_loop().create_task(made.run())
            await work(server, target)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            await api.close()

    asyncio.run(main())
    gc.collect()


@pytest.mark.parametrize("size", [1, 5, 1 << 30])
def test_a_life_over_sockets(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    async def work(server: kube_http.Server, target: Target) -> None:
        (await server.next()).answer(page(A, version=5, more="next"))
        (await server.next()).answer(status(410, "Expired"), 410)
        (await server.next()).answer(page(A, version=5, more="next"))
        (await server.next()).answer(page(B, version=5))

        watch = (await server.next()).begin()
        assert watch.query["resourceVersion"] == "5"
        await watch.send(line("ADDED", pod("c", "10.0.0.3", version=6)) + b"\n" + line("BOOKMARK", bookmark(8)), size)
        await watch.send(line("ADDED", pod("d", version=9))[:-5], size)
        watch.cut()

        watch = (await server.next()).begin()
        assert watch.query["resourceVersion"] == "8"
        await watch.send(line("ADDED", pod("d", version=9)) + line("DELETED", pod("d", version=10)), size)
        watch.end()

        request = await server.next()
        assert request.query["resourceVersion"] == "10"
        request.answer(status(410, "Expired", "too old"), 410)
        (await server.next()).answer(b"<html>a proxy</html>", Content_Type="text/html")
        (await server.next()).answer(b"", 503)
        (await server.next()).answer(page(A, B, version=20))
        watch = (await server.next()).begin()
        await watch.event("ERROR", status(410, "Expired"), size)
        (await server.next()).answer(page(A, B, version=21))
        watch = await server.next()
        assert watch.query["resourceVersion"] == "21"
        assert target.history == [
            *["+a", "+a", "+b", "listed", "+c", "+d", "-d"],
            *["+a", "+b", "-c", "listed"],
            *["+a", "+b", "listed"],
        ]

    over_sockets(monkeypatch, work)


def test_a_server_that_closes_every_connection_takes_nothing_away(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(server: kube_http.Server, target: Target) -> None:
        (await server.next()).answer(page(A, B, version=5))
        for _ in range(10):
            (await server.next()).cut()
        watch = await server.next()
        assert watch.query["resourceVersion"] == "5"
        assert sorted(target.live) == ["a", "b"]

    over_sockets(monkeypatch, work)

"""Inputs that the fuzzer starts from: real events, whole conversations. Made anew by each run."""

from collections.abc import Iterable
from pathlib import Path

from hpack import Encoder

from relay import feeds
from relay import kubearmor_pb2 as pb

# Frame types and flags of RFC 9113, section 6.
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
ACK = END_STREAM = 1
END_HEADERS, PADDED, PRIORITISED = 4, 8, 32


def events() -> list[tuple[int, bytes]]:
    """(feed, event) with every kind of field set."""
    owner = pb.Podowner(Ref="Deployment", Name="web", Namespace="shop")
    run = pb.ExecEvent(ExecID="1", ExecutableName="sh")
    alert = pb.Alert(
        Timestamp=1,
        UpdatedTime="t",
        Owner=owner,
        PID=-1,
        ATags=["a", "", "ü"],
        EventData={"k": "v", "": ""},
        ExecEvent=run,
    )
    log = pb.Log(Timestamp=2, Owner=owner, Resource="remoteip=10.0.0.1", Data="tcp_connect", EventData={"k": "v"})
    message = pb.Message(Timestamp=3, Level="INFO", Message="hello")
    made = [(0, message), (1, alert), (2, log), (2, pb.Log())]
    return [(feed, event.SerializeToString()) for feed, event in made]


def frame(kind: int, stream: int, payload: bytes = b"", flags: int = 0) -> bytes:
    """One HTTP/2 frame."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def headers(stream: int, fields: Iterable[tuple[str, str]], flags: int = 0) -> bytes:
    """A field section in one frame, by an encoder without a past."""
    return frame(HEADERS, stream, Encoder().encode(list(fields)), flags | END_HEADERS)


def message(event: bytes) -> bytes:
    """An event behind its gRPC prefix."""
    return b"\0" + len(event).to_bytes(4, "big") + event


def settings(**values: int) -> bytes:
    """SETTINGS with identifiers given as _1, _2, …"""
    pairs = (int(key[1:]).to_bytes(2, "big") + value.to_bytes(4, "big") for key, value in values.items())
    return frame(SETTINGS, 0, b"".join(pairs))


def request(stream: int, path: str, *more: tuple[str, str], flags: int = 0) -> bytes:
    """The headers of a gRPC call."""
    fields = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "relay")]
    fields += [("content-type", "application/grpc"), ("te", "trailers"), *more]
    return headers(stream, fields, flags)


def call(stream: int, path: str, body: bytes = b"", *more: tuple[str, str]) -> bytes:
    """A whole unary or server-streaming request."""
    return request(stream, path, *more) + frame(DATA, stream, message(body), END_STREAM)


def of_clients() -> dict[str, bytes]:
    """What clients send behind preface and SETTINGS."""
    watch = [call(1 + 2 * feed, path) for feed, path in enumerate(feeds.METHODS)]
    ack = frame(SETTINGS, 0, flags=ACK)
    check = call(1, feeds.HEALTH_CHECK, b"\x08\x2a")
    filtered = {
        word: call(1, feeds.METHODS[feeds.LOGS], pb.RequestMessage(Filter=word).SerializeToString())
        for word in ("all", "policy", "system", "no such word")
    }
    split = Encoder().encode([(":method", "POST"), (":path", "/p.S/M"), ("grpc-timeout", "1S")])
    return {
        "watch": ack + b"".join(watch),
        "check": ack + check + ack,
        **{f"filter-{word}": ack + said for word, said in filtered.items()},
        "python": call(1, "/p.S/M", b"hello"),
        "unknown": call(1, "/no.Such/Method"),
        "stream": request(1, "/p.S/M")
        + frame(DATA, 1, message(b"a") + message(b"b"))
        + frame(DATA, 1, b"", END_STREAM),
        "timeout": call(1, feeds.METHODS[0], b"", ("grpc-timeout", "1n")),
        "compressed": request(1, feeds.METHODS[1], ("grpc-encoding", "gzip"))
        + frame(DATA, 1, b"\1\0\0\0\0", END_STREAM),
        "reset": watch[2] + frame(RST_STREAM, 5, (8).to_bytes(4, "big")) + call(7, feeds.METHODS[2]),
        "window": settings(_4=20)
        + watch[0]
        + frame(WINDOW_UPDATE, 1, (9).to_bytes(4, "big"))
        + frame(WINDOW_UPDATE, 0, (100).to_bytes(4, "big"))
        + settings(_4=65535),
        "frame-size": settings(_5=16777215, _3=1, _1=0, _6=100) + watch[1],
        "padded": request(1, feeds.METHODS[2]) + frame(DATA, 1, b"\3" + message(b"") + b"\0\0\0", END_STREAM | PADDED),
        "priority": frame(PRIORITY, 1, b"\0\0\0\3\x10") + watch[0],
        "continued": frame(HEADERS, 1, split[:3]) + frame(CONTINUATION, 1, split[3:], END_HEADERS),
        "ping": frame(PING, 0, b"12345678") + watch[0] + frame(PING, 0, b"12345678", ACK),
        "goaway": watch[0] + frame(GOAWAY, 0, b"\0\0\0\0\0\0\0\0bye"),
        "trailers": request(1, "/p.S/M") + headers(1, [("x", "y")], END_STREAM),
        "get": headers(
            1, [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "relay")], END_STREAM
        ),
    }


def of_nodes() -> dict[str, bytes]:
    """What nodes send once their HealthCheck is answered; streams 3, 5 and 7 are messages, alerts and logs."""
    accepted = [(":status", "200"), ("content-type", "application/grpc")]
    begin = b"".join(headers(3 + 2 * feed, accepted) for feed in feeds.FEEDS)
    said = {feed: message(event) for feed, event in events()}
    one = {feed: frame(DATA, 3 + 2 * feed, text) for feed, text in said.items()}
    whole = b"".join(one.values())
    logs, broken = said[feeds.LOGS], message(events()[1][1].replace(b"e", b"\xff"))
    error = [("grpc-status", "14"), ("grpc-message", "gone%20away")]
    return {
        "events": begin + whole,
        "packed": begin + frame(DATA, 7, logs * 5) + frame(DATA, 5, said[feeds.ALERTS] * 3),
        "pieces": begin + b"".join(frame(DATA, 7, logs[at : at + 3]) for at in range(0, len(logs), 3)) + one[1],
        "repaired": begin + frame(DATA, 5, broken) + whole,
        "malformed": begin + frame(DATA, 7, message(b"\x0a\xff")) + whole,
        "oversize": begin + frame(DATA, 7, b"\0\0\0\x20\0" + bytes(8192)) + whole,
        "huge": begin + frame(DATA, 7, b"\0\xff\xff\xff\xff" + bytes(100)) + one[1],
        "compressed": begin + frame(DATA, 7, b"\1" + logs[1:]) + whole,
        "padded": begin + frame(DATA, 7, b"\5" + logs + bytes(5), PADDED) + frame(DATA, 5, b"\0", PADDED) + whole,
        "length": headers(7, [*accepted, ("content-length", str(len(logs)))]) + frame(DATA, 7, logs),
        "ends": begin
        + one[2]
        + headers(7, [("grpc-status", "0")], END_STREAM)
        + headers(5, error, END_STREAM)
        + one[0],
        "cut": begin + frame(DATA, 7, logs[:9], END_STREAM) + frame(DATA, 5, said[1][:3]),
        "trailers-only": headers(3, [*accepted, ("grpc-status", "12")], END_STREAM) + begin,
        "http": headers(3, [(":status", "503")], END_STREAM) + headers(5, [(":status", "200")]) + one[1],
        "reset": begin + frame(RST_STREAM, 7, (2).to_bytes(4, "big")) + one[2] + one[1],
        "goaway": begin + whole + frame(GOAWAY, 0, (7).to_bytes(4, "big") + bytes(4)) + whole,
        "calm": begin + frame(GOAWAY, 0, (7).to_bytes(4, "big") + (11).to_bytes(4, "big") + b"too_many_pings"),
        "ping": begin + frame(PING, 0, b"12345678") + whole,
        "push": begin + frame(PUSH_PROMISE, 3, (2).to_bytes(4, "big"), END_HEADERS),
        "settings": settings(_3=1, _4=0, _5=20000, _1=0) + begin + whole,
        "unknown": begin + frame(99, 7, b"what") + whole,
        "unopened": frame(DATA, 9, logs) + frame(DATA, 2, logs) + frame(DATA, 0, logs),
    }


def of_scripts() -> dict[str, bytes]:
    """Scripts of fuzz_delivery.pxi: pairs of what and how much. The second peer's steps have 16 added."""
    publish, large, call, window, more, whole, reset = range(7)
    hear, hear_all, initial, data, fail, answer, other, reports, turn = range(7, 16)

    def script(*steps: int) -> bytes:
        return bytes(steps)

    start = script(call, 2 + 15, turn, 0, call + 16, 2 + 15, turn, 0)
    flood = script(*(large, 200) * 30)
    made = {
        "plain": start + script(publish, 32, turn, 0, hear_all, 0) * 20,
        "tails": start + flood + script(turn, 0, hear, 40) * 40,
        "split": script(initial, 5) + start + script(large, 101, turn, 0, more, 1, turn, 0) * 12,
        "rests": start + script(large, 152, turn, 0) + flood + script(turn, 0, more, 3) * 8,
        "windows": script(initial, 5) + start + script(large, 101, turn, 0, window, 8, turn, 0, whole, 9, turn, 0) * 12,
        "resets": start + script(large, 152, turn, 0, reset, 0, turn, 0) + flood + start,
        "calls": script(call, 4, turn, 0, answer, 41, turn, 0, answer, 43, turn, 0, data, 48, turn, 0) * 3,
        "checks": script(call, 3, turn, 0, call, 243, turn, 0, data, 32, hear_all, 0) * 3,
        "leaves": start + flood + script(turn, 0, other, 40, turn, 0) + start + flood + script(other + 16, 0, turn, 0),
        "ends": start + flood + script(turn, 0, other, 255, turn, 0, hear, 9, turn, 0, other, 254, turn, 0),
        "idle": start + script(publish, 2, turn, 0, hear_all, 0, hear_all + 16, 0) * 40 + flood + script(turn, 0) * 9,
        "words": start + script(data, 23, turn, 0, data, 48, turn, 0, reports, 0, other, 200, turn, 0),
    }
    for count in (0, 1, 2, 4, 7, 12, 20, 33):
        made[f"fails-{count}"] = (
            script(fail, count) + start + flood + script(fail, count, turn, 0, hear, 9, turn, 0) * 4
        )
    return made


def of_tls() -> dict[str, bytes]:
    """Scripts of fuzz_tls.pxi: pairs of what and how much."""
    give, give_more, give_all, turn, take, take_all, say, publish, flip, inject, cut_out, rekey = range(12)
    leave, stop, hang_up, wait = range(12, 16)
    shake = bytes([give_all, 0, turn, 0, take_all, 0] * 4)
    bytewise = bytes([give, 0, take, 0] * 3000)
    ask = bytes([say, 0, give_all, 0, take_all, 0] * 2)
    flow = bytes([publish, 200, turn, 0, give_all, 0, take_all, 0] * 8)
    stuck = bytes([publish, 255, turn, 0] * 30)
    return {
        "whole": shake + ask + flow,
        "bytewise": bytewise + ask + flow,
        "pieces": bytes([give, 6, take, 99] * 200) + ask + bytes([publish, 90, turn, 0, take, 20, give, 3] * 100),
        "stuck": shake + ask + stuck + bytes([take, 255, turn, 0] * 90),
        "rekey": shake + ask + bytes([rekey, 1, publish, 90, give_all, 0, take_all, 0] * 6),
        "leaves": shake + ask + flow + bytes([leave, 0, give, 0, wait, 3]),
        "stops": shake + ask + stuck + bytes([stop, 0, wait, 7, take, 50, wait, 7]),
        "hangs up": shake + ask + stuck + bytes([hang_up, 0, wait, 7]),
        "spoilt hello": bytes([flip, 60]) + shake,
        "spoilt record": shake + bytes([say, 0, flip, 9]) + shake + flow,
        "injected": shake + bytes([inject, 4, 0x15, 3, 3, 0, 2]) + flow,
        "plaintext": bytes([inject, 15]) + b"PRI * HTTP/2.0\r\n" + shake,
        "cut": shake + ask + bytes([say, 0, cut_out, 3]) + shake,
        "half": bytes([give_more, 2, turn, 0, stop, 0]),
    }


def of_enrichment() -> dict[str, bytes]:
    """Logs that are enriched, or nearly, behind the size of the names."""
    texts = [
        "remoteip=10.1.2.3 port=443",
        "x\u00a0remoteip=::ffff:10.1.2.3\u3000remoteip=fd00::1",
        "remoteip=1:2:3:4:5:6:7:: y",
        "remoteip=9.9.9.9 remoteip=10.1.2.3",
        "remoteip=010.1.2.3 remoteip=255.255.255.255",
        "remoteip=" + "x" * 100,
    ]
    logs = [pb.Log(PID=1, Resource=text, Data="kprobe=tcp_connect", Result="Passed") for text in texts]
    logs += [pb.Log(Resource=texts[0], Data=data) for data in ("", "tcp", "udp_", "x" * 70 + "tcp_")]
    made = {f"log-{number}": log.SerializeToString() for number, log in enumerate(logs)}
    made["twice"] = made["log-0"] + made["log-3"] + b"\xa3\x06\xa4\x06" + made["log-1"]
    made["over-long"] = made["log-9"] + b"\x82\x81\x80\x00\x91\x80\x80\x00remoteip=10.1.2.3"
    made["repaired"] = made["log-0"].replace(b"port", b"p\xffrt")
    return made


def of_json() -> dict[str, bytes]:
    """Events that are printed in more ways than one, behind their feed's number."""
    logs = {
        "escapes": pb.Log(Result='"\\/<>&\u2028\u2029\b\f\n\r\t\0\x1b\x7f', Resource="\u2027\u202a\ufffd\U0010ffff"),
        "numbers": pb.Log(Timestamp=-(2**63), HostPPID=-1, HostPID=2**31 - 1, PPID=-(2**31), PID=100, UID=99),
        "empty": pb.Log(Owner=pb.Podowner(), ExecEvent=pb.ExecEvent(), EventData={"": ""}),
        "map": pb.Log(EventData={str(i * 7 % 31): "v" * i for i in range(31)}),
        "steps": pb.Log(Result="a" * 16, Resource="a" * 15 + "<", Data="a" * 17, Cwd="a" * 31 + "ü", TTY="a" * 64),
    }
    made = {name: b"\2" + log.SerializeToString() for name, log in logs.items()}
    made["list"] = b"\1" + pb.Alert(ATags=["", "a", "<", "ü"]).SerializeToString()
    key, value, other = b"\x0a\1k", b"\x12\1v", b"\x1b\x0a\1x\x1c"
    entries = [key + value, value + key, key, value, b"", key + key + value, other + key + value, b"\x08\5" + value]
    made["entries"] = b"\2" + b"".join(b"\x8a\2" + bytes([len(entry)]) + entry for entry in entries)
    made["parts"] = b"\2" + b"".join(b"\xc2\1\3" + part for part in (b"\x0a\1a", b"\x12\1b", b"\x0a\1c"))
    made["over-long"] = b"\2\xe0\x80\x80\0\x85" + b"\x80" * 8 + b"\0\x92\x81\x80\0\x81\x80\0x"
    made["group"] = b"\2\xa3\6" + made["entries"][1:] + b"\xa4\6" + made["parts"][1:]
    made["broken"] = made["map"].replace(b"vv", b"\xe2\x80") + made["escapes"][1:].replace(b"\xe2", b"\xf0")
    return made


def write(folder: Path) -> None:
    """A file for each seed, in a folder for each target."""
    # How each is served: the first byte, see engine.pxi.
    for target, inputs in (("server", of_clients()), ("node", of_nodes())):
        place = folder / target
        place.mkdir(parents=True, exist_ok=True)
        for name, text in inputs.items():
            for how in (0, 2 | 8, 1 | 4 | 8 | 64):
                (place / f"{name}-{how}").write_bytes(bytes([how]) + text)
            for fails in (0, 1, 3, 8, 20):
                (place / f"{name}-fails-{fails}").write_bytes(bytes([3 | 8 | 16 | 128, fails]) + text)
    delivery = folder / "delivery"
    delivery.mkdir(parents=True, exist_ok=True)
    for name, text in of_scripts().items():
        for how, first in ((0, 255), (64, 4), (128, 30)):
            (delivery / f"{name}-{how}").write_bytes(bytes([how, first]) + text)
    tls = folder / "tls"
    tls.mkdir(parents=True, exist_ok=True)
    for name, text in of_tls().items():
        # A client and a node, TLS 1.3 and 1.2, a wide and a narrow socket, one event a frame; allocations that fail.
        for how in (0, 1, 2 | 4, 3, 8, 9, 64 | 8):
            (tls / f"{name}-{how}").write_bytes(bytes([how]) + text)
        for fails in (1, 4, 12, 40):
            (tls / f"{name}-fails-{fails}").write_bytes(bytes([128 | fails & 1, fails]) + text)
    enrich = folder / "enrich"
    enrich.mkdir(parents=True, exist_ok=True)
    for name, text in of_enrichment().items():
        for size in (0, 90, 254):
            (enrich / f"{name}-{size}").write_bytes(bytes([size]) + text)
    transcoded = folder / "json"
    transcoded.mkdir(parents=True, exist_ok=True)
    for name, text in of_json().items():
        (transcoded / name).write_bytes(text)
    for number, (feed, event) in enumerate(events()):
        (transcoded / f"event-{number}").write_bytes(bytes([feed]) + event)
    scan = folder / "scan"
    scan.mkdir(parents=True, exist_ok=True)
    for number, (feed, event) in enumerate(events()):
        (scan / f"event-{number}").write_bytes(bytes([feed]) + event)
        (scan / f"broken-{number}").write_bytes(bytes([feed]) + event.replace(b"e", b"\xff"))
        # An unknown group around it, which is skipped: field 100, start and end.
        (scan / f"group-{number}").write_bytes(bytes([feed]) + b"\xa3\x06" + event + b"\xa4\x06")
    # An owner of a log whose name has a longer length than it needs: what repair adds, the shortest form can take away.
    for text in (b"a", b"\xff"):
        (scan / f"over-long-{text.hex()}").write_bytes(b"\x02\xc2\x01\x05\x12\x81\x80\x00" + text)

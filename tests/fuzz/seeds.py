"""Inputs that the fuzzer starts from: real events, whole conversations. Made anew by each run."""

from pathlib import Path

from relay import kubearmor_pb2 as pb


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


def write(folder: Path) -> None:
    """A file for each seed, in a folder for each target."""
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

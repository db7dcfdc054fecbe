"""A file as a sink: whole lines, rotation, and what a full disk leaves."""

import asyncio
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from relay.sinks.file import Destination, FileSink
from relay.sinks.protocol import Batch, Unavailable

pytestmark = pytest.mark.unit


def batch(lines: bytes) -> Batch:
    return Batch(1, lines, lines.count(b"\n"), datetime.now(UTC))


def write(path: Path, *batches: bytes, rotate_bytes: int = 0, keep: int = 2, fsync: bool = False) -> None:
    async def run() -> None:
        sink = FileSink(Destination(path, rotate_bytes, keep, fsync))
        await sink.open()
        try:
            for lines in batches:
                assert (await sink.write(batch(lines))).taken == lines.count(b"\n")
                await sink.acknowledge(1, 1)
        finally:
            await sink.close()

    asyncio.run(run())


def test_lines_are_appended(tmp_path: Path) -> None:
    path = tmp_path / "events"
    write(path, b"1\n2\n")
    write(path, b"3\n", b"4\n", fsync=True)
    assert path.read_bytes() == b"1\n2\n3\n4\n"
    assert path.stat().st_mode & 0o007 == 0


def test_a_full_file_is_set_aside_and_the_oldest_goes(tmp_path: Path) -> None:
    path = tmp_path / "events"
    write(path, *(b"%d\n" % number * 3 for number in range(8)), rotate_bytes=12, keep=2)
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == {
        "events": b"6\n" * 3 + b"7\n" * 3,
        "events.1": b"4\n" * 3 + b"5\n" * 3,
        "events.2": b"2\n" * 3 + b"3\n" * 3,
    }


def test_without_old_files(tmp_path: Path) -> None:
    path = tmp_path / "events"
    write(path, b"1\n", b"2\n", rotate_bytes=1, keep=0)
    assert [each.read_bytes() for each in tmp_path.iterdir()] == [b"2\n"]


def test_a_line_that_a_killed_relay_has_cut_is_not_glued_to_the_next(tmp_path: Path) -> None:
    path = tmp_path / "events"
    path.write_bytes(b"1\n2")
    write(path, b"3\n", b"4\n")
    assert path.read_bytes() == b"1\n2\n3\n4\n"


@pytest.mark.parametrize("how", ["moved", "gone", "cut"])
def test_what_others_do_to_the_file_loses_nothing(tmp_path: Path, how: str) -> None:
    path = tmp_path / "events"

    async def run() -> None:
        sink = FileSink(Destination(path, 12 if how == "cut" else 0, 2, fsync=False))
        await sink.open()
        await sink.write(batch(b"1\n" * 6))
        if how == "moved":
            path.rename(tmp_path / "elsewhere")
        elif how == "gone":
            path.unlink()
        else:
            os.truncate(path, 0)
        for _ in range(2):
            await sink.write(batch(b"2\n" * 3))
        await sink.close()

    asyncio.run(run())
    assert path.read_bytes() == b"2\n" * 6
    assert {each.name for each in tmp_path.iterdir()} == {"events"} | ({"elsewhere"} if how == "moved" else set())


def test_acknowledged_events_are_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    write(tmp_path / "a", b"1\n", b"2\n")
    assert synced == []
    write(tmp_path / "b", b"1\n", b"2\n", fsync=True)
    assert len(synced) == 2


def test_a_full_disk_leaves_no_part_of_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "events"
    real = os.write
    room = 3

    def full(file: int, data: memoryview) -> int:
        nonlocal room
        if not room:
            raise OSError(28, "No space left on device")
        written = real(file, data[:room])
        room -= written
        return written

    async def run() -> None:
        nonlocal room
        sink = FileSink(Destination(path, 0, 0, fsync=False))
        await sink.open()
        monkeypatch.setattr(os, "write", full)
        await sink.write(batch(b"1\n"))
        with pytest.raises(Unavailable, match="No space left"):
            await sink.write(batch(b"22\n"))
        assert path.read_bytes() == b"1\n"
        room = 100
        await sink.write(batch(b"22\n"))
        await sink.close()

    asyncio.run(run())
    assert path.read_bytes() == b"1\n22\n"


def test_what_was_cut_is_taken_away_even_if_that_fails_at_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "events"
    real = os.write
    room = 4

    def full(file: int, data: memoryview) -> int:
        nonlocal room
        if not room:
            raise OSError(28, "No space left on device")
        written = real(file, data[:room])
        room -= written
        return written

    def broken(file: int, size: int) -> None:
        raise OSError(5, "Input/output error")

    async def run() -> None:
        nonlocal room
        sink = FileSink(Destination(path, 0, 0, fsync=False))
        await sink.open()
        with monkeypatch.context() as patched:
            patched.setattr(os, "write", full)
            await sink.write(batch(b"1\n"))
            patched.setattr(os, "ftruncate", broken)
            for _ in range(2):
                with pytest.raises(Unavailable, match="Input/output error"):
                    await sink.write(batch(b"22\n"))
        assert path.read_bytes() == b"1\n22"
        await sink.write(batch(b"22\n"))
        await sink.close()

    asyncio.run(run())
    assert path.read_bytes() == b"1\n22\n"


@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_what_is_no_file_is_not_waited_for(tmp_path: Path, kind: str) -> None:
    """Opening a pipe without a reader would never end, and nor would the relay."""
    path = tmp_path / "events"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path = Path(os.devnull)
    with pytest.raises(Unavailable):
        write(path, b"1\n")


def test_no_folder_is_tried_again(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="No such file"):
        write(tmp_path / "none" / "events", b"1\n")

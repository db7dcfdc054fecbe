"""Changes of keys (RFC 8446, 4.6.3) in the middle of a connection, as `openssl s_client` makes them.

Where the kernel encrypts, it is another matter: test_tls_kernel.py.
"""

import selectors
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from peers.certificates import write_folder
from peers.engine import WAIT, Engine
from peers.trust import Trust, trust

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")

CONTROL_COST = 10  # of max_controls, a message about keys


class Keys:
    """A connection of `openssl s_client`, which changes its keys, and asks for new ones, when it is told to."""

    def __init__(self, port: int, files: Trust, folder: Path) -> None:
        write_folder(folder, files.ca, client=files.leaf)
        self._process = subprocess.Popen(
            ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-tls1_3", "-alpn", "h2",
             "-CAfile", folder / "ca.crt", "-cert", folder / "client.crt", "-key", folder / "client.key"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
        self._said = b""
        self._looking = selectors.DefaultSelector()
        assert self._process.stdout is not None
        self._looking.register(self._process.stdout, selectors.EVENT_READ)
        self.wait(b"Verify return code: 0 (ok)", 1)

    def wait(self, words: bytes, times: int) -> bool:
        """Whether it has said that so often; False when it has ended before."""
        assert self._process.stdout is not None
        deadline = time.monotonic() + WAIT
        while self._said.count(words) < times:
            assert self._looking.select(deadline - time.monotonic()), f"{words!r} is not in {self._said!r}"
            more = self._process.stdout.read1()  # type: ignore[attr-defined]
            if not more:
                return False
            self._said += more
        return True

    def change(self, times: int) -> bool:
        """Change the keys once more, which makes `times` so far, and ask for an answer; False when it was cut off."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(b"K\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return False
        return self.wait(b"KEYUPDATE", times)

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def connect(tmp_path: Path) -> Iterator[Callable[[int], Keys]]:
    opened: list[Keys] = []

    def start(port: int) -> Keys:
        opened.append(Keys(port, trust(), tmp_path))
        return opened[-1]

    yield start
    for keys in opened:
        keys.close()


def test_keys_change_and_the_connection_goes_on(engine: Callable[..., Engine], connect: Callable[[int], Keys]) -> None:
    relay = engine(tls=trust(kernel=False))
    keys = connect(relay.port)
    assert all(keys.change(times) for times in range(1, 6))
    process = relay.counters()["process"]
    assert process["clients"] == 1
    assert process["limits"]["controls"] == process["limits"]["tls"] == 0


def test_a_client_that_changes_keys_all_the_time_is_cut_off(
    engine: Callable[..., Engine], connect: Callable[[int], Keys]
) -> None:
    relay = engine(tls=trust(kernel=False), max_controls=3 * CONTROL_COST)
    keys = connect(relay.port)
    times = 1
    while keys.change(times):
        times += 1
        assert times < 1000, "it is never cut off"
    counters = relay.wait_counters(lambda now: now["process"]["clients"] == 0, "the end of the connection")
    assert counters["process"]["limits"]["controls"] == 1

"""`openssl s_client` and `s_server`, as a person would use them to see what the other side speaks."""

import subprocess
import threading

from .closing import Closing

HOST = "127.0.0.1"
WAIT = 30.0


class Openssl(Closing):
    """The command, with its words."""

    def __init__(self, *words: str) -> None:
        self._process = subprocess.Popen(
            ["openssl", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.output = ""
        self._changed = threading.Condition()
        self._over = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait(self, text: str) -> None:
        """Wait until it has printed that."""
        with self._changed:
            self._changed.wait_for(lambda: text in self.output or self._over, WAIT)
            assert text in self.output, self.output

    def say(self, line: str) -> None:
        """A line on its standard input."""
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()

    def end(self) -> str:
        """Wait for its end, after the last line; all that it printed."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._reader.join(WAIT)
        self._process.wait(WAIT)
        return self.output

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(WAIT)
        self._reader.join(WAIT)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        while data := self._process.stdout.read1():
            with self._changed:
                self.output += data.decode(errors="replace")
                self._changed.notify_all()
        with self._changed:
            self._over = True
            self._changed.notify_all()


class OpensslClient(Openssl):
    """Connected to a loopback port.

    Args:
        flags: of the command, besides where to connect.
    """

    def __init__(self, port: int, *flags: str) -> None:
        super().__init__("s_client", "-connect", f"{HOST}:{port}", *flags)


class OpensslServer(Openssl):
    """On a loopback port of its own, for one connection.

    Args:
        flags: of the command, besides where to listen.
    """

    def __init__(self, *flags: str) -> None:
        super().__init__("s_server", "-accept", f"{HOST}:0", "-naccept", "1", *flags)
        self.wait("ACCEPT ")
        self.wait("\n")
        self.port = int(self.output.partition("ACCEPT ")[2].split()[0].rpartition(":")[2])

"""What is closed at the end of a with statement."""

from types import TracebackType
from typing import Self


class Closing:
    """Closes itself, however the statement ends."""

    def close(self) -> None:
        """Let go of everything."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

"""Ctrl-C and SIGTERM while a model is trained: the first saves and stops, the second does not wait."""

import signal
import threading
from collections.abc import Callable

STOPS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """A signal came, all is saved: `signal` says which."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.signal = number


class Signals:
    """While it is entered, the first signal calls `stop`, the second raises `KeyboardInterrupt`."""

    def __init__(self, stop: Callable[[], None]) -> None:
        self.stop, self.first = stop, 0

    def __enter__(self) -> "Signals":
        here = threading.current_thread() is threading.main_thread()  # elsewhere none can be caught
        self.before = {number: signal.signal(number, self._on) for number in STOPS} if here else {}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _on(self, number: int, _frame: object) -> None:
        if self.first:
            raise KeyboardInterrupt
        self.first = number
        self.stop()

"""The board between a run's workers and its driver: a file of its own, so that its actor imports no torch."""

from typing import Any

INTERVAL_S = 1.0  # between two looks, and between two entries


class Board:
    """Where rank 0 writes how far it is and the driver reads it, and the way back (an actor at launch)."""

    def __init__(self) -> None:
        self.news: dict[str, Any] = {"step": 0, "start": None, "failure": None}
        self.stopping = False

    def tell(self, **news: Any) -> bool:
        """Whether training is to save and stop."""
        self.news |= news
        return self.stopping

    def read(self) -> dict[str, Any]:
        return self.news

    def stop(self) -> None:
        self.stopping = True

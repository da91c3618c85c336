"""Actors between driver and workers: a file of its own, so that these actors import no torch."""

import time
from typing import Any

INTERVAL_S = 1.0  # between two looks, and between two entries


class StatusActor:
    """Where rank 0 writes how far it is and the driver reads it, and the way back (an actor at launch)."""

    def __init__(self) -> None:
        self.news: dict[str, Any] = {"step": 0, "saved": 0, "start": None, "failure": None}
        self.stopping = False

    def tell(self, **news: Any) -> bool:
        """Whether training is to save and stop."""
        self.news |= news
        return self.stopping

    def read(self) -> dict[str, Any]:
        return self.news

    def stop(self) -> None:
        self.stopping = True


class ProgressCounter:
    """Gives the encoders their autoencoder; they write here how far they are (an actor)."""

    def __init__(self, packed: dict[str, bytes]) -> None:
        self.packed, self.images = packed, 0
        self.began: float | None = None

    def bundle(self) -> dict[str, bytes]:
        return self.packed

    def begin(self) -> None:
        self.began = self.began or time.monotonic()

    def add(self, images: int) -> None:
        self.images += images

    def read(self) -> tuple[int, float]:
        """Images so far, and seconds since the first encoder was ready."""
        return self.images, time.monotonic() - self.began if self.began else 0.0

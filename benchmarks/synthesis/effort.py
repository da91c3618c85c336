"""How long to measure."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Effort:
    """How long to measure."""

    seconds: float = 40.0
    """Of one run of the pipeline; a bare loop takes a quarter."""
    repeats: int = 5
    paper_steps: int = 10
    """Of the paper's 250, the ones that are timed."""
    patches: int = 6000
    """Of a coordinator's run."""
    images: int = 10_000
    """Of the simulated fleet."""
    sides: tuple[int, ...] = (2048, 8192, 16_384)
    """Of the images whose memory is taken, in pixels."""
    tile: int = 512


QUICK = Effort(seconds=2, repeats=1, paper_steps=2, patches=600, images=200, sides=(512, 1024), tile=512)


def goal(value: float, least: float) -> str:
    return f"{value:.3g} [{'green' if value >= least else 'red'}](goal {least:g})[/]"

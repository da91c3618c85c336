"""What a user sees of a training: a bar, and the lines that its worker says."""

from collections.abc import Mapping
from typing import Any

LINES = ("start", "note", "end")


class ProgressReporter:
    """Draws news of rank 0 (`reports.Link.tell`) on a bar; each line is said once."""

    def __init__(self, bar: Any, part: str, steps: int, waiting: str) -> None:
        self.bar, self.said = bar, dict[str, str | None]()
        self.task = bar.add_task(f"train {part}", total=steps, figures=waiting)

    def hear(self, news: Mapping[str, Any], last: bool = False) -> None:
        for kind in LINES:
            if (line := news.get(kind)) and line != self.said.get(kind):
                self.said[kind] = line
                self.bar.console.print(line)
        if "of" in news:
            self.bar.update(self.task, total=news["of"])
        if "step" in news:
            self.bar.update(self.task, completed=news["step"])
        if "loss" in news:
            figures = f"loss {news['loss']:.4f}  {news['images_per_s']:.1f} images/s"
            self.bar.update(self.task, figures=figures)
        elif last:  # all steps were done before
            self.bar.update(self.task, figures="")

"""Items through a function, in order: as a Ray Data pipeline, or in this process without Ray."""

import logging
import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from diffgen import progress
from diffgen.cluster import connect
from diffgen.data.formats.base import LeftOut
from diffgen.data.report import Report

BLOCKS = 64
"""Ray tasks a pipeline at most: some for every worker, each with neighbouring items of few sources."""
SMALL = 2**28
"""Bytes that any worker has."""


@dataclass(frozen=True)
class Pipeline:
    """How the items of a run are worked on."""

    report: Report
    console: Console
    inline: bool
    ready: Callable[[], object] = lambda: None
    """Called before each item, on its node: it has what the items need there."""

    def each(
        self, what: str, items: Sequence[Any], function: Callable[[Any], Any], memory: int = 0
    ) -> Iterator[Any]:
        """What the function makes of each item, in order, behind a bar; the report names what it cannot."""
        with progress.bar(self.console, transient=True) as bar:
            task = bar.add_task(what, total=len(items), figures="")
            for number, made in self.run(items, function, memory):
                bar.update(task, completed=number)
                if isinstance(made, LeftOut):
                    self.report.leave_out(str(made), items[number].name)
                else:
                    yield made
            bar.update(task, completed=len(items))

    def run(
        self, items: Sequence[Any], function: Callable[[Any], Any], memory: int = 0
    ) -> Iterator[tuple[int, Any]]:
        """What `function` makes of the items, one thing or a list, with the items' numbers, in their order.

        Of an item that cannot be used it is the `LeftOut` that the function raised. `memory`: bytes that one
        item may take, of which no more are worked on at once than there is memory for.
        """
        if self.inline:
            for number, item in enumerate(items):
                yield from ((number, made) for made in _made(item, function))
            return
        connect()
        import ray.data

        logging.getLogger("ray.data").setLevel(logging.ERROR)  # importing ray.data turns its reports on
        ray.data.DataContext.get_current().execution_options.preserve_order = True  # the same bytes each time
        rows = [{"number": number, "item": pickle.dumps(item)} for number, item in enumerate(items)]
        data = ray.data.from_items(rows, override_num_blocks=min(len(rows), BLOCKS))
        import ray

        most = max(node["Resources"].get("memory", 0.0) for node in ray.nodes() if node["Alive"])
        asked = {"memory": min(memory, 0.9 * most)} if memory > SMALL and most else {}
        for row in data.flat_map(_rows, fn_args=(function, self.ready), **asked).iter_rows():
            yield row["number"], pickle.loads(row["made"])


def _rows(
    row: dict[str, Any], function: Callable[[Any], Any], ready: Callable[[], object]
) -> list[dict[str, Any]]:
    ready()
    made = _made(pickle.loads(row["item"]), function)
    return [{"number": row["number"], "made": pickle.dumps(one)} for one in made]


def _made(item: Any, function: Callable[[Any], Any]) -> list[Any]:
    try:
        made = function(item)
        return made if isinstance(made, list) else [made]
    except LeftOut as reason:
        return [reason]

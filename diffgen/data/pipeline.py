"""Items through a function, in order: as a Ray Data pipeline, or in this process without Ray."""

import logging
import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from diffgen.cluster import connect
from diffgen.data.formats.base import LeftOut

BLOCKS = 64
"""Ray tasks a pipeline at most: some for every worker, each with neighbouring items of few sources."""
SMALL = 2**28
"""Bytes that any worker has."""


def run(
    items: Sequence[Any],
    function: Callable[..., Any],
    constants: dict[str, Any],
    inline: bool,
    memory: int = 0,
    ready: Callable[[], object] = lambda: None,
) -> Iterator[tuple[int, Any]]:
    """What `function(item, **constants)` makes of the items, one thing or a list, with the items' numbers.

    In the order of the items; of one that cannot be used it is the `LeftOut` that the function raised.
    `memory`: bytes that one item may take, of which no more are worked on at once than there is memory for.
    `ready` is called before each item, on its node: it has what the items need there.
    """
    if inline:
        for number, item in enumerate(items):
            yield from ((number, made) for made in _made(item, function, constants))
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
    for row in data.flat_map(_rows, fn_args=(function, constants, ready), **asked).iter_rows():
        yield row["number"], pickle.loads(row["made"])


def _rows(
    row: dict[str, Any], function: Callable[..., Any], constants: dict[str, Any], ready: Callable[[], object]
) -> list[Any]:
    ready()
    made = _made(pickle.loads(row["item"]), function, constants)
    return [{"number": row["number"], "made": pickle.dumps(one)} for one in made]


def _made(item: Any, function: Callable[..., Any], constants: dict[str, Any]) -> list[Any]:
    try:
        made = function(item, **constants)
        return made if isinstance(made, list) else [made]
    except LeftOut as reason:
        return [reason]

"""Rows through a function, in order: as a Ray Data pipeline, or in this process without Ray."""

import logging
from collections.abc import Callable, Iterator
from typing import Any

from diffgen.cluster import connect

Row = dict[str, Any]
Pipeline = Callable[[list[Row], Callable[..., list[Row]], dict[str, Any]], Iterator[Row]]
"""(rows, function, constants) → all that function(row, **constants) gives, in the order of the rows."""

BLOCKS = 64
"""Ray tasks a pipeline at most: some for every worker, each with neighbouring works of few sources."""


def on_ray(rows: list[Row], function: Callable[..., list[Row]], constants: dict[str, Any]) -> Iterator[Row]:
    """By the workers of the cluster."""
    connect()
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.ERROR)  # importing ray.data turns its reports on
    ray.data.DataContext.get_current().execution_options.preserve_order = True  # the same bytes each time
    data = ray.data.from_items(rows, override_num_blocks=min(len(rows), BLOCKS))
    yield from data.flat_map(function, fn_kwargs=constants).iter_rows()


def in_process(
    rows: list[Row], function: Callable[..., list[Row]], constants: dict[str, Any]
) -> Iterator[Row]:
    """One after another."""
    for row in rows:
        yield from function(row, **constants)

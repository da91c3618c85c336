"""Batches read ahead in threads, while the device is at work on those before.

A batch is a function of its step, so reading ahead changes nothing but the time a worker waits.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


@contextmanager
def read_ahead(read: Callable[[int], T], start: int, end: int, readers: int) -> Iterator[Iterator[T]]:
    """`read(start)` … `read(end − 1)` in order, as many steps ahead as there are `readers`, and one more.

    With no readers each is read when it is asked for. An error of `read` is raised where its turn comes.
    """
    if not readers:
        yield (read(step) for step in range(start, end))
        return
    pool = ThreadPoolExecutor(readers, thread_name_prefix="reader")
    try:
        yield _ahead(pool, read, start, end, readers + 1)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _ahead(
    pool: ThreadPoolExecutor, read: Callable[[int], T], start: int, end: int, depth: int
) -> Iterator[T]:
    waiting: deque[Future[T]] = deque()
    for step in range(start, end):
        while len(waiting) < depth and step + len(waiting) < end:
            waiting.append(pool.submit(read, step + len(waiting)))
        yield waiting.popleft().result()

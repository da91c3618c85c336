"""Sources of `diffgen prepare` behind URLs: copied once per node, by what lies there, and read there."""

import hashlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path, PurePosixPath

from rich.console import Console

from diffgen import cache, progress
from diffgen.companions import suffix_of
from diffgen.errors import UserError, one_line
from diffgen.storage import Folder
from diffgen.urls import is_url


def local(source: str, console: Console | None = None) -> Path:
    """A source on this machine: itself or, of a URL, its copy, fetched if need be; `console` shows a bar.

    Of a folder all that lies below it, hidden files left out; of a file also what has its stem beside it: its
    mask, its outlines. Raises `UserError` where there is nothing, the store fails, or the disk is full.
    """
    if not is_url(source):
        return Path(source)
    with progress.bar(console or Console(quiet=True), transient=True) as bar:
        row = bar.add_task("fetching sources", total=None, figures="")
        return _copied(source, lambda done, total: bar.update(row, completed=done, total=total))


@lru_cache(maxsize=8)
def all_fetched(sources: tuple[str, ...]) -> None:
    """Have all sources that are URLs on this node; the store is asked once per process."""
    for source in sources:
        local(source)


def _copied(url: str, tell: Callable[[int, int], object]) -> Path:
    path, mark, query = url.partition("?")
    parent, _, last = path.rstrip("/").rpartition("/")
    try:
        folder, name = Folder(path.rstrip("/") + mark + query), ""
        if folder.is_file(""):
            folder, name = Folder(parent + mark + query), last
        stem = last.partition(".")[0]
        of_a_slide = bool(name) and suffix_of(name) == ".mrxs"  # it has a folder of its own
        files = {
            file: info
            for file, info in folder.infos(recursive=not name or of_a_slide).items()
            if not any(part.startswith(".") for part in PurePosixPath(file).parts)
            and (not name or _beside(file, stem, of_a_slide))
        }
        if not files:
            raise UserError(f"source {url}: no such file or folder")
        if folder.local is not None:
            return folder.local / name
        digest = hashlib.sha256(url.encode())
        for file, info in files.items():
            digest.update(f"{file} {info.size} {info.mtime_ns}\n".encode())
        total, done = sum(info.size for info in files.values()), 0

        def count(size: int) -> None:
            nonlocal done
            done += size
            tell(done, total)

        return cache.copy(folder, f"sources-{digest.hexdigest()[:24]}", {}, files, count) / name
    except OSError as error:
        raise UserError(f"source {url}: cannot be read ({one_line(error)})") from error


def _beside(file: str, stem: str, of_a_slide: bool) -> bool:
    """Whether a file is named like a source of this stem: `1_mask.png` and not `10.png` like `1.png`."""
    first, *below = PurePosixPath(file).parts
    if below:
        return of_a_slide and first == stem
    return first.startswith(stem) and not first[len(stem) :][:1].isalnum()

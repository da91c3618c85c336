"""diffgen: large, seamless synthetic H&E images with their label maps, by random patch diffusion on Ray."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diffgen.export.reading import OpenShards

__version__ = "0.2.0"


def open(out: str) -> "OpenShards":
    """The samples that `diffgen synthesize` wrote to a folder or URL, as (image, ids, record).

    For a loop, and by `.torch()` and `.ray()` for those. Raises `UserError` where no finished run is.
    """
    from diffgen.export.reading import OpenShards  # late: it imports torch

    return OpenShards(str(out))

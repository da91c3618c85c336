"""Bundles that come with the package, by name: `diffgen/bundles/NAME`.

Invariant: a shipped bundle is taken only if it is whole, that is, has the digest that `SHA256` beside it
gives; what lies in a folder or behind a URL of that name comes first.
"""

from pathlib import Path

from diffgen.errors import UserError
from diffgen.models import bundle

FOLDER = Path(__file__).resolve().parent.parent / "bundles"
DIGESTS = "SHA256"
"""A line per bundle, `DIGEST  NAME`, as sha256sum writes them."""
DEFAULT = "default"


def digests(folder: Path = FOLDER) -> dict[str, str]:
    """Name → digest of the bundles that are there."""
    path = folder / DIGESTS
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {name: digest for digest, name in (line.split() for line in lines)}


def resolve(text: str, folder: Path = FOLDER) -> str:
    """Where a bundle is that the user names: an existing folder or a URL as it is, else a shipped one.

    Raises `UserError` for a name that is neither, and for a shipped bundle that is damaged.
    """
    if "://" in text or Path(text).exists():
        return text
    known = digests(folder)
    if text not in known:
        names = ", ".join(sorted(known)) or "none"
        raise UserError(f"bundle {text!r}: no such folder, and none of that name ships ({names})")
    there = folder / text
    if bundle.digest(bundle.pack(there)) != known[text]:
        raise UserError(f"bundle {text!r} in {folder} is damaged: install diffgen anew")
    return str(there)

"""A trained bundle → one that ships with the package: half precision, digest, nothing of this machine.

python jobs/ship.py runs/NAME/bundle default
"""

import sys
from pathlib import Path

import torch

from diffgen import config
from diffgen.models import bundle, shipped

LARGEST_MB = 20
WEIGHTS = ("image_unet", "mask_unet", "mask_autoencoder", "image_guide")


def ship(source: Path, name: str, folder: Path = shipped.FOLDER) -> float:
    """Write `source` to `folder`/NAME and its digest to `SHA256`; its size in MB. Exits if too large."""
    made = bundle.load(source)
    parts = [made.codec.model, *(getattr(made, part, None) for part in WEIGHTS)]
    error = max(halve(part) for part in parts if part is not None)
    settings = config.validate(anonymous(config.read_yaml(source / "settings.yaml")))
    target = folder / name
    bundle.save(made, target, settings, (source / bundle.CARD).read_text(encoding="utf-8"))
    size = sum(path.stat().st_size for path in bundle.files(target)) / 1e6
    print(f"{target}: {size:.1f} MB, largest relative error of a weight tensor {error:.1e}")
    if size > LARGEST_MB:
        sys.exit(f"error: {size:.1f} MB; a shipped bundle has at most {LARGEST_MB}")
    known = shipped.digests(folder) | {name: bundle.digest(bundle.pack(target))}
    lines = [f"{digest}  {bundle_name}\n" for bundle_name, digest in sorted(known.items())]
    (folder / shipped.DIGESTS).write_text("".join(lines), encoding="utf-8")
    return size


def halve(model: torch.nn.Module) -> float:
    """Round the weights to half precision; the largest error relative to the largest weight of a tensor."""
    errors = [
        float((p.detach() - p.detach().half().float()).abs().max() / p.detach().abs().max().clamp_min(1e-12))
        for p in model.parameters()
    ]
    model.half()
    return max(errors)


def anonymous(tree: dict[str, object]) -> dict[str, object]:
    """Settings without the places of the machine that they were made on."""
    sections = {name: dict(part) if isinstance(part, dict) else part for name, part in tree.items()}
    sections["places"] = config.Places().model_dump(mode="json")
    autoencoder, prepare = sections["autoencoder"], sections["prepare"]
    assert isinstance(autoencoder, dict)
    assert isinstance(prepare, dict)
    autoencoder["source"] = None
    prepare["contexts"] = "one" if prepare["contexts"] == "one" else Path(str(prepare["contexts"])).name
    return sections


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    ship(Path(sys.argv[1]), sys.argv[2])

"""How much of a slide the linear autoencoder keeps: PSNR by factor and channels, in one table.

    python benchmarks/autoencoder.py demo/data [--json FILE]

Fitted on the training patches of prepared data, measured on patches that it was not fitted on
(the test split), as `diffgen train` would fit it.
"""

import argparse
import json
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from diffgen.data.stream import Patches
from diffgen.models.autoencoder import LatentCodec, LinearAutoencoder, psnr
from diffgen.sampling.decode import from_picture


def images(folder: Path, split: str) -> torch.Tensor:
    patches = Patches(folder, "image", split)
    return torch.stack([torch.from_numpy(from_picture(patches.picture(k))) for k in range(len(patches))])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    train, test = (images(arguments.data, split) for split in ("train", "test"))
    rows = []
    for factor, channels in ((2, 4), (2, 8), (4, 4), (4, 8), (4, 12), (4, 16), (8, 12), (8, 32)):
        codec = LatentCodec(LinearAutoencoder.fit(train, factor, channels))
        figures = [psnr(x, codec.decode(codec.encode(x)).clamp(-1, 1)) for x in (train, test)]
        rows.append({"factor": factor, "channels": channels, "train_db": figures[0], "test_db": figures[1]})
    table = Table(
        "factor", "channels", "numbers a pixel", "train dB", "test dB", title="linear autoencoder, PSNR"
    )
    for row in rows:
        share = row["channels"] / row["factor"] ** 2
        table.add_row(
            *(f"{x:g}" for x in (row["factor"], row["channels"], share)),
            f"{row['train_db']:.1f}",
            f"{row['test_db']:.1f}",
        )
    Console().print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()

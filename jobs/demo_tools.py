"""What the demos share: commands shown and run, shards read back, seconds and memory."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "demo"
BIN = Path(sys.executable).parent
FAST = ("--set", "sampling.precision=bf16") if torch.cpu._is_avx512_bf16_supported() else ()
"""Two thirds of the time on CPUs that compute in bf16; on others it would take longer."""
QUICK = ("--inline", "--set", "threads=2", *FAST)
"""What suits a few images on two cores: no cluster to start."""


def diffgen(command: str, *words: object) -> None:
    """One command, shown and run in demo/; ends here if it fails."""
    print(f"$ diffgen {command} {' '.join(str(word) for word in words)}", flush=True)
    line = [str(BIN / "diffgen"), command, *(str(word) for word in words)]
    if subprocess.run(line, cwd=DEMO, check=False).returncode:
        sys.exit(f"error: diffgen {command} failed; the same command resumes from there")


def read_back(*shards: str, steps: int = 8, side: int = 256) -> None:
    """What a user does with the shards: stream crops of them into the training of a segmenter."""
    import webdataset
    from monai.networks.nets import BasicUNet
    from torch import nn

    pattern = [str(path) for shard in shards for path in sorted((DEMO / shard).glob("shard-*.tar"))]
    samples = webdataset.WebDataset(pattern, shardshuffle=False).map(lambda sample: to_tensors(sample, side))
    batches = webdataset.WebLoader(samples.repeat(), batch_size=2, num_workers=0)
    segmenter = BasicUNet(spatial_dims=2, in_channels=3, out_channels=256, features=(8, 8, 16, 32, 32, 8))
    optimizer = torch.optim.AdamW(segmenter.parameters(), lr=3e-3)
    for step, (image, mask) in enumerate(batches, 1):
        loss = nn.functional.cross_entropy(segmenter(image), mask)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"step {step}: {tuple(image.shape)} images, ids {mask.unique().tolist()}, loss {loss:.2f}")
        if step == steps:
            return


def to_tensors(sample: dict[str, bytes], side: int) -> tuple[object, object]:
    """PNG → tensors of a crop: the mask holds class ids, so it is decoded as it is."""
    import io

    import numpy as np
    from PIL import Image

    image = np.asarray(Image.open(io.BytesIO(sample["png"])))[:side, :side]
    mask = np.asarray(Image.open(io.BytesIO(sample["mask.png"])))[:side, :side]
    return torch.from_numpy(image.transpose(2, 0, 1) / 255).float(), torch.from_numpy(mask.astype(np.int64))


def sheet(*previews: str) -> None:
    """One picture that shows the previews of these folders, one above the other."""
    from PIL import Image

    pictures = [Image.open(DEMO / folder / "preview.png") for folder in previews]
    width = max(picture.width for picture in pictures)
    made = Image.new(
        "RGB", (width, sum(picture.height for picture in pictures)), pictures[0].getpixel((0, 0))
    )
    top = 0
    for picture in pictures:
        made.paste(picture, (0, top))
        top += picture.height
    made.save(DEMO / "preview.png")


def run(parts: Mapping[str, Callable[[], object]], made: Mapping[str, str], after: str) -> None:
    """The parts one after the other, then what they made, how long each took, and what comes next."""
    DEMO.mkdir(exist_ok=True)
    memory = Memory()
    seconds = {name: timed(name, part) for name, part in parts.items()}
    print("\n== made")
    for path, what in made.items():
        print(f"  demo/{path:<28} {what}")
    print("\n== time")
    for name, took in seconds.items():
        print(f"  {name:<14} {took:7.1f} s")
    print(f"  {'all':<14} {sum(seconds.values()):7.1f} s   peak memory {memory.peak_mb()} MB")
    print(f"\nnext: {after}")


def timed(name: str, part: Callable[[], object]) -> float:
    print(f"\n== {name}", flush=True)
    began = time.monotonic()
    part()
    return time.monotonic() - began


class Memory:
    """Peak use of the machine's memory, by what stops being available (Linux)."""

    def __init__(self) -> None:
        self.first = self.least = self.available_mb()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            self.least = min(self.least, self.available_mb())
            time.sleep(0.5)

    def peak_mb(self) -> int:
        return self.first - self.least

    @staticmethod
    def available_mb() -> int:
        info = Path("/proc/meminfo")
        if not info.exists():
            return 0
        fields = dict(line.split(":") for line in info.read_text().splitlines())
        return int(fields["MemAvailable"].split()[0]) // 1024

"""Bundles of before still draw what they drew."""

import json
import shutil
from pathlib import Path

import webdataset
import yaml

from diffgen import config
from tests.synthesis.helpers import QUIET, run, synthesize

GUIDED = {"guidance": 0.5, "mask_guidance": 1.0}


def pictures(out: Path) -> dict[str, bytes]:
    found = {}
    for shard in sorted(out.glob("shard-*.tar")):
        for sample in webdataset.WebDataset(str(shard), shardshuffle=False):
            found |= {f"{sample['__key__']}.{end}": sample[end] for end in ("png", "mask.png")}
    return found


def test_without_the_keys_of_conditions_and_with_guidance_as_a_number(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    """`image_contexts`, `appearance` and the U-Net's own keys came later; so did the section of guidance."""
    old = Path(shutil.copytree(tiny_bundle, tmp_path / "old"))
    later = {
        "model_index.json": ("image_contexts", "appearance"),
        "image_unet/config.json": ("num_contexts", "appearance", "label_input", "learned_weight", "dropout"),
    }
    for name, keys in later.items():
        tree = json.loads((old / name).read_text())
        for key in keys:
            del tree[key]
        (old / name).write_text(json.dumps(tree))
    saved = config.merge(yaml.safe_load((old / "settings.yaml").read_text()), {"sampling": {"steps": 3}})
    saved["sampling"]["guidance"] = 0.5
    chosen = config.load(None, [], saved, {"synthesis.n": 2, "sampling.mask_guidance": 1.0})
    assert chosen.sampling.guidance.scale == 0.5
    synthesize(old, str(tmp_path / "of-old"), chosen, None, True, QUIET)
    run(tiny_bundle, tmp_path / "of-new", n=2, sampling=GUIDED)
    assert pictures(tmp_path / "of-old") == pictures(tmp_path / "of-new")
    assert len(pictures(tmp_path / "of-old")) == 4

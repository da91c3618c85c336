"""The very bytes of the shards of small runs, over every way to draw an image: a net under refactoring.

`bytes.json` holds them per kind of machine: of torch 2.13 on a CPU, with one thread and in fp32, named by how
torch's own layers round there. On a machine of another kind the tests are skipped; there, before a change,

    DIFFGEN_STORE_BYTES=1 pytest tests/synthesis/test_bytes.py

stores its bytes, as it does for whoever changes them on purpose, and says so in the changelog. They hold for
the versions of `constraints.txt`, as a bundle names that of diffusers and a PNG depends on its encoder.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from diffgen.labels import Labels
from diffgen.synthesis import plan
from tests.synthesis import seeded
from tests.synthesis.helpers import run

STORED = Path(__file__).with_name("bytes.json")
STORE = "DIFFGEN_STORE_BYTES" in os.environ


def arithmetic() -> str:
    """The first digits of a sum over the bits that torch's own layers give here: none of ours."""
    torch.set_num_threads(1)
    x = torch.from_numpy(np.random.default_rng(0).random((4, 32, 16, 16), np.float32))
    weight = torch.from_numpy(np.random.default_rng(1).random((32, 32, 3, 3), np.float32) - 0.5)
    x = functional.silu(functional.group_norm(functional.conv2d(x, weight, padding=1), 8))
    queries = x.flatten(2).transpose(1, 2)
    x = functional.scaled_dot_product_attention(queries, queries, queries)
    x = torch.cat([x.flatten(), functional.linear(queries, weight[:, :, 0, 0]).softmax(-1).flatten()])
    return hashlib.sha256(x.numpy().tobytes()).hexdigest()[:16]


MACHINE = arithmetic()
EXPECTED: dict[str, dict[str, str]] = json.loads(STORED.read_text())
pytestmark = [
    pytest.mark.skipif(not torch.__version__.startswith("2.13."), reason="the bytes are of torch 2.13"),
    pytest.mark.skipif(MACHINE not in EXPECTED and not STORE, reason=f"no bytes of machines like {MACHINE}"),
]

ONE: dict[str, Any] = {"n": 1, "size": "48x32"}
PER_LABEL: dict[str, dict[str, Any]] = {
    "several shards": {"n": 3, "size": "64x48"},
    "given masks": {"n": 3},
    "tiles": {"n": 2, "size": "96x64", "emit": "tiles", "tile": 32, "images_per_shard": 4},
    "guidance": ONE | {"sampling": {"guidance": {"scale": 2.0, "to": 3.0}, "mask_guidance": 1.0}},
    "autoguidance": ONE | {"sampling": {"guidance": {"kind": "auto", "scale": 2.0}}},
    "random": ONE | {"sampling": {"cover": "random"}},
    "aligned": ONE | {"sampling": {"cover": "aligned"}},
    "multidiffusion": ONE | {"sampling": {"cover": "multidiffusion"}},
    "diffcollage": ONE | {"sampling": {"cover": "diffcollage"}},
    "outpaint": ONE | {"sampling": {"cover": "outpaint"}},
    "ddim": ONE | {"sampling": {"solver": "ddim", "eta": 1.0, "steps": 4, "mask_steps": 4}},
    "sde": ONE | {"sampling": {"solver": "sde-dpmsolver++"}},
    "unipc": ONE | {"sampling": {"solver": "unipc", "spacing": "time"}},
    "euler": ONE | {"sampling": {"solver": "euler", "micro_batch": 3}},
}
JOINT: dict[str, dict[str, Any]] = {
    "several images": {"n": 2, "context": "skin"},
    "given masks": {"n": 2},
    "guidance": ONE | {"sampling": {"guidance": 1.5}},
}
LATENTS: dict[str, dict[str, Any]] = {
    "wide": {"n": 1, "size": "288x64"},
    "tiles": {"n": 1, "size": "96", "emit": "tiles", "tile": 32, "images_per_shard": 9},
    "narrow": ONE,
    "given masks": {"n": 2},
    "guidance": ONE | {"size": "96", "sampling": {"guidance": {"kind": "auto", "scale": 1.5}}},
}


@pytest.fixture(autouse=True)
def one_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """A release changes the provenance of all samples."""
    monkeypatch.setattr(plan, "__version__", "any")


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two label maps, of other sizes each and with regions that patches cut."""
    folder = tmp_path_factory.mktemp("maps")
    for k, (height, width) in enumerate([(32, 64), (48, 32)]):
        blocks = np.random.default_rng(k).integers(0, 5, (height // 8, width // 8)).astype(np.uint8)
        Image.fromarray(blocks.repeat(8, 0).repeat(8, 1)).save(folder / f"{k}.png")
    return folder


def check(bundle: Path, out: Path, maps: Path, name: str, synthesis: dict[str, Any]) -> None:
    """Make a run; the SHA-256 over the names and bytes of its shards is the one stored as `name`."""
    run(bundle, out, maps if name.endswith("given masks") else None, **synthesis)
    total = hashlib.sha256()
    for path in sorted(out.glob("*.tar")):
        total.update(path.name.encode() + path.read_bytes())
    if STORE:
        EXPECTED.setdefault(MACHINE, {})[name] = total.hexdigest()
        STORED.write_text(json.dumps(EXPECTED, indent=1, sort_keys=True) + "\n")
    assert total.hexdigest() == EXPECTED[MACHINE][name]


@pytest.fixture(scope="module")
def per_label(labels: Labels, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Label bits, one forward per label, patches of one side."""
    return seeded.make(tmp_path_factory.mktemp("per-label"), labels, {})


@pytest.fixture(scope="module")
def joint(labels: Labels, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with one forward for all labels."""
    return seeded.make(tmp_path_factory.mktemp("joint"), labels, {"image_model": {"conditioning": "joint"}})


@pytest.fixture(scope="module")
def latents(labels: Labels, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Label maps as latents, wide patches, context and appearance, a convolutional autoencoder."""
    return seeded.make(tmp_path_factory.mktemp("latents"), labels, seeded.LATENTS)


@pytest.mark.parametrize("name", PER_LABEL)
def test_label_bits_one_forward_per_label(per_label: Path, maps: Path, tmp_path: Path, name: str) -> None:
    check(per_label, tmp_path, maps, f"per label: {name}", PER_LABEL[name])


@pytest.mark.parametrize("name", JOINT)
def test_label_bits_joint_conditioning(joint: Path, maps: Path, tmp_path: Path, name: str) -> None:
    check(joint, tmp_path, maps, f"joint: {name}", JOINT[name])


@pytest.mark.parametrize("name", LATENTS)
def test_latents_and_wide_patches(latents: Path, maps: Path, tmp_path: Path, name: str) -> None:
    check(latents, tmp_path, maps, f"latents: {name}", LATENTS[name])

"""The bundle: a trained generator on disk, in diffusers layout.

    model_index.json   components, and the fields of `GeneratorConfig`
    image_unet/ mask_unet/ autoencoder/   config.json + safetensors each
    mask_autoencoder/  where label maps go through one of their own
    scheduler/         the forward process
    labels.json        classes and contexts
    settings.yaml      everything it was trained with; its sampling section is the default for sampling
    README.md          the model card

Weights are read from safetensors only; nothing is unpickled (promise 8).
"""

import hashlib
import json
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import diffusers
import torch
from diffusers import DDPMScheduler

from diffgen import appearance, config
from diffgen.appearance import Appearance
from diffgen.errors import UserError, one_line
from diffgen.labels import Labels
from diffgen.models.autoencoder import LatentCodec, LinearAutoencoder, autoencoder_class
from diffgen.models.mask_codec import GreyLatents, LabelBits, MaskCodec
from diffgen.models.unet import ImageUNet, MaskUNet

ModelName = Literal["image", "mask"]
"""Of the two models of a bundle."""
INDEX = "model_index.json"
CARD = "README.md"
PARTS = ("autoencoder", "image_unet", "image_unet_guide", "mask_unet", "mask_autoencoder")
"""Folders with weights; all but the first may be absent."""


@dataclass(frozen=True)
class GeneratorConfig:
    """What sampling must know of a bundle beside its weights."""

    mpp: float
    """µm per image pixel."""
    mask_pixel_um: float
    """µm per mask pixel; a whole multiple of `mpp`."""
    factor: int
    """Image pixels per latent pixel."""
    image_channels: int
    image_patch: int
    """Patch side of the image U-Net in latent pixels."""
    mask_patch: int
    """Patch side of the mask U-Net in its own pixels: mask pixels, or latent pixels of label maps."""
    patch_by_log_snr: tuple[tuple[float | None, int], ...]
    """Patch sides the image U-Net was trained for: (below this log-SNR, side); the last has no bound."""
    conditioning: str
    latents_mean: tuple[float, ...]
    latents_deviation: tuple[float, ...]
    mask_encoding: str = "bits"
    """`bits` or `latents`; what follows is of `latents`."""
    mask_factor: int = 1
    """Mask pixels per pixel of the mask U-Net."""
    mask_channels: int = 0
    """Of the masks' latents; as bits they have as many as the classes need."""
    mask_latents_mean: tuple[float, ...] = ()
    mask_latents_deviation: tuple[float, ...] = ()
    image_contexts: bool = False
    """Whether the image model is conditioned on the context too."""
    appearance: tuple[str, ...] = ()
    """Names of the numbers that an image's appearance has, if it is conditioned on one."""
    reach: int | None = None
    """Latent pixels around a pixel that its decoding depends on, where they are bounded."""

    @property
    def mask_pixel_px(self) -> int:
        """Side of a mask pixel in image pixels."""
        return round(self.mask_pixel_um / self.mpp)

    @property
    def mask_patch_pixels(self) -> int:
        """Patch side of the mask U-Net in mask pixels."""
        return self.mask_patch * self.mask_factor


@dataclass
class Bundle:
    """A bundle in memory; a model that was not trained (yet) is absent."""

    facts: GeneratorConfig
    labels: Labels
    schedule: dict[str, Any]
    codec: LatentCodec
    image_unet: ImageUNet | None = None
    mask_unet: MaskUNet | None = None
    mask_codec: MaskCodec = field(default=None)  # type: ignore[assignment]  # filled in below
    """Label bits, where none is given."""
    appearance: Appearance | None = None
    """What the appearance of an image is drawn from, if the image model is conditioned on one."""
    image_guide: ImageUNet | None = None
    """A worse image U-Net that `auto` guidance leads away from."""

    def __post_init__(self) -> None:
        self.mask_codec = self.mask_codec or LabelBits(len(self.labels))

    @property
    def mask_autoencoder(self) -> Any | None:
        """The label maps' own autoencoder; none where they are bits, or go through the images'."""
        model = self.mask_codec.autoencoder.model if isinstance(self.mask_codec, GreyLatents) else None
        return None if model is self.codec.model else model

    def to(self, device: torch.device | str) -> "Bundle":
        self.codec.to(device)
        self.mask_codec.to(device)
        for unet in (self.image_unet, self.mask_unet, self.image_guide):
            if unet is not None:
                unet.to(device).eval().requires_grad_(False)
        return self


def new_image_unet(settings: config.Settings, labels: Labels) -> ImageUNet:
    """The image U-Net of the settings, with fresh weights."""
    model = settings.image_model
    return ImageUNet(
        channels=settings.autoencoder.channels,
        num_labels=len(labels),
        num_contexts=len(labels.contexts) if "context" in model.conditions else 0,
        appearance=len(appearance.NAMES) if "appearance" in model.conditions else 0,
        label_input=model.label_input,
        learned_weight=settings.diffusion.learned_weight,
        dropout=model.dropout,
        **_shape(model),
    )


def new_mask_unet(settings: config.Settings, labels: Labels, channels: int) -> MaskUNet:
    """The mask U-Net of the settings, with fresh weights, on as many channels as the `MaskCodec` has."""
    return MaskUNet(channels=channels, num_contexts=len(labels.contexts), **_shape(settings.mask_model))


def _shape(unet: config.UNet) -> dict[str, Any]:
    return unet.model_dump(include=set(config.UNet.model_fields))


def generator_config(
    settings: config.Settings, codec: LatentCodec, masks: MaskCodec | None = None
) -> GeneratorConfig:
    """The facts of a bundle trained with these settings; without `masks` label maps are bits."""
    assert isinstance(masks, GreyLatents) == (settings.mask_model.encoding == "latents")
    latents: dict[str, Any] = {}
    if isinstance(masks, GreyLatents):
        latents = {
            "mask_factor": masks.factor,
            "mask_channels": masks.channels,
            "mask_latents_mean": tuple(masks.autoencoder.mean),
            "mask_latents_deviation": tuple(masks.autoencoder.deviation),
        }
    return GeneratorConfig(
        mpp=settings.prepare.mpp,
        mask_pixel_um=settings.mask_model.pixel_um,
        factor=codec.factor,
        image_channels=codec.channels,
        image_patch=settings.image_model.patch,
        mask_patch=settings.mask_model.patch,
        patch_by_log_snr=settings.image_model.sides,
        conditioning=settings.image_model.conditioning,
        latents_mean=tuple(codec.mean),
        latents_deviation=tuple(codec.deviation),
        mask_encoding=settings.mask_model.encoding,
        image_contexts="context" in settings.image_model.conditions,
        appearance=appearance.NAMES if "appearance" in settings.image_model.conditions else (),
        reach=codec.reach,
        **latents,
    )


def save(bundle: Bundle, folder: Path, settings: config.Settings, card: str) -> None:
    """Write a bundle; the index goes last, so that a folder with an index is complete."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / INDEX).unlink(missing_ok=True)
    models = (
        bundle.codec.model, bundle.image_unet, bundle.image_guide, bundle.mask_unet, bundle.mask_autoencoder,
    )  # fmt: skip
    parts = {**dict(zip(PARTS, models, strict=True)), "scheduler": DDPMScheduler.from_config(bundle.schedule)}
    index: dict[str, Any] = {"_class_name": "DiffInfinite", "_diffusers_version": diffusers.__version__}
    for name, part in parts.items():
        if part is not None:
            part.save_pretrained(folder / name)
            _forget_origin(folder / name / "config.json")
            index[name] = [type(part).__module__.split(".")[0], type(part).__name__]
    if bundle.appearance is not None:
        bundle.appearance.save(folder)
    bundle.labels.save(folder / "labels.json")
    (folder / "settings.yaml").write_text(settings.dump(), encoding="utf-8")
    (folder / CARD).write_text(card, encoding="utf-8")
    (folder / INDEX).write_text(json.dumps(index | asdict(bundle.facts), indent=2) + "\n", encoding="utf-8")


def _forget_origin(path: Path) -> None:
    """Take out of a model's config the folder it was read from: no part of what the model is."""
    if path.exists():
        tree = json.loads(path.read_text(encoding="utf-8"))
        tree.pop("_name_or_path", None)
        path.write_text(json.dumps(tree, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def load(folder: Path, weights: bool = True) -> Bundle:
    """Read a bundle. With `weights` false only its facts, labels and schedule are those of the folder.

    Raises `UserError` where the folder is no bundle.
    """
    index = read_index(folder)
    facts = GeneratorConfig(
        **{part.name: _tuples(index[part.name]) for part in fields(GeneratorConfig) if part.name in index}
    )
    labels = Labels.load(folder / "labels.json")
    schedule = dict(DDPMScheduler.load_config(folder / "scheduler"))
    read = {name: _read(index[name][1], folder / name) for name in PARTS if weights and name in index}
    part, own = read.get, read.get("autoencoder")
    blank = LinearAutoencoder(facts.factor, facts.image_channels)
    return Bundle(
        facts, labels, schedule, LatentCodec(own or blank, facts.latents_mean, facts.latents_deviation),
        part("image_unet"), part("mask_unet"), _mask_codec(facts, labels, part("mask_autoencoder") or own),
        Appearance.load(folder), part("image_unet_guide"),
    )  # fmt: skip


def _mask_codec(facts: GeneratorConfig, labels: Labels, model: Any | None) -> MaskCodec:
    """How the label maps are encoded; without a model by a blank one, of the right shape."""
    if facts.mask_encoding == "bits":
        return LabelBits(len(labels))
    model = model or LinearAutoencoder(facts.mask_factor, facts.mask_channels)
    return GreyLatents(LatentCodec(model, facts.mask_latents_mean, facts.mask_latents_deviation), len(labels))


def read_index(folder: Path) -> dict[str, Any]:
    """`model_index.json` of a bundle; `UserError` where there is none or it is of another make."""
    try:
        index: dict[str, Any] = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise UserError(f"{folder} is not a bundle: no readable {INDEX}") from error
    needed = [part.name for part in fields(GeneratorConfig) if part.default is MISSING]
    absent = [name for name in (*needed, "autoencoder") if name not in index]
    if absent:
        raise UserError(f"{folder} is not a bundle of diffgen: {INDEX} lacks {absent[0]!r}")
    return index


def _read(name: str, folder: Path) -> Any:
    unets = {"ImageUNet": ImageUNet, "MaskUNet": MaskUNet}
    make = unets.get(name) or autoencoder_class(name)
    try:
        read = make.from_pretrained(
            folder, use_safetensors=True, low_cpu_mem_usage=False, local_files_only=True
        )
        return read.float()  # a shipped one lies in half precision
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"{folder}: weights cannot be read: {one_line(error)[:200]}") from error


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def files(folder: Path) -> list[Path]:
    """The files of a bundle; whatever else lies in its folder is not part of it."""
    index = read_index(folder)
    parts = [name for name, value in index.items() if isinstance(value, list) and (folder / name).is_dir()]
    inner = [path for part in parts for path in (folder / part).rglob("*") if path.is_file()]
    outer = [folder / name for name in (INDEX, CARD, "labels.json", "settings.yaml", appearance.FILE)]
    return sorted([*inner, *(path for path in outer if path.exists())])


def pack(folder: Path) -> dict[str, bytes]:
    """A bundle's files by their path in it: how it travels to other nodes."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files(folder)}


def unpack(packed: dict[str, bytes], folder: Path) -> Path:
    """Write packed files to a folder, and give the folder."""
    for name, data in packed.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def digest(packed: dict[str, bytes]) -> str:
    """SHA-256 of what a bundle computes: its identity in every sample's provenance.

    Card and settings are left out: what they say of sampling is in the provenance by itself.
    """
    total = hashlib.sha256()
    for name in sorted(packed):
        if name not in {CARD, "settings.yaml"}:
            total.update(f"{name} {hashlib.sha256(packed[name]).hexdigest()}\n".encode())
    return total.hexdigest()

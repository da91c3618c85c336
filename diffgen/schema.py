"""The settings of all but models and training: data, the forward process, sampling, evaluation."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BeforeValidator, ConfigDict, Field, field_validator, model_validator

from diffgen.errors import UserError
from diffgen.schema_downstream import Downstream
from diffgen.schema_training import Positive, SettingsSection, Settled, Share


class Prepare(SettingsSection):
    """Slides and images → training shards."""

    mpp: Annotated[float, Field(gt=0)] = 0.5
    """µm per pixel of the training images."""
    assume_mpp: Annotated[float, Field(gt=0)] | None = None
    """µm per pixel of a source file that does not say its own."""
    mpp_override: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    """Pattern of a source's name or file name → µm per pixel, where the file says it wrong or not at all."""
    icc: bool = True
    """Whether the colours of a file's ICC profile become those of sRGB."""
    labels: Literal["annotated", "masks", "outlines", "stain", "none", "maps"] = "annotated"
    """`annotated`: from masks or outlines, whichever there are; `masks`, `outlines`: from one kind; `stain`:
    weak labels from the stains where there are neither; `maps`: the sources are label maps without images,
    for the mask model alone."""
    annotations: str | None = None
    """Folder of outlines that do not lie beside their slides."""
    classes: dict[int, str] = Field(default_factory=dict)
    """Names of the ids in the masks (0 is always unknown), or of the classes of outlines; names alone are
    numbered from 1."""
    mask_values: dict[int, int] = Field(default_factory=dict)
    """Pixel value in a mask file → class id, where they differ (such as 255 → 1)."""
    mask_colours: dict[str, int] = Field(default_factory=dict)
    """Colour in a mask file (such as "#ff0000") → pixel value."""
    instances: str | None = None
    """Class of all objects of masks that give each object an id of its own."""
    rest: str | None = None
    """Class of what is not annotated; none: unknown."""
    unknown: list[str] = Field(
        default_factory=lambda: ["Ignore*", "Ignore", "Exclude", "Exclusion", "unknown"]
    )
    """Classes of outlines that take what lies below them out of the label map."""
    patients: str | None = None
    """CSV with the column `file` and some of `patient`, `context` and `split` (train, test): a patient is
    never on both sides of the split."""
    contexts: str = "one"
    """Context of a source: `one` for all, `folder` for the name of the folder the file lies in, or the
    path of a CSV with the columns `file` (name or stem) and `context`."""
    stride: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Step between image patches, in units of a stored patch."""
    mask_stride: Annotated[float, Field(gt=0, le=1)] = 0.25
    """Step between mask patches, in units of a mask patch."""
    min_tissue: Share = 0.25
    """Least share of tissue (`maps`: of known pixels) in a patch that is kept."""
    test_share: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    """Share of the sources (or, with few sources, of each source's length) kept for testing."""
    patches_per_shard: Positive = 512

    @field_validator("classes", mode="before")
    @classmethod
    def _numbered(cls, value: Any) -> Any:
        return dict(enumerate(value, start=1)) if isinstance(value, list | tuple) else value


class Diffusion(SettingsSection):
    """The forward process; saved as the bundle's scheduler."""

    steps: Annotated[int, Field(ge=2)] = 1000
    schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "squaredcos_cap_v2"
    prediction: Literal["epsilon", "v_prediction", "sample"] = "epsilon"
    zero_terminal_snr: bool = False
    """Rescale the schedule so that its last step is pure noise (Lin et al., 2024); not with ε."""
    noise_levels: Literal["uniform", "log-normal"] = "uniform"
    """How a training sample's time step is drawn: all alike (Alg. 1, line 3), or ln(σ_t/γ_t) normally, so
    that most lie where structure is decided (Karras et al., 2022, table 1)."""
    learned_weight: bool = False
    """Weigh each noise level by the loss that the network expects there (Karras et al., 2024, eq. 21)."""
    min_snr: Annotated[float, Field(gt=0)] | None = None
    """γ of min-SNR weighting (Hang et al., 2023); None weighs all time steps alike (Alg. 1)."""

    @model_validator(mode="after")
    def _terminal(self) -> Self:
        if self.zero_terminal_snr and self.prediction == "epsilon":
            raise ValueError(
                "diffusion.zero_terminal_snr: at an SNR of 0 an ε says nothing of z_0; "
                "use diffusion.prediction=v_prediction"
            )
        return self


class GuidanceSettings(SettingsSection):
    """How the image model is guided; a number alone is the scale of `label` guidance."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, serialize_by_alias=True)

    kind: Literal["label", "auto"] = "label"
    """`label`: away from the estimate without label map, eq. (2); `auto`: away from that of an earlier, worse
    network in the bundle (`training.image.guide_at`), under the same condition (Karras et al., 2024)."""
    scale: Annotated[float, Field(ge=0)] = 0.0
    """ω; 0: no guidance, and no forwards for it."""
    low: Annotated[float | None, Field(alias="from")] = None
    """Log-SNR from which on steps are guided; none: from pure noise."""
    high: Annotated[float | None, Field(alias="to")] = None
    """Log-SNR up to which they are."""
    rescale: Annotated[Share, Field(exclude_if=lambda share: share == 0)] = 0.0
    """Share of what guidance adds to stains and contrast that is taken back (Lin et al., 2024). Left out of
    records where it is 0, as before there was such a setting."""

    @model_validator(mode="before")
    @classmethod
    def _number(cls, value: Any) -> Any:
        return {"scale": value} if isinstance(value, int | float) else value

    @model_validator(mode="after")
    def _interval(self) -> Self:
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"sampling.guidance: from {self.low:g} lies above to {self.high:g}")
        return self


CPU_BATCH, GPU_BATCH = 8, 64


class Sampling(SettingsSection):
    """What shapes a sample, beside bundle, seed, index and size."""

    solver: Literal["dpmsolver++", "sde-dpmsolver++", "unipc", "euler", "ddim"] = "dpmsolver++"
    spacing: Literal["log-snr", "time"] = "log-snr"
    """What the steps are even in (DDIM: always time)."""
    steps: Annotated[int, Field(ge=2)] | None = None
    """None: 13 where the bundle's U-Net knows wide patches (`patch_by_log_snr`), else 16."""
    eta: Share = 0.0
    """Share of the noise that DDIM draws anew in each step (the paper's code: 1)."""
    guidance: GuidanceSettings = GuidanceSettings()
    """Of the image model."""
    cover: Literal["jittered", "random", "aligned", "multidiffusion", "diffcollage", "outpaint"] = "jittered"
    """How a step's patches are laid and weighed: `diffgen.sampling.covers` has one function for each."""
    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.125
    """Least overlap of neighbouring patches (jittered, multidiffusion), in patch sides."""
    noisy_overlap: Annotated[float, Field(ge=0, lt=1)] = 0.375
    """The same at high noise (log-SNR below −2), where large structure is decided; outpaint: always."""
    mask_steps: Annotated[int, Field(ge=2)] = 20
    mask_guidance: Annotated[float, Field(ge=0)] = 0.0
    """ω of eq. (2) for the mask model."""
    min_region_um2: Annotated[float, Field(ge=0)] = 500.0
    """Smaller regions of a sampled mask are given to their neighbours, in µm²."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of the U-Nets: `bf16` by autocast, with channels last; `auto`: that on a GPU, fp32 on a CPU."""
    micro_batch: Positive | None = None
    """Patches per forward; the last batch is padded, so that a result never depends on its companions.
    None: 8 on a CPU, 64 on a GPU."""
    compile: bool = False
    """`torch.compile` the U-Nets; on a GPU as CUDA graphs, which the fixed size of a forward allows."""
    threads: Annotated[int, Settled] = 1
    """CPU threads per sampler (bytes depend on it)."""
    decode_tile: Positive = 96
    """Side of a decoded tile, in latent pixels."""
    decode_overlap: Annotated[float, Field(ge=0, le=0.5)] = 0.125

    @model_validator(mode="after")
    def _eta(self) -> Self:
        if self.eta and self.solver != "ddim":
            raise ValueError(f"sampling.eta {self.eta} needs sampling.solver=ddim, not {self.solver!r}")
        return self

    def on(self, gpu: bool) -> Self:
        """With what is left to the device settled."""
        precision = ("bf16" if gpu else "fp32") if self.precision == "auto" else self.precision
        micro_batch = self.micro_batch or (GPU_BATCH if gpu else CPU_BATCH)
        return self.model_copy(update={"precision": precision, "micro_batch": micro_batch})

    @property
    def batch(self) -> int:
        """Patches per forward of what `on` returned."""
        assert self.micro_batch is not None, "settled by `on`"
        return self.micro_batch

    def steps_for(self, sides: int) -> int:
        """Steps of an image model that was trained on so many patch sides (benchmarks/gaussian_field.py)."""
        return self.steps or (13 if sides > 1 else 16)


def parse_size(text: str) -> tuple[int, int]:
    """`512` or `1024x512` (width × height) → (height, width) in pixels; `UserError` otherwise."""
    parts = str(text).lower().replace("×", "x").split("x")
    if len(parts) > 2 or not all(
        part.strip().isascii() and part.strip().isdecimal() and int(part) > 0 for part in parts
    ):
        raise UserError(f"size {text!r}: expected S or WxH in pixels, such as 2048 or 2048x1024")
    return int(parts[-1]), int(parts[0])


def check_sides(sides: Sequence[int], factor: int, patch: int, what: str) -> None:
    """`UserError` unless sides in pixels are multiples of the autoencoder's factor, from one patch up."""
    for side in sides:
        if side % factor or side < patch * factor:
            raise UserError(
                f"{what}: sides must be multiples of {factor} from {patch * factor} pixels up, not {side}"
            )


class Synthesis(SettingsSection):
    n: Positive = 4
    size: Annotated[str, BeforeValidator(str)] = "512"
    """Side of the images in pixels, `S` or `WxH`."""
    region: str | None = None
    """`X,Y,W,H` in pixels: only this part of each image, with the bytes that it has in the whole."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    context: str | None = None
    """Context of all images; by default drawn by its share in the data."""
    mask_classes: dict[int | str, int | str] = Field(default_factory=dict)
    """Value or colour in the label maps of `--masks` → class of the bundle (name or id), where they are of
    another data set; values that are not listed are unknown."""
    mask_mpp: Annotated[float, Field(gt=0)] | None = None
    """µm per pixel of the label maps of `--masks`, where it is not the bundle's."""
    emit: Literal["images", "tiles"] = "images"
    """Whole images, or tiles of them, each with its place and parent."""
    tile: Positive = 512
    """Side of an emitted tile in pixels; divides the image's."""
    images_per_shard: Positive | Literal["auto"] = "auto"
    """Samples (images or tiles) a shard; `auto`: as many as make eight shards, 64 at most, and in a folder
    that has shards as many as those have."""
    samplers: Positive | Literal["auto"] = "auto"
    """Sampler actors; `auto`: one a GPU or, where there is none, as many as the cores have threads for.
    A cluster that scales is asked for as many as a number says, and by `auto` for one."""
    gpu: Annotated[bool | None, Settled] = None
    in_flight: Positive = 32
    """Images a coordinator works on at most, if it takes so many to keep all samplers busy."""
    lease: Positive = 64
    """Forwards a sampler takes at a time."""
    snapshot_s: Annotated[float, Field(ge=0)] = 300.0
    """An image that has been in the works for so long is saved between two steps, again and again."""
    lease_timeout_s: Annotated[float, Field(gt=0)] = 600.0
    """A lease that is older is handed out again."""
    mix_devices: bool = False
    """Go on in a folder whose samples are of another kind of device, precision or version of torch."""
    gpu_tflops: Annotated[float | None, Field(gt=0)] = None
    """10¹² FLOP/s that a GPU achieves, not its peak: `--dry-run` says GPU-hours by it where no GPU is."""


Topic = Literal["fidelity", "privacy", "labels", "large", "downstream", "baselines"]
Method = Literal["jittered", "random", "diffcollage", "multidiffusion", "outpaint"]


class Evaluation(SettingsSection):
    """What is measured of synthetic images, and how."""

    parts: tuple[Topic, ...] = get_args(Topic)[:-1]
    """Questions that are asked; the report names those left out. `methods` is what `--paper` adds."""
    side: Positive | None = None
    """Side in pixels of the square regions that are compared; None: the largest that both sets have, 512 at
    most."""
    samples: Annotated[int, Field(ge=20)] = 2000
    """Regions of each set at most; sets are cut to one size, as the figures depend on it."""
    training_samples: Annotated[int, Field(ge=20)] = 20000
    """Regions of the training set at most that copies are looked for in."""
    copy_samples: Annotated[int, Field(ge=20)] = 10000
    """Synthetic regions at most that are looked at for copies."""
    patch_px: Positive | None = None
    """Side in pixels of the patches that images were made of, where the set does not say it."""
    backbone: str = "efficientnet-lite0"
    """Network of the features: `efficientnet-lite0` (comes with diffgen), `efficientnet-lite2`,
    `inception-v3`, `vgg16`, `dinov2`, or a vision model of the Hugging Face Hub by its id or folder."""
    jpeg: Annotated[int, Field(ge=1, le=100)] | None = None
    """Quality of the JPEG that all pictures go through first, where real ones have been through it."""
    bootstrap: Annotated[int, Field(ge=100)] = 400
    """Draws that an interval comes from."""
    downstream: Downstream = Downstream()
    baselines: tuple[Method, ...] = get_args(Method)
    """Ways to draw large images that `--paper` compares, by their `sampling.cover`."""
    baseline_images: Positive = 24
    """Images of each of them."""
    baseline_side: Positive | None = None
    """Their side in pixels; None: four patches."""
    squares: tuple[Positive, ...] = ()
    """Sides in pixels of the images under nested squares (Fig. 7); none: 1, 2 and 4 patches."""
    images: Positive = 200
    """Images that are sampled where a bundle is evaluated."""
    assume_mpp: Annotated[float, Field(gt=0)] | None = None
    """µm per pixel of sets that do not say their own."""
    threads: Annotated[int, Settled] = 1
    """CPU cores per actor that computes features or trains."""
    gpu: Annotated[bool, Settled] = False
    """One GPU for each of them."""


class Places(SettingsSection):
    """Where commands look when they are not told (see also `.diffgen.json`, the last ones used)."""

    data: str = "data"
    runs: str = "runs"
    """A folder that all nodes see, or a URL."""
    run: str = "default"
    out: str = "out"
    report: str = "report"
    """Folder of an evaluation: report, figures, and what is kept of the work."""

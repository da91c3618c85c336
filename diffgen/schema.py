"""The settings of all commands, as one typed tree, with the reason or unit of each.

Unknown keys and combinations that cannot work are refused here; `config` puts a tree together.
"""

from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]


class SettingsSection(BaseModel):
    """A branch of the tree: unknown keys are errors, values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Prepare(SettingsSection):
    """Slides and images → training shards."""

    mpp: Annotated[float, Field(gt=0)] = 0.5
    """µm per pixel of the training images."""
    assume_mpp: Annotated[float, Field(gt=0)] | None = None
    """µm per pixel of a source file that does not say its own."""
    labels: Literal["masks", "stain", "none", "maps"] = "masks"
    """`masks`: from `<stem>_mask.png`; `stain`: weak labels from the stains where there is no mask; `maps`:
    the sources are label maps without images, for the mask model alone."""
    classes: dict[int, str] = {}
    """Names of the ids in the masks (0 is always unknown)."""
    mask_values: dict[int, int] = {}
    """Pixel value in a mask file → class id, where they differ (such as 255 → 1)."""
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


class Autoencoder(SettingsSection):
    """Image ↔ latents. `factor` and `channels` are checked against the weights."""

    kind: Literal["linear", "conv", "kl", "tiny"] = "linear"
    source: str | None = None
    """Hub id or folder of a diffusers autoencoder (`kl`, `tiny`), or folder of one of ours (`conv`)."""
    subfolder: str | None = None
    factor: Positive = 4
    """Image pixels per latent pixel, along a side."""
    channels: Positive = 12
    standardize: bool = True
    """Bring the latents to mean 0, deviation 1 a channel by what is measured on the data."""
    latents: Literal["live", "stored"] = "live"
    """`live`: training encodes what it crops; `stored`: `diffgen encode` (or the start of training) does
    it once. Encoding a crop and cropping what was encoded differ at the crop's border."""
    dihedral: Literal[1, 8] = 8
    """Variants a stored patch is encoded in: flips and turns do not commute with an autoencoder."""
    sample: bool = False
    """Draw training latents from the autoencoder's distribution instead of taking its mode."""

    @model_validator(mode="after")
    def _source(self) -> Self:
        if self.kind in {"kl", "tiny"} and not self.source:
            raise ValueError(f"autoencoder.kind {self.kind!r} needs autoencoder.source, a hub id or a folder")
        if self.kind == "linear" and self.channels > 3 * self.factor**2:
            raise ValueError(
                f"autoencoder.channels {self.channels}: a block of {self.factor}² RGB pixels "
                f"has at most {3 * self.factor**2}"
            )
        return self


class UNet(SettingsSection):
    """What both U-Nets have in common (paper, Table 6)."""

    patch: Positive = 32
    """Side of the patches it is trained on, in its own pixels."""
    width: Positive = 32
    multipliers: tuple[Positive, ...] = (1, 2, 4)
    blocks: Positive = 2
    """ResNet blocks a level."""
    attention: tuple[Positive, ...] = (16, 8)
    """Sides of the feature maps of a patch that get an attention layer."""
    heads: Positive = 4
    head_channels: Positive = 32

    @property
    def down(self) -> int:
        """Its feature maps shrink by this factor in all; a patch's side is a multiple of it."""
        return int(2 ** (len(self.multipliers) - 1))

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.patch % self.down:
            raise ValueError(
                f"patch {self.patch} must be a multiple of {self.down} "
                f"with {len(self.multipliers)} multipliers"
            )
        if self.width % 4:
            raise ValueError(f"width {self.width} must be a multiple of 4")
        sides = [self.patch >> level for level in range(len(self.multipliers))]
        for side in self.attention:
            if side not in sides:
                raise ValueError(f"attention {side}: the feature maps of a patch have sides {sides}")
        return self


class ImageModel(UNet):
    conditioning: Literal["per_label", "joint"] = "per_label"
    """`per_label`: one forward per label (paper); `joint`: one forward, each pixel with its own label."""
    context: Literal["fixed", "wide"] = "fixed"
    """`wide`: at high noise, where large structure is decided, most crops are twice as wide."""
    wide_below: float = -2.0
    """log-SNR below which crops may be wide."""
    p_wide: Share = 0.75
    """Probability of a wide crop there; the others keep small canvases in distribution."""
    small_patch: Positive | None = None
    """Side of smaller, cheaper crops that some samples are (Patch Diffusion, 2023)."""
    p_small: Share = 0.33
    """Share of the samples that are such."""
    conditions: tuple[Literal["context", "appearance"], ...] = ()
    """What a whole image is conditioned on, beside its label map: the context of its source (organ, kind of
    lesion), and the strength and spread of its stains (`diffgen.appearance`)."""
    label_input: bool = False
    """Give the label map to the first convolution too, on the full latent grid: borders come sooner."""
    dropout: Share = 0.0
    """In the ResNet blocks; where data is small and training long."""

    @property
    def sides(self) -> tuple[tuple[float | None, int], ...]:
        """Patch sides by noise, as a bundle says them (`patch_by_log_snr`)."""
        base = ((None, self.patch),)
        return base if self.context == "fixed" else ((self.wide_below, 2 * self.patch), *base)

    @model_validator(mode="after")
    def _small(self) -> Self:
        if self.small_patch is not None and (self.small_patch % self.down or self.small_patch >= self.patch):
            raise ValueError(
                f"image_model.small_patch {self.small_patch} must be a multiple of {self.down} "
                f"below image_model.patch {self.patch}"
            )
        return self


class MaskModel(UNet):
    pixel_um: Annotated[float, Field(gt=0)] = 8.0
    """Side of a mask pixel in µm."""
    encoding: Literal["bits", "latents"] = "bits"
    """`bits`: class ids as analog bits; `latents`: a grey image through an autoencoder (paper)."""
    factor: Positive = 8
    """Mask pixels per latent pixel, along a side (`latents`; `patch` is then in latent pixels)."""
    channels: Positive = 4
    """Of the mask's latents (`latents`)."""

    @property
    def patch_pixels(self) -> int:
        """Side of a patch in mask pixels."""
        return self.patch * (self.factor if self.encoding == "latents" else 1)


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
    noise_mean: float = 0.3
    """Mean of ln(σ_t/γ_t): −0.4 of Karras et al. (2024), whose data has deviation 1/2, ours 1."""
    noise_deviation: Annotated[float, Field(gt=0)] = 1.0
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


class Optimization(SettingsSection):
    """Training of one model: steps, optimiser, checkpoints."""

    steps: Positive = 1000
    batch: Positive = 16
    """Patches per step, over all workers."""
    lr: Annotated[float, Field(gt=0)] = 1e-3
    """Peak of the OneCycle schedule."""
    warmup: Share = 0.1
    """Share of the steps in which the rate rises."""
    optimizer: Literal["adam", "adamw"] = "adamw"
    betas: tuple[Share, Share] = (0.9, 0.99)
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    ema: Share = 0.995
    """Largest decay of the moving average of the weights."""
    ema_every: Positive = 1
    """Steps between its updates."""
    ema_length: Annotated[float, Field(gt=0, lt=0.25)] | None = None
    """Relative width σ_rel of a power-function average instead (Karras et al., 2024, eq. 127): no `ema`."""
    clip: Annotated[float, Field(gt=0)] = 1.0
    """Largest gradient norm."""
    micro_batch: Positive | None = None
    """Patches a worker takes forward and back at a time, a wide one counting as four; None: its whole
    share of the batch. The gradient is that of the batch, whatever the micro-batch and the workers."""
    checkpoint_every: Positive = 1000
    keep_history: bool = False
    """Keep the averaged weights of every checkpoint (`history/`), to see how a model came to be."""
    sample_every: Positive = 1000
    """Steps between grids of samples in TensorBoard."""


class ModelTraining(Optimization):
    """Training of one of the two diffusion models."""

    p_conditional: Share = 0.5
    """Probability that a sample is drawn from the labelled data, with its label; else its label is ∅.

    The text of the paper calls p_unc the probability of the unconditional step; its eq. (9) and its
    code make it that of the conditional one. At the paper's 0.5 both agree."""
    p_drop: Share = 0.1
    """Probability that a sample's context is ∅, and, by a draw of its own, that its appearance is."""
    guide_at: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of the steps taken, near which averaged weights go into the bundle as the worse network of `auto`
    guidance (image model; needs `keep_history`, and a checkpoint before the last step)."""
    balance: Literal["class", "area"] = "class"
    """What is drawn for a conditional sample of the image model: `class`, a class, then a patch that has
    it, however rare; `area`, a pixel of the labelled data, and its class."""


class AutoencoderTraining(Optimization):
    """Training of the autoencoder of `autoencoder.kind` `conv`."""

    steps: Positive = 20000
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    crop: Positive = 96
    """Side in pixels of the random crops it is trained on."""
    widths: tuple[Positive, ...] = (64, 112)
    """Channels at a quarter of the side, and at each half of that down to the latents'."""
    encoder_blocks: tuple[Positive, ...] = (2, 2)
    decoder_blocks: tuple[Positive, ...] = (3, 3)
    """Residual blocks at each width."""
    latent_noise: Annotated[float, Field(ge=0)] = 0.3
    """Most noise on the latents that are decoded, in their deviations: what a denoiser draws is not exact."""
    latent_weight: Annotated[float, Field(ge=0)] = 1e-4
    """Of the latents' mean square, which keeps them near unit scale."""
    coarse_weight: Annotated[float, Field(ge=0)] = 0.1
    """Of what means of 2 × 2 latents decode to, against the image at half the side: it makes latents smooth,
    and smooth latents are easier to draw (Skorokhodov et al., 2025)."""
    feature_weight: Annotated[float, Field(ge=0)] = 0.0
    """Of the distance in the first features of EfficientNet-lite0, for texture; a network that judges the
    images later had better not teach them."""
    critic_weight: Annotated[float, Field(ge=0)] = 0.1
    """Of how well a critic that is trained beside it tells real from decoded, for texture; 0: no critic."""
    texture_from: Share = 0.3
    """Share of the steps after which features and critic count."""
    decoder_only: bool = False
    """Start from the weights of `autoencoder.source` and leave its encoder alone: latents stay what they are,
    and image models that were trained on them can be decoded by what comes out."""

    @model_validator(mode="after")
    def _levels(self) -> Self:
        if not len(self.widths) == len(self.encoder_blocks) == len(self.decoder_blocks):
            raise ValueError("training.autoencoder: widths, encoder_blocks, decoder_blocks have one length")
        return self


class Training(SettingsSection):
    workers: Positive | tuple[Positive, Positive] = 1
    """DDP workers; `[least, most]`: as many as the cluster has, more or fewer as it changes."""
    threads: Positive = 2
    """CPU cores per worker."""
    gpu: bool = False
    """One GPU per worker (then NCCL, else gloo)."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """`bf16`: autocast; weights, optimiser and average stay fp32."""
    compile: bool = False
    """`torch.compile` the U-Net."""
    channels_last: bool = False
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass: less memory, a third more time."""
    readers: Annotated[int, Field(ge=0)] = 1
    """Threads per worker that read batches ahead; 0 reads each when it is needed."""
    keep_checkpoints: Positive = 2
    """Last checkpoints that are kept; the one of least held-out loss is kept beside them."""
    cache_mb: Annotated[int, Field(ge=0)] = 512
    """Decoded patches a worker keeps in memory."""
    max_failures: Annotated[int, Field(ge=0)] = 3
    """Lost workers after which training resumes from its last checkpoint, before it gives up."""
    max_seconds: Annotated[float, Field(gt=0)] | None = None
    """Seconds after which the training of a model ends by itself, resumptions added up, its learning rate
    decayed to zero; the last samples and checkpoint come after them."""
    resident: bool = False
    """Keep all stored latents of the run on the worker's device, instead of reading crops from its disk."""
    log_every: Positive = 10
    """Steps that one entry of the logs is the mean of."""
    spike: Annotated[float, Field(gt=1)] = 10.0
    """Training stops where the loss of 20 steps is so many times that of the 100 before them."""
    image: ModelTraining = ModelTraining()
    mask: ModelTraining = ModelTraining()
    autoencoder: AutoencoderTraining = AutoencoderTraining()

    @property
    def worker_range(self) -> tuple[int, int]:
        """Fewest and most workers."""
        return self.workers if isinstance(self.workers, tuple) else (self.workers, self.workers)

    @model_validator(mode="after")
    def _shares(self) -> Self:
        least, most = self.worker_range
        if least > most:
            raise ValueError(f"training.workers [{least}, {most}]: the least comes first")
        parts: tuple[tuple[str, Optimization], ...] = (("image", self.image), ("mask", self.mask))
        for name, part in (*parts, ("autoencoder", self.autoencoder)):
            if part.batch < most:
                raise ValueError(f"training.{name}.batch {part.batch} is less than training.workers {most}")
        return self

    @model_validator(mode="after")
    def _guide(self) -> Self:
        if self.mask.guide_at is not None:
            raise ValueError("training.mask.guide_at: only the image model is guided by a worse network")
        image = self.image
        if image.guide_at is not None and not (image.keep_history and image.checkpoint_every < image.steps):
            raise ValueError(
                "training.image.guide_at needs keep_history and a checkpoint before the last step"
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
    threads: Positive = 1
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


class Synthesis(SettingsSection):
    n: Positive = 4
    size: Annotated[str, BeforeValidator(str)] = "512"
    """Side of the images in pixels, `S` or `WxH`."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    context: str | None = None
    """Context of all images; by default drawn by its share in the data."""
    emit: Literal["images", "tiles"] = "images"
    """Whole images, or tiles of them, each with its place and parent."""
    tile: Positive = 512
    """Side of an emitted tile in pixels; divides the image's."""
    images_per_shard: Positive = 64
    """Samples (images or tiles) a shard."""
    samplers: Positive | Literal["auto"] = "auto"
    """Sampler actors; `auto`: one a GPU or, where there is none, as many as the cores have threads for.
    A cluster that scales is asked for as many as a number says, and by `auto` for one."""
    gpu: bool | None = None
    """Sample on GPUs: none: where there is one; true: a cluster that scales from zero is asked for one."""
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


Topic = Literal["fidelity", "privacy", "labels", "large", "downstream", "baselines"]
Method = Literal["jittered", "random", "diffcollage", "multidiffusion", "outpaint"]


class Downstream(SettingsSection):
    """Small networks trained on real images, synthetic ones or both, tested on real ones (Section 5.3)."""

    tasks: tuple[Literal["classification", "segmentation"], ...] = ("classification", "segmentation")
    positive: str | None = None
    """Class that classification looks for (paper: carcinoma); None leaves classification out."""
    positive_share: Share = 0.0005
    """A region is positive if at least so much of it is of that class (paper: 0.05 %)."""
    real_images: tuple[Positive, ...] = ()
    """Train on so few real images, too (slides, files), beside all there are."""
    seeds: Annotated[int, Field(ge=3)] = 3
    """Networks of each kind; figures are their mean and deviation."""
    side: Annotated[int, Field(ge=16)] = 128
    """Side of the regions that are learned and judged, in pixels."""
    steps: Annotated[int, Field(ge=10)] = 500
    """The same for all that a network is trained on, however many images these are."""
    batch: Annotated[int, Field(ge=4, multiple_of=4)] = 8
    """Regions per step; trained on both, half of them are real."""
    lr: Annotated[float, Field(gt=0)] = 3e-3
    """Peak of the OneCycle schedule."""
    width: Annotated[int, Field(ge=4)] = 16
    """Channels of the networks' first layer."""


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
    patch_px: Positive | None = None
    """Side in pixels of the patches that images were made of, where the set does not say it."""
    backbone: str = "efficientnet-lite0"
    """Network of the features: `efficientnet-lite0` (comes with diffgen), `efficientnet-lite2`,
    `inception-v3`, `vgg16`, `dinov2`, or a vision model of the Hugging Face Hub by its id or folder."""
    jpeg: Annotated[int, Field(ge=1, le=100)] | None = None
    """Quality of the JPEG that all pictures go through first, where real ones have been through it."""
    k: Positive = 3
    """Neighbours that make a ball of precision, recall, density and coverage."""
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
    threads: Positive = 1
    """CPU cores an actor that computes features or trains."""
    gpu: bool = False
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


class Settings(SettingsSection):
    """The whole tree."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    places: Places = Places()
    prepare: Prepare = Prepare()
    autoencoder: Autoencoder = Autoencoder()
    image_model: ImageModel = ImageModel()
    mask_model: MaskModel = MaskModel()
    diffusion: Diffusion = Diffusion()
    training: Training = Training()
    sampling: Sampling = Sampling()
    synthesis: Synthesis = Synthesis()
    evaluation: Evaluation = Evaluation()

    @property
    def image_patch_px(self) -> int:
        """Side of the image U-Net's base patch in image pixels; a wide one fills a stored patch."""
        return self.image_model.patch * self.autoencoder.factor

    @property
    def widest_patch_px(self) -> int:
        """Side in image pixels of the largest crop that the image U-Net is trained on."""
        return max(side for _, side in self.image_model.sides) * self.autoencoder.factor

    @property
    def mask_pixel_px(self) -> int:
        """Side of a mask pixel in image pixels."""
        return round(self.mask_model.pixel_um / self.prepare.mpp)

    @model_validator(mode="after")
    def _resident(self) -> Self:
        if self.training.resident and self.autoencoder.latents != "stored":
            raise ValueError("training.resident needs autoencoder.latents stored")
        return self

    @model_validator(mode="after")
    def _scales(self) -> Self:
        ratio = self.mask_model.pixel_um / self.prepare.mpp
        if ratio < 1 or abs(ratio - round(ratio)) > 1e-6:
            raise ValueError(
                f"mask_model.pixel_um {self.mask_model.pixel_um} must be a whole multiple "
                f"of prepare.mpp {self.prepare.mpp}"
            )
        return self

    def dump(self) -> str:
        """The tree as YAML, as it is saved with every run."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)

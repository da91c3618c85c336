"""The settings of models and their training."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]
Settled = Field(exclude=True)
"""Of what is no key of the tree: `Settings.on` settles it, by the machine."""


class SettingsSection(BaseModel):
    """A branch of the tree: unknown keys are errors, values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


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
    discriminative: Annotated[float | None, Field(gt=0, exclude_if=lambda scale: scale is None)] = None
    """Instead of training on: fine-tune the network of `--init-from` by telling real samples from its own
    (`diffgen.training.discriminative`). The scale β of the log-likelihood ratio; larger stays nearer."""
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
    threads: Annotated[int, Settled] = 2
    """CPU cores per worker."""
    gpu: Annotated[bool, Settled] = False
    """One GPU per worker (then NCCL, else gloo)."""
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    """`bf16`: autocast; weights, optimiser and average stay fp32. `auto`: where the device computes in it."""
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

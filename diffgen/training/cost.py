"""What a training takes: parameters, FLOPs and memory.

All is counted on the meta device, where tensors have shapes and no memory, on the very
U-Net that is trained. FLOPs are those of forward and backward of the model, both counted; what gradient
checkpointing computes twice is not among them, as in a model's share of peak it must not be.

At the paper's widths our U-Nets have more parameters than the paper's code, in millions:

|                               | image, ours | paper's | mask, ours | paper's |
|-------------------------------|-------------|---------|------------|---------|
| convolutions of ResNet blocks |       198.6 |   120.6 |       50.1 |    29.6 |
| their scale and shift         |        22.6 |    32.5 |        3.0 |     4.1 |
| attention                     |         3.9 |     2.0 |        0.8 |     1.0 |
| down- and upsampling          |        14.7 |    14.4 |        3.9 |     3.5 |
| embeddings, first, last       |         1.3 |     2.7 |        0.1 |     0.2 |
| together                      |       241.1 |   172.1 |       57.8 |    38.4 |

Three reasons. A level's blocks have its own width on the way down (256, 512, 1024) and the paper's that
of the level above (256, 256, 512), widened by the downsampling after them. On the way up there are three
blocks a level, one for each skip, against two and one more at the end. And attention follows each block
(of the mask model at two levels of four), not each level. The other way round, the paper's code hands each
block the embeddings of time and label side by side, ours their sum.
"""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import torch
from diffusers import DDPMScheduler
from torch.utils.flop_counter import FlopCounterMode

from diffgen import config
from diffgen.labels import Labels
from diffgen.models import bundle
from diffgen.models.autoencoder import BATCH_PIXELS, ENCODER_BYTES_PER_PIXEL
from diffgen.models.bundle import ModelName
from diffgen.models.mask_codec import num_bits
from diffgen.models.unet import ImageUNet, MaskUNet
from diffgen.sampling.solvers import log_snr
from diffgen.training.memory import activation_bytes, example

STATE_BYTES = 4 + 4 + 8 + 4  # a parameter: itself, its gradient, Adam's two moments, the average
BUCKET_BYTES = 4  # DDP's copy of a gradient


@dataclass(frozen=True)
class Cost:
    """What training one model takes."""

    parameters: int
    flops_per_patch: float
    """Forward and backward of one base patch."""
    wide_share: float
    """Share of the samples that are twice as wide, and cost four times as much."""
    small_saving: float
    """Share of the cost that smaller samples save."""
    batch: int
    steps: int
    workers: int
    micro_batch: int
    """Base patches a worker takes at a time."""
    state_bytes: int
    """A worker's weights, gradients, moments and averaged weights."""
    activation_bytes: int
    """What one micro-batch keeps for its backward pass."""
    encoder_bytes: int
    """Activations of the autoencoder, where it works while the U-Net is trained."""

    @property
    def flops_per_sample(self) -> float:
        """Of a mean sample, wide and small ones among them."""
        return self.flops_per_patch * (1 + 3 * self.wide_share - self.small_saving)

    @property
    def flops_per_step(self) -> float:
        """Of all workers together."""
        return self.flops_per_sample * self.batch

    @property
    def flops(self) -> float:
        """Of the whole training."""
        return self.flops_per_step * self.steps

    @property
    def memory_bytes(self) -> int:
        """A worker's, without what CUDA, cuDNN's workspaces and the allocator's gaps take."""
        return self.state_bytes + self.activation_bytes + self.encoder_bytes

    def seconds(self, flops_per_second: float) -> float:
        """Of the whole training, where each worker reaches so many of these FLOPs per second."""
        return self.flops / (flops_per_second * self.workers)


def measure(part: ModelName, settings: config.Settings, labels: Labels) -> Cost:
    """Count what training a model takes; of `training.workers` [least, most], with the least."""
    training, of_part = settings.training, part_of(part, settings)
    workers = training.worker_range[0]
    wide = wide_share(settings) if part == "image" else 0.0
    with torch.device("meta"):
        unet = unet_of(part, settings, labels)
    parameters = sum(p.numel() for p in unet.parameters())
    a_share = -(-of_part.batch // workers)
    micro_batch = min(of_part.micro_batch or a_share, a_share)
    if wide:  # a micro-batch holds at least one wide patch; without a bound, all of a step's, or all others
        whole = max(a_share, round(4 * wide * a_share))
        micro_batch = max(4, min(of_part.micro_batch or whole, whole))
    flops = _flops(unet)
    unet.trunk.checkpointing = training.gradient_checkpointing
    return Cost(
        parameters=parameters,
        flops_per_patch=flops,
        wide_share=wide,
        small_saving=small_saving(settings) if part == "image" else 0.0,
        batch=of_part.batch,
        steps=of_part.steps,
        workers=workers,
        micro_batch=micro_batch,
        state_bytes=parameters * (STATE_BYTES + (BUCKET_BYTES if workers > 1 else 0)),
        activation_bytes=activation_bytes(unet, micro_batch, training.precision == "bf16"),
        encoder_bytes=_encoder_bytes(settings, micro_batch) if part == "image" else 0,
    )


def _encoder_bytes(settings: config.Settings, micro_batch: int) -> int:
    """Activations of an autoencoder that works while the U-Net is trained."""
    if settings.autoencoder.latents == "stored" or settings.autoencoder.kind == "linear":
        return 0
    at_once = BATCH_PIXELS["cuda" if settings.training.gpu else "cpu"]
    return ENCODER_BYTES_PER_PIXEL * min(at_once, micro_batch * settings.image_patch_px**2)


def flops_per_step(part: ModelName, settings: config.Settings, labels: Labels) -> float:
    """Forward and backward of a whole batch, over all workers."""
    with torch.device("meta"):
        flops = _flops(unet_of(part, settings, labels))
    image = part == "image"
    mean = 1 + 3 * wide_share(settings) - small_saving(settings) if image else 1.0
    return flops * mean * part_of(part, settings).batch


def wide_share(settings: config.Settings) -> float:
    """Share of the training samples of the image model that are twice as wide."""
    return _noisy_share(settings) * settings.image_model.p_wide


def small_saving(settings: config.Settings) -> float:
    """Share of the cost that the smaller samples of the image model save."""
    model = settings.image_model
    if model.small_patch is None:
        return 0.0
    return (1 - _noisy_share(settings)) * model.p_small * (1 - (model.small_patch / model.patch) ** 2)


def _noisy_share(settings: config.Settings) -> float:
    """Share of the samples whose noise is such that they may be wide."""
    model, diffusion = settings.image_model, settings.diffusion
    if model.context == "fixed":
        return 0.0
    if diffusion.noise_levels == "log-normal":  # ln(σ/γ) is minus half the log-SNR
        return 1 - NormalDist(diffusion.noise_mean, diffusion.noise_deviation).cdf(-model.wide_below / 2)
    schedule = DDPMScheduler(
        diffusion.steps, beta_schedule=diffusion.schedule, rescale_betas_zero_snr=diffusion.zero_terminal_snr
    )
    with np.errstate(divide="ignore"):  # at zero SNR
        noisy = log_snr(schedule.alphas_cumprod.numpy()) < model.wide_below
    return float(noisy.mean())


def part_of(part: ModelName, settings: config.Settings) -> config.ModelTraining:
    return settings.training.image if part == "image" else settings.training.mask


def unet_of(part: ModelName, settings: config.Settings, labels: Labels) -> ImageUNet | MaskUNet:
    if part == "image":
        return bundle.new_image_unet(settings, labels)
    masks = settings.mask_model
    channels = masks.channels if masks.encoding == "latents" else num_bits(len(labels))
    return bundle.new_mask_unet(settings, labels, channels)


def _flops(unet: ImageUNet | MaskUNet) -> float:
    """Forward and backward of one base patch, by a U-Net on the meta device."""
    with FlopCounterMode(display=False) as counter:
        unet(*example(unet, 1, torch.device("meta"))).sum().backward()
    return float(counter.get_total_flops())

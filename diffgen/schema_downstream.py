"""The settings of what synthetic images are put to: small networks, and the filter before them."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from diffgen.schema_training import Positive, SettingsSection, Share

Check = Literal["agreement", "copies", "density", "duplicates"]


class Downstream(SettingsSection):
    """Small networks trained on real images, synthetic ones or both, tested on real ones (Section 5.3)."""

    tasks: tuple[Literal["classification", "segmentation"], ...] = ("classification", "segmentation")
    positive: str | None = None
    """Class that classification looks for (paper: carcinoma); None leaves classification out."""
    positive_share: Share = 0.0005
    """A region is positive if at least so much of it is of that class (paper: 0.05 %)."""
    groups: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Name → classes that count as one of this name (such as all kinds of glands)."""
    contexts: tuple[str, ...] = ()
    """Real images of these contexts (organs, say) alone, to learn from and to be tested on; synthetic ones of
    all. None: of all."""
    real_images: tuple[Positive, ...] = ()
    """Train on so few real images, too (slides, files), beside all there are."""
    all_images: bool = True
    """Whether all arms are trained on all real images, too; if not, `real` alone is."""
    arms: tuple[Literal["real", "synthetic", "both", "pretrained"], ...] = ("real", "synthetic", "both")
    """What is learned from. `pretrained`: the first half of the steps on synthetic images, the second on
    real ones."""
    shares: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = (0.5,)
    """Of `both`: shares of the regions that are synthetic; the best on validation images counts."""
    filters: tuple[bool, ...] = (False,)
    """`on`: segmenters learn from synthetic images whose pixels were judged by one that learned from the
    same real images alone (`filter.pixel_factor`; FreeMask, Yang et al., 2023)."""
    stops: Positive = 1
    """Steps at which a training may end, evenly spread: the best on validation images counts; 1: the last."""
    validation_images: Positive = 20
    """Real images set apart where there is something to choose: at most a fifth of all training images."""
    seeds: Annotated[int, Field(ge=3)] = 3
    """Networks of each kind; figures are their mean and deviation."""
    side: Annotated[int, Field(ge=16)] = 128
    """Side of the regions that are learned and judged, in pixels."""
    steps: Annotated[int, Field(ge=10)] = 500
    """The same for all that a network is trained on, however many images these are."""
    batch: Annotated[int, Field(ge=4, multiple_of=4)] = 8
    """Regions per step."""
    lr: Annotated[float, Field(gt=0)] = 3e-3
    """Peak of the OneCycle schedule."""
    width: Annotated[int, Field(ge=4)] = 16
    """Channels of the networks' first layer."""

    @model_validator(mode="after")
    def _real(self) -> Self:
        if "real" not in self.arms:
            raise ValueError("evaluation.downstream.arms: real is what the others are compared with")
        return self

    @property
    def chooses(self) -> bool:
        """Whether anything is left to validation images."""
        return self.stops > 1 or ("both" in self.arms and len(self.shares) > 1)


class Filter(SettingsSection):
    """Which synthetic images, and which of their pixels, others should learn from."""

    checks: tuple[Check, ...] = ("agreement", "copies", "density", "duplicates")
    """Reasons for which an image is left out."""
    pixel_factor: Annotated[float, Field(gt=0)] = 1.25
    """A pixel whose loss is above so many times its class's mean on real training images becomes unknown
    (FreeMask); the segmenter is trained as `evaluation.downstream` says."""
    disagreement: Share = 0.5
    """An image of whose known pixels a larger share is so becomes none to learn from."""
    density_quantile: Share = 0.01
    """An image whose feature density is below this quantile of held-out real images' is an outlier."""
    k: Positive = 5
    """Neighbours that make a ball of the density; doubled until the quantile is above 0."""
    copy_regions: Positive = 8
    """Regions of an image in which copies of training images are looked for."""
    duplicate: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Correlation from which two synthetic images are one: the first is kept."""
    attempts: Annotated[int, Field(ge=1)] = 4
    """`synthesize --filter` draws at most so many times as many images as it is to keep."""

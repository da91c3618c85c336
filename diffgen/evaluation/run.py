"""One evaluation at work: its sets, its settings, and features that are computed when first asked for."""

import shlex
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.console import Console

from diffgen.config import Evaluation, Settings
from diffgen.evaluation import backbones, features
from diffgen.evaluation.backbones import Backbone
from diffgen.evaluation.features import FeatureJob, Features, View
from diffgen.evaluation.images import Region, RegionSet
from diffgen.evaluation.page import Block, Verdict
from diffgen.evaluation.sets import Sets
from diffgen.evaluation.tasks import Workers


@dataclass(frozen=True)
class SectionResult:
    """What a section comes to: its verdict, what it shows, and its figures for machines."""

    verdict: Verdict | None
    blocks: Sequence[Block]
    figures: Mapping[str, Any]


@dataclass
class EvaluationRun:
    """What every section needs."""

    sets: Sets
    tree: Settings
    """Settings of all commands: a bundle is sampled by them."""
    bundle: Path | None
    """What the synthetic images are of, where that was given and not they."""
    folder: Path
    """Of the report; what is computed once lies in `cache` in it."""
    command: Sequence[str]
    """As it was given."""
    inline: bool
    console: Console

    @property
    def settings(self) -> Evaluation:
        return self.tree.evaluation

    @property
    def workers(self) -> Workers:
        return Workers(self.settings.threads, self.settings.gpu, self.inline, self.console)

    @cached_property
    def backbone(self) -> Backbone:
        return backbones.load(self.settings.backbone)

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    @property
    def view(self) -> View:
        return View(jpeg=self.settings.jpeg)

    @property
    def how_all(self) -> str:
        """The command of the whole evaluation."""
        return shlex.join(self.command)

    def how(self, topic: str) -> str:
        """The command that computes the figures of one section."""
        words = [word for word in self.command if word != "--paper"]
        out = f"{self.tree.places.report}-{topic}"  # the last --out counts: the report of all sections stays
        return shlex.join([*words, "--out", out, "--set", f"evaluation.parts=[{topic}]"])

    @cached_property
    def _known(self) -> dict[int, tuple[Features, dict[Region, int]]]:
        """Features of all regions of the three sets, computed in one go, and where each region's are."""
        sets = [crops for crops in self.sets.named.values() if crops]
        with self.measuring("checksums of the images"):
            for crops in sets:
                _ = crops.images.digest  # it is kept, and reads every file
        found = self.extract([(crops, self.view) for crops in sets])
        return {
            id(crops.images): (features, {region: row for row, region in enumerate(crops.regions)})
            for crops, features in zip(sets, found, strict=True)
        }

    def measuring(self, what: str) -> AbstractContextManager[Any]:
        """A spinner: what it is about takes seconds, up to a minute for ten thousand regions."""
        return self.console.status(what)

    def features(self, crops: RegionSet) -> Features:
        """Features of some regions of the sets, as they are."""
        (values, logits), rows = self._known[id(crops.images)]
        chosen = [rows[region] for region in crops.regions]
        return Features(values[chosen], None if logits is None else logits[chosen])

    def extract(self, asked: Sequence[tuple[RegionSet, View]]) -> list[Features]:
        """Features of any regions in any view, those that are not there yet computed in one go."""
        jobs = [
            FeatureJob(crops, view, self.backbone, crops.images.cache or self.cache / "features")
            for crops, view in asked
        ]
        return features.extract(jobs, self.workers)

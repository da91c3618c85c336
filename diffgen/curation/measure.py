"""Figures of every image of a run against real ones: what is long is a task a chunk, and kept."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from diffgen import progress
from diffgen.config import Settings
from diffgen.curation import agreement
from diffgen.curation.agreement import AgreementJob
from diffgen.curation.copied import CopiedFrom, CopySearch
from diffgen.curation.decide import Figures
from diffgen.curation.density import DensityLimit, density_limit
from diffgen.curation.duplicates import earlier_likes
from diffgen.curation.shard_images import ShardImages
from diffgen.errors import UserError
from diffgen.evaluation import backbones, features
from diffgen.evaluation.experiments import Arm, Experiment
from diffgen.evaluation.features import FeatureJob, View
from diffgen.evaluation.images import Images, RegionSet, check_alike
from diffgen.evaluation.labelled_regions import LabelledRegions
from diffgen.evaluation.patterns import SIDE as LEAST_SIDE
from diffgen.evaluation.patterns import Patterns, patterns
from diffgen.evaluation.sets import USUAL
from diffgen.evaluation.tasks import Workers
from diffgen.evaluation.training_jobs import TrainingJob
from diffgen.export.shard_set import ShardSet
from diffgen.storage import atomic

CHUNK = 64
"""Samples a task."""


@dataclass(frozen=True)
class Measuring:
    """A run beside the real images that its generator learned from, and held-out ones."""

    shards: ShardSet
    manifest: Any
    """Its rows of samples that are there, in their order."""
    training: Images
    held_out: Images | None
    settings: Settings
    work: Path
    """Folder for what is computed; with Ray one that all nodes see."""
    workers: Workers

    @cached_property
    def chunks(self) -> list[ShardImages]:
        """The samples, `CHUNK` by their index: a set that grows changes the last chunk alone."""
        rows = self.manifest.select(["index", "sha256", "mask_sha256"]).to_pylist()
        by_chunk: dict[int, list[int]] = {}
        for number, row in enumerate(rows):
            by_chunk.setdefault(row["index"] // CHUNK, []).append(number)
        return [
            ShardImages(self.shards, those, [f"{rows[k]['sha256']} {rows[k]['mask_sha256']}" for k in those])
            for those in by_chunk.values()
        ]

    @property
    def everything(self) -> ShardImages:
        numbers = [number for chunk in self.chunks for number in chunk.numbers]
        return ShardImages(self.shards, numbers, [one for chunk in self.chunks for one in chunk.sums])

    @cached_property
    def side(self) -> int:
        """Of the regions whose features and patterns are compared, in pixels."""
        settings = self.settings.evaluation
        sides = [self.training.largest, self.everything.largest]
        sides += [] if self.held_out is None else [self.held_out.largest]
        return settings.side or min(USUAL, *sides)

    @cached_property
    def real(self) -> tuple[RegionSet, RegionSet]:
        """Training regions, and others that show what is possible: held out, or of half the sources."""
        settings = self.settings.evaluation
        crops = self.training.crops(self.side)
        if self.held_out is not None:
            others = self.held_out.crops(self.side).drawn(settings.samples)
        else:
            inside = np.random.default_rng(0).permutation(crops.groups.max() + 1) % 2 == 0
            crops, others = crops.part(inside[crops.groups]), crops.part(~inside[crops.groups])
        least = 2 * self.settings.filter.k
        for name, one in (("training", crops), ("held-out", others)):
            if len(one) < least:
                raise UserError(
                    f"{self.training.where}: {len(one)} {name} regions of {self.side} px are too few to "
                    "compare with: filter.checks without density asks for none"
                )
        return crops.drawn(settings.samples), others

    @cached_property
    def segmenter(self) -> TrainingJob:
        """Of all real training images."""
        how, largest = (
            self.settings.evaluation.downstream,
            min(self.training.largest, self.everything.largest),
        )
        side = min(how.side, largest) // 8 * 8  # three halvings
        crops = self.training.crops(side).labelled
        if not crops.regions or self.training.labels is None:
            raise UserError(
                f"{self.training.where}: no label maps to learn from: leave agreement out of filter.checks"
            )
        one = Experiment(Arm("segmentation", "real", None), 0)
        regions, cache = (LabelledRegions(crops),), self.work / "segmenter"
        settings = how.model_copy(update={"stops": 1})
        return TrainingJob(one, regions, {}, len(self.training.labels), settings, cache.absolute())

    def check(self) -> None:
        """`UserError` where sets cannot be compared, before any work."""
        check_alike(self.training, self.everything)
        checks = self.settings.filter.checks
        if "agreement" in checks:
            _ = self.segmenter
        if "density" in checks:
            _ = self.real
        if self.side < LEAST_SIDE and {"copies", "duplicates"} & set(checks):
            raise UserError(
                f"{self.side} px are too small to look for copies: leave them out of filter.checks"
            )

    def agreement_jobs(self) -> list[AgreementJob]:
        cache, factor = (self.work / "agreement").absolute(), self.settings.filter.pixel_factor
        return [AgreementJob(chunk, self.segmenter, factor, cache) for chunk in self.chunks]

    def figures(self) -> tuple[list[Figures], float, list[NDArray[np.intp]]]:
        """Of each sample; the least density asked for; and the earlier samples that each is like."""
        checks = self.settings.filter.checks
        found = [Figures(key) for key in self.manifest["key"].to_pylist()]
        least, likes = 0.0, [np.empty(0, np.intp)] * len(found)
        if "agreement" in checks:
            found = self._agreement(found)
        if "density" in checks:
            found, least = self._density(found)
        if "copies" in checks:
            found = self._copies(found)
        if "duplicates" in checks:
            whole = self._patterns()
            with self.workers.console.status("comparing the images with one another"):
                likes = earlier_likes(whole, self.settings.filter.duplicate)
        return found, least, likes

    def _agreement(self, found: list[Figures]) -> list[Figures]:
        how, segmenter = self.settings.evaluation.downstream, self.segmenter
        if not segmenter.weights.exists():
            self.workers.console.print(f"segmenter: 1 training of {how.steps} steps of {how.batch} regions")
        if not segmenter.losses.exists():
            self.workers.run(agreement.train, [(segmenter,)], [1], "segmenter", "network")
        jobs = [job for job in self.agreement_jobs() if not job.path.exists()]
        costs = [len(job.images.numbers) for job in jobs]
        self.workers.run(agreement.judge, [(job,) for job in jobs], costs, "agreement", "images")
        rows = [row for job in self.agreement_jobs() for row in read(job, ["known", "wrong", "loss"])]
        return [
            replace(one, disagreement=row["wrong"] / max(row["known"], 1), loss=row["loss"])
            for one, row in zip(found, rows, strict=True)
        ]

    def _density(self, found: list[Figures]) -> tuple[list[Figures], float]:
        backbone, view = (
            backbones.load(self.settings.evaluation.backbone),
            View(jpeg=self.settings.evaluation.jpeg),
        )
        synthetic = [chunk.crops(self.side) for chunk in self.chunks]
        with self.workers.console.status("checksums of the images"):
            jobs = [
                FeatureJob(crops, view, backbone, crops.images.cache or (self.work / "features").absolute())
                for crops in (*self.real, *synthetic)
            ]
            _ = [job.folder for job in jobs]
        training, held_out, *drawn = (one.values for one in features.extract(jobs, self.workers))
        with self.workers.console.status("density"):
            limit = density_limit(
                training, held_out, self.settings.filter.density_quantile, self.settings.filter.k
            )
            means = [one for chunk, values in zip(synthetic, drawn, strict=True)
                     for one in _means(limit, chunk, values)]  # fmt: skip
        return [replace(one, density=mean) for one, mean in zip(found, means, strict=True)], limit.least

    def _copies(self, found: list[Figures]) -> list[Figures]:
        training = self.training.crops(self.side).drawn(self.settings.evaluation.training_samples)
        with progress.bar(self.workers.console, transient=True) as bar:
            ready = bar.add_task("training images", total=2 * len(training), figures="regions")
            row = bar.add_task("copies", total=len(found), figures="images")
            search = CopySearch(
                training,
                self.settings.filter.copy_regions,
                self.work / "copies",
                lambda number: bar.advance(ready, number),
            )
            copied = dict[str, CopiedFrom]()
            for chunk in self.chunks:
                copied |= {one.key: one for one in search.of(chunk)}
                bar.advance(row, len(chunk.numbers))
        return [
            replace(one, copy_ncc=of.ncc, copy_of=of.source, copied=of.copied)
            for one, of in zip(found, (copied[one.key] for one in found), strict=True)
        ]

    def _patterns(self) -> Patterns:
        """Of all whole images, in a file per chunk."""
        folder, found = self.work / "patterns", []
        folder.mkdir(parents=True, exist_ok=True)
        with progress.bar(self.workers.console, transient=True) as bar:
            row = bar.add_task("patterns", total=len(self.manifest), figures="images")
            for chunk in self.chunks:
                path = folder / f"{chunk.digest[:24]}.npy"
                if not path.exists():
                    with atomic(path) as file:
                        np.save(file, patterns(map(chunk.shards.picture, chunk.numbers)))
                found.append(np.load(path))
                bar.advance(row, len(chunk.numbers))
        return np.concatenate(found)


def read(job: AgreementJob, columns: Sequence[str]) -> list[dict[str, Any]]:
    """What the segmenter said of a chunk, in its order."""
    table: pa.Table = pq.read_table(job.path, columns=list(columns))
    return list(table.to_pylist())


def _means(limit: DensityLimit, crops: RegionSet, values: NDArray[Any]) -> list[float]:
    """Of each image the mean density of its regions."""
    of: dict[str, list[float]] = {}
    for region, density in zip(crops.regions, limit.of(values).tolist(), strict=True):
        of.setdefault(region.image, []).append(density)
    return [float(np.mean(those)) for those in of.values()]

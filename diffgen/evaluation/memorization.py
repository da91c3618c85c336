"""Whether a generator repeats what it was trained on, by distances of features (Section 5.4, Appendix C).

All distances are between features of one network; they have no unit and mean nothing by themselves, so each
figure compares them with distances between real samples. What is not near in these features is not seen: a
copy of a part, and whatever the network does not look at. `copies` needs no network. Crops of one source are
alike; intervals are over whole sources. What they hold is the expectation with this training set, which is
what the generator learned from, over synthetic (and held-out) sets of these sizes.
"""

from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata, tiecorrect

from diffgen.errors import UserError
from diffgen.evaluation.bootstrap import (
    RESAMPLES,
    Estimate,
    Weights,
    estimate,
    of_sources,
    pairs_larger,
    resampled,
)
from diffgen.evaluation.distances import TIE, FeatureMatrix, Nearest, checked, nearest
from diffgen.evaluation.divergences import COMPONENTS, ONE_THREAD, principal
from diffgen.evaluation.near_duplicates import Duplicates, near_duplicates
from diffgen.evaluation.shares import share

CELLS, LEAST = 3, 20
"""Cells of C_T and samples of each set that one needs: those of the library the paper used (fls 2023: three
cells, τ = 20 ÷ generated samples)."""


@dataclass(frozen=True)
class Cell:
    """A cell of C_T that has samples enough."""

    held_out: float
    """P_n(π), share of the held-out samples."""
    generated: float
    """Q_m(π), share of the generated samples."""
    z: float
    """Z_U: below 0 where generated samples are nearer to training samples than held-out ones are."""


@dataclass(frozen=True)
class DataCopying:
    """C_T and the cells it is the mean of."""

    c_t: Estimate
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Memorization:
    """What is said of a synthetic set against the training set."""

    authenticity: Estimate
    """A, eq. (13)."""
    authenticity_held_out: Estimate | None
    """The same of held-out real samples: what a generator gets that copies nothing and misses nothing."""
    data_copying: DataCopying | None
    """C_T, eq. (14), where there are held-out samples, and enough for a cell."""
    nearest: Nearest
    """(Nₛ, 1): the training sample that is nearest to each synthetic one."""
    ratio: NDArray[np.float64]
    """(Nₛ,): that distance ÷ the distance of that training sample to its own nearest: 1 or less is not
    authentic. 0 for exact copies, ∞ where the training sample itself is there twice."""
    duplicates: Duplicates
    """Inside the synthetic set."""

    @property
    def c_t(self) -> Estimate | None:
        return None if self.data_copying is None else self.data_copying.c_t


class Reference:
    """Real features (N, d) that synthetic ones are held against; what takes no synthetic ones is computed
    once.

    `…_sources` number what each sample is of. Without held-out samples there is no C_T. Raises `UserError`
    for NaN and for too few samples.
    """

    def __init__(
        self, training: NDArray[Any], held_out: NDArray[Any] | None,
        training_sources: NDArray[np.intp], held_out_sources: NDArray[np.intp] | None,
    ) -> None:  # fmt: skip
        self.training = checked(training, "training", 2)
        self.training_sources = of_sources(training_sources, len(self.training), "training")
        self.held_out = None if held_out is None else checked(held_out, "held-out", 1)
        if self.held_out is not None:
            given = np.asarray(held_out_sources)
            self.held_out_sources = of_sources(given, len(self.held_out), "held-out")

    @cached_property
    def own(self) -> Nearest:
        """(N_t, 1): of each training sample, its nearest other one."""
        return nearest(self.training, self.training, exclude_self=True)

    @cached_property
    def null(self) -> Estimate | None:
        """Authenticity of held-out samples."""
        if self.held_out is None:
            return None
        return share(authentic(nearest(self.held_out, self.training), self.own), self.held_out_sources)

    @cached_property
    def partition(self) -> "Partition":
        """Cells of C_T, with the held-out samples in them."""
        assert self.held_out is not None
        return Partition(self.training, self.held_out, self.held_out_sources)

    def judged(
        self, synthetic: NDArray[Any], sources: NDArray[np.intp], count: int = RESAMPLES, seed: int = 0
    ) -> Memorization:
        """All figures of features (Nₛ, d) of synthetic samples."""
        synthetic = checked(synthetic, "synthetic", 2)
        sources = of_sources(sources, len(synthetic), "synthetic")
        found, copying = nearest(synthetic, self.training), None
        if self.held_out is not None:
            with suppress(UserError):  # too few samples for any cell
                copying = self.partition.data_copying(synthetic, sources, count=count, seed=seed)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = found.distances[:, 0] / self.own.distances[found.indices[:, 0], 0]
        return Memorization(
            authenticity=share(authentic(found, self.own), sources),
            authenticity_held_out=self.null,
            data_copying=copying,
            nearest=found,
            ratio=np.where(found.distances[:, 0] == 0, 0.0, ratio),
            duplicates=near_duplicates(self.training, synthetic, self.training_sources, sources, seed=seed),
        )


def authentic(of_samples: Nearest, own: Nearest) -> NDArray[np.bool_]:
    """(N,): whether each sample is authentic; the mean is A of eq. (13) (Alaa et al., 2022).

    `of_samples`: the training sample nearest to each; `own`: of each training sample, its nearest other one.
    A sample is a copy where it is as near to its training sample as that one is to its own nearest, or
    nearer: so a training set full of near-duplicates (overlapping crops, glass) hides copies, but for exact
    ones. Not 1 is right, but the A of held-out real samples: a third to a half where they are independent,
    as two points are each other's nearest with probability 2/3 in one dimension, 0.62 in two and 1/2 in
    many (Cox, 1981). More is farther from the training set than real samples are; a set far from all has 1.
    """
    radii = own.distances[of_samples.indices[:, 0], 0]
    return of_samples.distances[:, 0] > radii * (1 + TIE)


class Partition:
    """Cells of k-means on training features, and the held-out samples in them: the part of C_T without a
    model.

    Features go to their first `components` principal components, fitted on the training set. Raises
    `UserError` for NaN and for too few samples.
    """

    def __init__(
        self, training: NDArray[Any], held_out: NDArray[Any], held_out_sources: NDArray[np.intp],
        components: int = COMPONENTS, cells: int = CELLS, seed: int = 0,
    ) -> None:  # fmt: skip
        from sklearn.cluster import KMeans

        self.training, held_out = checked(training, "training", cells), checked(held_out, "held-out")
        self.sources = of_sources(held_out_sources, len(held_out), "held-out")
        self.basis = None
        if self.training.shape[1] > components:
            self.basis, self.mean = principal(self.training, components), self.training.mean(axis=0)
            self.training = self.projected(self.training)
        self.cells = cells
        self.kmeans = ONE_THREAD(KMeans(cells, n_init=10, random_state=seed).fit)(self.training)
        self.distances, self.where = self.placed(held_out)

    def projected(self, features: FeatureMatrix) -> FeatureMatrix:
        return features if self.basis is None else (features - self.mean) @ self.basis

    def placed(self, features: FeatureMatrix) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
        """(N,), (N,): distance to the nearest training sample, and cell."""
        inside = self.projected(features)
        return nearest(inside, self.training).distances[:, 0], self.kmeans.predict(inside)

    def data_copying(
        self, synthetic: NDArray[Any], sources: NDArray[np.intp], *,
        tau: float | None = None, count: int = RESAMPLES, seed: int = 0,
    ) -> DataCopying:  # fmt: skip
        """C_T, eq. (14) (Meehan, Chaudhuri and Dasgupta, 2020): ≪ 0 for copies, ≫ 0 for under-fitted models.

        A cell counts where it holds at least the share `tau` of the generated samples and of the held-out
        ones; None: 20 samples of each. As in eq. (14), d(x) is the distance to the nearest of all training
        samples (the library takes those of x's own cell), and as U sees ranks only, it need not be squared.
        Equal distances have mid-ranks, and the deviation of U is corrected for them.

        Z_U grows with the root of the number of samples, so compare C_T only between sets of the same sizes;
        it takes samples for independent, which crops of one source are not: the interval, over sources of
        both sets, says more than |C_T| > 2. Few copies among many others move it little: it sees a tendency.
        Raises `UserError` for NaN, and where no cell holds samples enough.
        """
        synthetic = checked(synthetic, "synthetic")
        of = self.sources, of_sources(sources, len(synthetic), "synthetic")
        of_synthetic, where_synthetic = self.placed(synthetic)
        distances, where = (self.distances, of_synthetic), (self.where, where_synthetic)
        weights = resampled(of, count, seed)
        needed = [LEAST / len(one) if tau is None else tau for one in where]
        sums, total, found = np.zeros(count + 1), np.zeros(count + 1), []
        for cell in range(self.cells):
            here = [labels == cell for labels in where]
            p, q = (float(inside.mean()) for inside in here)
            if p < needed[0] or q < needed[1] or not (p and q):
                continue
            of_cell = [one[:, inside] for one, inside in zip(weights, here, strict=True)]
            z = z_u(distances[0][here[0]], distances[1][here[1]], of_cell[0], of_cell[1])
            share_here = of_cell[0].sum(axis=1) / weights[0].sum(axis=1)
            there = np.isfinite(z)  # no bootstrap without samples here
            sums[there] += share_here[there] * z[there]
            total[there] += share_here[there]
            found.append(Cell(p, q, float(z[0])))
        if not found:
            raise UserError(
                f"C_T: no cell holds enough of {len(where[0])} held-out and {len(where[1])} generated samples"
            )
        with np.errstate(invalid="ignore"):
            least = min(len(np.unique(one)) for one in of)
            return DataCopying(estimate(sums / total, sources=least), tuple(found))


def z_u(
    held_out: NDArray[np.float64], generated: NDArray[np.float64], of_held_out: Weights, of_generated: Weights
) -> NDArray[np.float64]:
    """(B,): z-scored Mann–Whitney U of `generated` (m,) over `held_out` (n,), for each row of weights.

    U counts the pairs in which the generated one is larger, equal ones half; z = (U − nm/2) / σ with
    σ² = nm(n + m + 1)/12, times the correction for ties. NaN for a row of weights that leaves a set empty.
    """
    u = pairs_larger(held_out, generated, of_held_out, of_generated)
    n, m = of_held_out.sum(axis=1), of_generated.sum(axis=1)
    ties = tiecorrect(rankdata(np.concatenate([held_out, generated])))
    deviation = np.sqrt(n * m * (n + m + 1) / 12 * ties)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(deviation > 0, (u - n * m / 2) / deviation, 0.0)
    return np.where((n > 0) & (m > 0), z, np.nan)


def membership(
    training: NDArray[Any], held_out: NDArray[Any], synthetic: NDArray[Any],
    training_sources: NDArray[np.intp], held_out_sources: NDArray[np.intp], *,
    count: int = RESAMPLES, seed: int = 0,
) -> Estimate:  # fmt: skip
    """Do synthetic samples (S, d) tell which real ones a generator saw?

    AUC of the distances of training (N, d) and held-out samples (M, d) to the nearest of them. The attack of
    Chen et al. (2020, GAN-Leaks, "full black-box"): a real sample that is near to a synthetic one is guessed
    to be of the training set. Its AUC is the probability that a training sample is nearer than a held-out
    one: 0.5 is a coin, 1 tells all; as distances are those of one network's features, 0.5 proves nothing. The
    interval is over sources of both. `UserError` for a set of one source, and for NaN.
    """
    sources = (
        of_sources(training_sources, len(training), "training"),
        of_sources(held_out_sources, len(held_out), "held-out"),
    )
    near, far = (nearest(one, synthetic).distances[:, 0] for one in (training, held_out))
    return estimate(auc(near, far, *resampled(sources, count, seed)))


def auc(
    near: NDArray[np.float64], far: NDArray[np.float64], of_near: Weights, of_far: Weights
) -> NDArray[np.float64]:
    """(B,): share of pairs in which `near` (N,) is the smaller, equal ones half, for each row of weights."""
    pairs = pairs_larger(near, far, of_near, of_far)
    total = of_near.sum(axis=1) * of_far.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(pairs / total)

"""How dense real images lie about a picture: what is where hardly any real ones are is an outlier.

Density of Naeem et al. (2020), by sample: the number of balls around real training images that hold it, ÷ k.
The least that is asked is a quantile of what held-out real images have. Where that is 0, as many real images
lie in no ball of so few neighbours, k is doubled until it is not.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffgen.evaluation.distances import kth_radii, within

LARGEST = 4
"""k is at most the number of training regions ÷ this."""


@dataclass(frozen=True)
class DensityLimit:
    """Balls around real training regions, and the density that held-out ones have."""

    training: NDArray[Any]
    """(N, d) features."""
    radii: NDArray[np.float64]
    k: int
    least: float
    """Below it lies the asked share of held-out regions, or fewer; 0: nothing is an outlier."""

    def of(self, features: NDArray[Any]) -> NDArray[np.float64]:
        """(M,): density of features (M, d)."""
        return within(features, self.training, self.radii).balls / self.k


def density_limit(training: NDArray[Any], held_out: NDArray[Any], quantile: float, k: int) -> DensityLimit:
    """From features of training (N, d) and held-out regions (M, d). `UserError` for too few."""
    while True:
        found = DensityLimit(training, kth_radii(training, k), k, 0.0)
        least = float(np.quantile(found.of(held_out), quantile, method="lower"))
        if least > 0 or 2 * k > len(training) // LARGEST:
            return DensityLimit(training, found.radii, k, least)
        k *= 2

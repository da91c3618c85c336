"""Guidance: which noise levels are guided, by how much, and away from what.

`label`: away from the estimate without the label map, eq. (2) of the paper. `auto`: away from that of a worse
network under the same condition (Karras et al., 2024, arXiv 2406.02507). Outside its interval of log-SNR
(Kynkäänniemi et al., 2024, arXiv 2404.07724) nothing is guided, and no forward is spent on it.
"""

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Guidance:
    """ω of eq. (2) as a function of the noise level."""

    scale: float = 0.0
    kind: Literal["label", "auto"] = "label"
    low: float = -math.inf
    high: float = math.inf
    """Log-SNR, both ends included."""

    def at(self, log_snr: float) -> "Guidance":
        """What guides at one noise level: itself, or none."""
        return self if self.scale and self.low <= log_snr <= self.high else NONE

    @property
    def by_label(self) -> float:
        """ω of guidance away from ∅; 0 where there is none."""
        return self.scale if self.kind == "label" else 0.0

    @property
    def by_network(self) -> float:
        """ω of guidance away from a worse network; 0 where there is none."""
        return self.scale if self.kind == "auto" else 0.0


NONE = Guidance()

"""Guidance: which noise levels are guided, by how much, and away from what.

`label`: away from the estimate without the label map, eq. (2) of the paper. `auto`: away from that of a worse
network under the same condition (Karras et al., 2024, arXiv 2406.02507). Outside its interval of log-SNR
(Kynkäänniemi et al., 2024, arXiv 2404.07724) nothing is guided, and no forward is spent on it.

Guidance also makes what it finds stronger: stains darker, contrasts harsher. `rescale` takes that back: the
clean latents that a guided estimate stands for get the mean and deviation, channel by channel, of those of
the estimate under the label map (Lin et al., 2024, arXiv 2305.08891, section 3.4, there of the estimates
themselves).
"""

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor


@dataclass(frozen=True)
class Guidance:
    """ω of eq. (2) as a function of the noise level."""

    scale: float = 0.0
    kind: Literal["label", "auto"] = "label"
    low: float = -math.inf
    high: float = math.inf
    """Log-SNR, both ends included."""
    rescale: float = 0.0
    """Share φ of the change in mean and deviation that is taken back."""
    prediction: str = "v_prediction"
    """What an estimate is, by diffusers' names."""

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

    def apart(self, given: Tensor, away: Tensor, latents: Tensor, log_snr: float) -> Tensor:
        """(1 + ω) times the estimate `given` less ω times that one guides `away` from; all are (C, h, w).

        `latents` are what both are estimates for, γ z_0 + σ ε.
        """
        if self.kind == "auto":  # the same in other roundings, which the bytes of all such runs have
            guided = given + self.scale * (given - away)
        else:
            guided = (1 + self.scale) * given - self.scale * away
        if not self.rescale:
            return guided
        of_latents, of_estimate = clean_from(self.prediction, log_snr)
        wanted, found = (of_latents * latents + of_estimate * one for one in (given, guided))
        both = [(one.mean((1, 2), keepdim=True), one.std((1, 2), keepdim=True)) for one in (wanted, found)]
        (mean, spread), (mean_now, spread_now) = both
        matched = mean + (found - mean_now) * (spread / spread_now.clamp_min(1e-6))
        return guided + (matched - found) * (self.rescale / of_estimate)


def clean_from(prediction: str, log_snr: float) -> tuple[float, float]:
    """The clean latents z_0 as so much of the noisy ones and so much of the estimate, at a noise level."""
    gamma, sigma = (1 / (1 + math.exp(-x)) for x in (log_snr, -log_snr))
    gamma, sigma = gamma**0.5, sigma**0.5
    return {
        "v_prediction": (gamma, -sigma), "epsilon": (1 / gamma, -sigma / gamma), "sample": (0.0, 1.0)
    }[prediction]  # fmt: skip


NONE = Guidance()

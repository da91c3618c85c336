"""What TensorBoard is told of the loss beside its mean: by noise level, by label, and what labels were seen.

Figures are those of this worker's samples since the last entry. Sums stay on the device until they are
read, so that a step never waits for them; squared errors are taken without weights, so that curves of
runs with different weighting can be laid over each other.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from diffgen.labels import MAX_CLASSES, UNKNOWN

BOUNDS = (-6.0, -3.0, 0.0, 3.0, 6.0)
"""log-SNR at which the bands of `loss_by_log_snr` meet; large structure is decided in −6 … −3."""
BANDS = [f"..{BOUNDS[0]:g}", *(f"{a:g}..{b:g}" for a, b in pairwise(BOUNDS)), f"{BOUNDS[-1]:g}.."]


class Meters:
    """Running sums of losses and counts, by band of log-SNR and by label id."""

    def __init__(self) -> None:
        self._sums: Tensor | None = None
        """(2, bands + labels): losses and how many there were; none before the first is added."""

    @torch.no_grad()
    def add(self, pixel_loss: Tensor, log_snr: Tensor, condition: Tensor) -> None:
        """Squared errors (B, h, w), mean over channels, without weights; log-SNR (B,); label maps
        (B, h, w), or contexts (B,), which have no figures by label. Sizes may differ between calls."""
        if self._sums is None:
            width = len(BANDS) + MAX_CLASSES  # in float64: a sum of float32 ones ends at 2²⁴
            self._sums = torch.zeros(2, width, dtype=torch.float64, device=pixel_loss.device)
            self._bounds = torch.tensor(BOUNDS, device=pixel_loss.device)
        bands, labels = self._sums[:, : len(BANDS)], self._sums[:, len(BANDS) :]
        _add(bands, torch.bucketize(log_snr.float(), self._bounds, right=True), pixel_loss.mean(dim=(1, 2)))
        if condition.dim() > 1:
            _add(labels, condition.flatten().long(), pixel_loss.flatten())

    def figures(self, names: Sequence[str] = ()) -> dict[str, float]:
        """Means of what was seen since the last call, with the names of the label ids; begins anew.

        `loss_by_log_snr/BAND`, `loss_by_label/NAME` (`unknown`: pixels under ∅), and
        `label_share_seen/NAME`, the share of a label in the pixels that have one.
        """
        if self._sums is None:
            return {}
        losses, counts = self._sums.tolist()  # the one place that waits for the device
        self._sums.zero_()
        keys = [f"loss_by_log_snr/{band}" for band in BANDS] + [f"loss_by_label/{name}" for name in names]
        means = {k: loss / n for k, loss, n in zip(keys, losses, counts, strict=False) if n}
        seen = dict(zip(names, counts[len(BANDS) :], strict=False))
        known = sum(n for name, n in seen.items() if name != names[UNKNOWN])
        shares = {f"label_share_seen/{name}": n / known for name, n in seen.items() if known}
        shares.pop(f"label_share_seen/{names[UNKNOWN]}" if names else "", None)
        return means | shares


def _add(sums: Tensor, groups: Tensor, losses: Tensor) -> None:
    """Losses (N,) and ones to the sums (2, G) of their groups (N,); `bincount` would wait for the device."""
    both = torch.stack([losses, torch.ones_like(losses)]).double()
    sums.scatter_add_(1, groups.expand(2, -1), both)

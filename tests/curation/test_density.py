"""Density: what lies among real ones is kept, what does not is not, and the limit is never nothing."""

import numpy as np

from diffgen.curation.density import density_limit


def test_density_counts_balls_and_outliers_lie_below_its_limit(rng: np.random.Generator) -> None:
    training, held_out, like, far = (rng.normal(size=(n, 4)) for n in (200, 100, 200, 20))
    limit = density_limit(training, held_out, 0.05, 5)
    distances = np.linalg.norm(training[:, None] - training[None], axis=2)
    radii = np.sort(distances, axis=1)[:, limit.k]
    inside = np.linalg.norm(like[:, None] - training[None], axis=2) <= radii
    assert np.allclose(limit.of(like), inside.sum(axis=1) / limit.k)
    assert limit.least > 0
    assert (limit.of(held_out) < limit.least).mean() <= 0.05
    assert (limit.of(like) < limit.least).mean() < 0.15
    assert (limit.of(far + 8) < limit.least).all()


def test_k_grows_until_held_out_images_lie_in_a_ball(rng: np.random.Generator) -> None:
    training, held_out = rng.normal(size=(200, 60)), rng.normal(size=(100, 60))
    few = density_limit(training, held_out, 0.3, 1)
    assert few.k > 1
    assert few.least > 0
    none = density_limit(training, held_out + 100, 0.3, 1)
    assert none.least == 0
    assert not (none.of(held_out) < none.least).any()

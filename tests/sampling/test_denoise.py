from collections import defaultdict

import numpy as np
import pytest
import torch

from diffgen.sampling import covers
from diffgen.sampling.canvas import Patch
from diffgen.sampling.denoise import (
    JOINT,
    Conditioning,
    condition_map,
    conditions,
    estimate,
    forwards,
    forwards_of,
    num_forwards,
)
from diffgen.sampling.guidance import NONE, Guidance
from diffgen.sampling.loop import sample
from diffgen.sampling.solvers import Solver, SolverState, noise_schedule
from tests.sampling.helpers import WIDE, make

SCHEDULE = noise_schedule(1000, "squaredcos_cap_v2", "epsilon")


def needed(one: Patch, guidance: float, conditioning: Conditioning) -> list[int]:
    return conditions(one.labels, one.owned, Guidance(guidance), conditioning)


def patch(labels: list[list[int]], owned: list[list[int]] | None = None) -> Patch:
    ids = np.array(labels, np.uint8)
    own = np.ones(ids.shape, bool) if owned is None else np.array(owned, bool)
    return Patch(np.zeros((1, *ids.shape), np.float32), 10, ids, own)


@pytest.mark.parametrize(
    ("labels", "owned", "guidance", "expected"),
    [
        ([[1, 2]], None, 0.0, [1, 2]),
        ([[1, 2]], None, 3.0, [1, 2, 0]),
        ([[0, 2]], None, 0.0, [2, 0]),
        ([[0, 2]], None, 3.0, [2, 0]),
        ([[0, 0]], None, 3.0, [0]),
        ([[1, 2]], [[1, 0]], 0.0, [1]),
        ([[0, 2]], [[0, 1]], 0.0, [2]),
    ],
)
def test_only_owning_labels_are_run(
    labels: list[list[int]], owned: list[list[int]] | None, guidance: float, expected: list[int]
) -> None:
    assert needed(patch(labels, owned), guidance, "per_label") == expected


def test_joint_conditioning_is_one_forward() -> None:
    assert needed(patch([[1, 2]]), 0.0, "joint") == [JOINT]
    assert needed(patch([[1, 2]]), 2.0, "joint") == [JOINT, 0]
    assert needed(patch([[0, 0]]), 2.0, "joint") == [0]


def test_condition_maps() -> None:
    labels = np.array([[0, 1], [2, 1]], np.uint8)
    assert condition_map(labels, 1).tolist() == [[0, 1], [0, 1]]
    assert condition_map(labels, 0).tolist() == [[0, 0], [0, 0]]
    assert condition_map(labels, JOINT).tolist() == labels.tolist()


def constant(latents: torch.Tensor, timesteps: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    """A "network" whose estimate is the largest id of its map: which condition ran, and where it went."""
    del timesteps
    return maps.amax(dim=(1, 2)).view(-1, 1, 1, 1).expand_as(latents).float()


@pytest.mark.parametrize("micro_batch", [1, 3, 16])
def test_each_pixel_takes_its_own_label_guided(micro_batch: int) -> None:
    """Eq. (2): (1 + ω)·ε_c − ω·ε_∅, here ε_c = c and ε_∅ = 0; label 0 is the ∅ pass itself."""
    patches = [patch([[0, 1], [4, 4]]), patch([[3, 3], [3, 2]], [[0, 1], [1, 1]])]
    first, second = estimate(constant, patches, Guidance(0.5), "per_label", micro_batch)
    assert first.tolist() == [[0, 1.5, 6, 6]]
    assert second.tolist() == [[4.5, 4.5, 3]]


def test_micro_batches_have_one_size() -> None:
    sizes = []

    def spy(latents: torch.Tensor, timesteps: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
        sizes.append(len(latents))
        return constant(latents, timesteps, maps)

    estimate(spy, [patch([[1, 2]])] * 5, NONE, "per_label", 4)
    assert sizes == [4, 4, 4]


def by_label(latents: torch.Tensor, timesteps: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    """Exact denoiser of data that is the constant c wherever the condition is c."""
    alphas = SCHEDULE.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
    clean = maps.amax(dim=(1, 2)).view(-1, 1, 1, 1).float()
    return (latents - alphas.sqrt() * clean) / (1 - alphas).sqrt()


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_the_canvas_does_as_the_solver_alone(prediction: str) -> None:
    """Multistep solvers keep what they were given: the canvas must not write over it in the next step."""
    config = dict(noise_schedule(1000, "squaredcos_cap_v2", prediction).config)
    solver = Solver("dpmsolver++", config, 6)
    canvas = make(1, np.ones((8, 8), np.uint8), solver, "jittered")
    alone, y = Solver("dpmsolver++", config, 6), torch.from_numpy(canvas.latents.copy())
    history: SolverState = {}
    for k in range(6):
        y, history = alone.step(k, torch.tanh(y), y, history)

    def tanh(latents: torch.Tensor, timesteps: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
        del timesteps, maps
        return torch.tanh(latents)

    (filled,) = sample([canvas], tanh, NONE, "per_label", 4)
    assert np.array_equal(filled, y.numpy())


@pytest.mark.parametrize("solver", ["ddim", "dpmsolver++"])
@pytest.mark.parametrize("rule", ["jittered", "random", "aligned", "multidiffusion"])
@pytest.mark.parametrize("shape", [(8, 8), (19, 30)])
def test_algorithm_2_fills_each_label_with_its_own(solver: str, rule: str, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    label_map = rng.integers(0, 4, shape).astype(np.uint8)
    made = Solver(solver, dict(SCHEDULE.config), 8)
    canvas = make(2, label_map, made, rule)
    (filled,) = sample([canvas], by_label, NONE, "per_label", 4)
    assert np.abs(filled - label_map).max() < 0.05


@pytest.mark.parametrize("rule", ["jittered", "random", "multidiffusion"])
@pytest.mark.parametrize("guidance", [0.0, 2.0])
@pytest.mark.parametrize("conditioning", ["per_label", "joint"])
def test_forwards_are_known_before(rule: str, guidance: float, conditioning: Conditioning) -> None:
    """A wide patch counts four; what ran is what was foretold."""
    label_map = np.zeros((24, 40), np.uint8)
    label_map[:, 11:25], label_map[9:, 30:] = 1, 2
    canvas = make(2, label_map, Solver("dpmsolver++", dict(SCHEDULE.config), 4), rule, sides=WIDE)
    foretold, ran = forwards(label_map, canvas.covers, Guidance(guidance), conditioning), 0.0

    def count(latents: torch.Tensor, timesteps: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
        nonlocal ran
        del timesteps, maps
        ran += max(1, latents.shape[2] * latents.shape[3] / 64)
        return torch.zeros_like(latents)

    sample([canvas], count, Guidance(guidance), conditioning, 1)
    assert ran == foretold


def halves(latents: torch.Tensor, timesteps: torch.Tensor, label_maps: torch.Tensor) -> torch.Tensor:
    """A worse network than `by_label`: half of its estimate."""
    return by_label(latents, timesteps, label_maps) / 2


@pytest.mark.parametrize("conditioning", ["per_label", "joint"])
def test_auto_guidance_leads_away_from_the_worse_network(conditioning: Conditioning) -> None:
    one = patch([[1, 2], [0, 2]])
    auto = Guidance(2.0, "auto")
    (plain,) = estimate(by_label, [one], NONE, conditioning, 4)
    (guided,) = estimate(by_label, [one], auto, conditioning, 4, halves)
    assert np.allclose(guided, plain + 2.0 * (plain - plain / 2))
    assert num_forwards(one.labels, one.owned, auto, conditioning) == 2 * num_forwards(
        one.labels, one.owned, NONE, conditioning
    )


@pytest.mark.parametrize("kind", ["label", "auto"])
def test_outside_its_interval_nothing_is_guided_and_no_forward_spent(kind: str) -> None:
    interval = Guidance(2.0, kind, low=-3.0, high=3.0)  # type: ignore[arg-type]
    label_map = np.ones((8, 20), np.uint8)
    canvas = make(1, label_map, Solver("dpmsolver++", dict(SCHEDULE.config), 9))
    counted: dict[int, int] = defaultdict(int)

    def spy(latents: torch.Tensor, timesteps: torch.Tensor, label_maps: torch.Tensor) -> torch.Tensor:
        for timestep in timesteps.tolist():
            counted[timestep] += 1
        return by_label(latents, timesteps, label_maps)

    steps, levels = canvas.solver.timesteps, canvas.covers.log_snr
    patches = [len(cover) for cover in canvas.covers]
    foretold = forwards(label_map, canvas.covers, interval, "per_label")
    sample([canvas], spy, interval, "per_label", 1, spy)
    within = [-3 <= level <= 3 for level in levels]
    assert any(within)
    assert not all(within)
    wanted = {t: n * (2 if guided else 1) for t, n, guided in zip(steps, patches, within, strict=True)}
    assert counted == wanted
    assert foretold == sum(wanted.values())


@pytest.mark.parametrize("conditioning", ["joint", "per_label"])
@pytest.mark.parametrize("guidance", [Guidance(), Guidance(1.5), Guidance(0.5, kind="auto")])
def test_forwards_of_a_cover_are_those_of_its_patches(conditioning: Conditioning, guidance: Guidance) -> None:
    rng = np.random.default_rng(0)
    cover = covers.jittered(40, 56, 16, rng)
    for least in (0, 1):  # with and without unknown pixels
        labels = rng.integers(least, 4, (40, 56)).astype(np.uint8)
        one_by_one = {
            k: num_forwards(labels[cover.box(k)], cover.owned(k), guidance, conditioning)
            for k in range(len(cover))
        }
        assert forwards_of(cover, labels, guidance, conditioning) == one_by_one

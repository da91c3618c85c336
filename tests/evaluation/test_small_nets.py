"""Small networks: what they see is fair between sets, and unknown pixels teach nothing."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from diffgen.config import Downstream
from diffgen.evaluation import small_nets

TINY = Downstream(steps=10, batch=4, width=4, side=32)


def test_each_set_has_its_part_of_every_batch_and_all_of_it_comes_in_turn() -> None:
    pools = [np.arange(5), np.arange(5, 105)]
    order = small_nets.draws(pools, [0.5, 0.5], 8, 40, seed=3)
    assert order.shape == (40, 8)
    assert ((order < 5).sum(axis=1) == 4).all()
    seen = np.bincount(order.reshape(-1), minlength=105)
    assert set(seen[:5]) == {32}
    assert set(seen[5:]) == {1, 2}
    assert np.array_equal(order, small_nets.draws(pools, [0.5, 0.5], 8, 40, seed=3))


@given(
    shares=st.lists(st.floats(0.02, 1), min_size=1, max_size=4),
    steps=st.integers(1, 30),
    batch=st.integers(4, 8),
)
def test_shares_of_all_draws_are_those_asked_for(shares: list[float], steps: int, batch: int) -> None:
    shares = [share / sum(shares) for share in shares]
    pools = [np.arange(10 * k, 10 * k + 3 + k) for k in range(len(shares))]
    order = small_nets.draws(pools, shares, batch, steps, 0)
    for upto in range(1, steps + 1):
        seen = np.bincount(order[:upto].reshape(-1) // 10, minlength=len(shares))
        assert np.abs(seen - np.array(shares) * upto * batch).max() < len(shares)


def test_a_picture_is_enlarged_about_its_centre() -> None:
    x = torch.zeros(2, 1, 9, 9)
    x[:, :, 3:6, 3:6] = 1
    found = small_nets.scaled(x, torch.tensor([1.0, 1.7]), "nearest")
    assert torch.equal(found[0], x[0])
    assert found[1].sum() == 25


def test_a_training_ends_where_it_was_best(rng: np.random.Generator) -> None:
    pictures, targets = rng.integers(0, 256, (4, 32, 32, 3), np.uint8), rng.integers(0, 3, (4, 32, 32))
    network, order = small_nets.build("segmentation", 2, 4, 0), np.zeros((6, 4), np.intp)
    scores = iter([0.2, 0.9, 0.4])
    kept: dict[int, torch.Tensor] = {}

    def score(looked_at: torch.nn.Module) -> float:
        kept[len(kept)] = next(looked_at.parameters()).detach().clone()
        return next(scores)

    looks = small_nets.Checkpoints(frozenset({2, 4, 6}), score)
    small_nets.fit(network, "segmentation", pictures, targets, order, TINY, 0, checkpoints=looks)
    assert looks.scores == {2: 0.2, 4: 0.9, 6: 0.4}
    assert torch.equal(next(network.parameters()), kept[1])
    assert not torch.equal(kept[1], kept[2])


def test_label_maps_turn_with_their_pictures(rng: np.random.Generator) -> None:
    y = torch.from_numpy(rng.integers(0, 3, (16, 8, 8)))
    y = y.repeat_interleave(8, dim=1).repeat_interleave(8, dim=2)  # most pixels lie between no two classes
    x, turned = small_nets.augmented(10.0 * y[:, None].expand(-1, 3, -1, -1), y, rng)
    assert not torch.equal(turned, y)
    assert turned.dtype == y.dtype
    assert set(turned.unique().tolist()) <= {0, 1, 2}
    assert ((x / 10).round().long()[:, 0].clamp(max=1) == turned.clamp(max=1)).float().mean() > 0.9
    kept = small_nets.augmented(x, y[:, 0, 0], rng)[1]
    assert torch.equal(kept, y[:, 0, 0])


def test_loss_is_cross_entropy_and_dice_of_known_pixels() -> None:
    torch.manual_seed(0)
    logits, y = torch.randn(2, 2, 6, 6), torch.randint(0, 3, (2, 6, 6))
    known = y > 0
    p, t = logits.softmax(dim=1).movedim(1, -1)[known], F.one_hot(y[known] - 1, 2)
    dice = (2 * (p * t).sum(dim=0) / (p.sum(dim=0) + t.sum(dim=0))).mean()
    expected = -(p.log() * t).sum(dim=1).mean() + 1 - dice
    assert small_nets.loss("segmentation", logits, y).item() == pytest.approx(expected.item(), abs=1e-4)
    other = torch.where(known[:, None], logits, 9 * torch.randn_like(logits))
    assert small_nets.loss("segmentation", other, y).item() == pytest.approx(expected.item(), abs=1e-4)


def test_a_batch_of_unknown_pixels_teaches_nothing() -> None:
    logits = torch.randn(1, 2, 4, 4, requires_grad=True)
    small_nets.loss("segmentation", logits, torch.zeros(1, 4, 4)).backward()
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize("task", ["segmentation", "classification"])
def test_weights_are_a_function_of_seed_and_data(task: str, rng: np.random.Generator) -> None:
    pictures = rng.integers(0, 256, (6, 32, 32, 3), np.uint8)
    targets = rng.integers(0, 3, (6, 32, 32)) if task == "segmentation" else rng.integers(0, 2, 6)

    def trained(seed: int) -> np.ndarray:
        torch.rand(3)  # whatever else was drawn in the process
        network = small_nets.build(task, 2, 4, seed)
        order = small_nets.draws([np.arange(6)], [1.0], 4, 4, seed)
        small_nets.fit(network, task, pictures, targets, order, TINY, seed)
        return torch.cat([p.detach().flatten() for p in network.parameters()]).numpy()

    first = trained(1)
    assert np.array_equal(first, trained(1))
    assert not np.array_equal(first, trained(2))


def test_a_picture_is_judged_by_itself(rng: np.random.Generator) -> None:
    pictures = rng.integers(0, 256, (4, 32, 32, 3), np.uint8)
    for task in ("segmentation", "classification"):
        network = small_nets.build(task, 2, 4, 0)
        whole = small_nets.predict(network, task, pictures)
        assert np.array_equal(whole[2:3], small_nets.predict(network, task, pictures[2:3]))
        assert set(np.unique(whole)) <= ({1, 2} if task == "segmentation" else {0, 1})

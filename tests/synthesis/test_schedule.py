"""Which patches a lease holds, as a table of cases: sides of 8, micro-batches of 4, leases of 8 forwards."""

import pytest

from diffgen.synthesis.schedule import OpenPatches, choose


def patches(
    image: int, count: int, model: str = "image", side: int = 8, forwards: int = 1, fraction: float = 0.0
) -> OpenPatches:
    cost = side**2 // 8**2
    return OpenPatches(
        image, model, (side, side), dict.fromkeys(range(count), forwards), 8, max(1, 4 // cost), fraction
    )


def of(image: int, *numbers: int) -> list[tuple[int, int]]:
    return [(image, number) for number in numbers]


FULL = {"workers": 1, "todo": 9, "room": 9, "busy": set()}
CASES = {
    "a budget's worth of the oldest": (FULL, [patches(0, 20), patches(1, 20)], of(0, *range(8))),
    "a wide patch counts as four": (FULL, [patches(0, 20, side=16)], of(0, 0, 1)),
    "two forwards each": (FULL, [patches(0, 20, forwards=2)], of(0, 0, 1, 2, 3)),
    "a fair share": (FULL | {"workers": 2}, [patches(0, 8)], of(0, 0, 1, 2, 3)),
    "at least a micro-batch": (FULL | {"workers": 9}, [patches(0, 8)], of(0, 0, 1, 2, 3)),
    "whole micro-batches": (FULL, [patches(0, 7)], of(0, 0, 1, 2, 3)),
    "with another's": (FULL, [patches(0, 2), patches(1, 3)], [*of(0, 0, 1), *of(1, 0, 1)]),
    "not with another model's": (FULL, [patches(0, 3, "mask"), patches(1, 4)], of(1, 0, 1, 2, 3)),
    "not with another shape's": (FULL, [patches(0, 3), patches(1, 2, side=16)], of(1, 0, 1)),
    "too few: begin another": (FULL, [patches(0, 3)], []),
    "too few, no room, others busy: wait": (FULL | {"room": 0, "busy": {1}}, [patches(0, 3)], []),
    "too few, and only its own are out": (FULL | {"room": 0, "busy": {0}}, [patches(0, 3)], of(0, 0, 1, 2)),
    "too few, and no more to come": (FULL | {"room": 0}, [patches(0, 3)], of(0, 0, 1, 2)),
    "too few of the last images": (FULL | {"todo": 0}, [patches(0, 3)], of(0, 0, 1, 2)),
    "the last images side by side": (
        FULL | {"todo": 0}, [patches(0, 8, fraction=0.5), patches(1, 8)], of(1, *range(8)),
    ),
    "not while there is enough of them": (
        FULL | {"todo": 0}, [patches(0, 30, fraction=0.5), patches(1, 30)], of(0, *range(8)),
    ),
    "one patch of more than a budget": (FULL | {"todo": 0}, [patches(0, 2, forwards=20)], of(0, 0)),
    "nothing open": (FULL, [], []),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_lease_s_patches(name: str) -> None:
    rest, candidates, chosen = CASES[name]
    assert choose(candidates, 8, **rest) == chosen

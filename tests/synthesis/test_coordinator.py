"""The plain coordinator, with the real sampler: leases, faults, and the bytes that come of them."""

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from diffgen.models import bundle
from diffgen.sampling.canvas import CanvasState, NonFiniteError
from diffgen.storage import Folder
from diffgen.synthesis import snapshots
from diffgen.synthesis.coordinator import Coordinator
from diffgen.synthesis.leases import Lease, PatchBatch, Result
from diffgen.synthesis.manifest import Sample
from diffgen.synthesis.plan import Plan, make_plan
from diffgen.synthesis.render import RenderJob
from diffgen.synthesis.sampler import Sampler
from tests.synthesis.helpers import settings, work


@pytest.fixture(scope="module")
def plan(tiny_bundle: Path) -> Plan:
    return make_plan(bundle.pack(tiny_bundle), tiny_bundle, settings(), None)


@pytest.fixture(scope="module")
def sampler(tiny_bundle: Path) -> Sampler:
    return Sampler(tiny_bundle, settings().sampling)


def paint(coordinator: Coordinator, sampler: Sampler, budget: int = 5) -> dict[int, Sample]:
    while not coordinator.over:
        lease = coordinator.lease("w", budget)
        assert coordinator.commit(lease.id, work(sampler, lease))
    return {sample.index: sample for sample in coordinator.take(coordinator.status().ready)}


@pytest.fixture(scope="module")
def undisturbed(plan: Plan, sampler: Sampler) -> dict[int, Sample]:
    return paint(Coordinator(plan, range(3), 3, 60), sampler)


def rows(lease: Lease) -> int:
    assert isinstance(lease.work, PatchBatch)
    return len(lease.work.latents)


def same(left: dict[int, Sample], right: dict[int, Sample]) -> bool:
    return {k: (s.image, s.mask, s.record) for k, s in left.items()} == {
        k: (s.image, s.mask, s.record) for k, s in right.items()
    }


@pytest.mark.parametrize(("in_flight", "budget"), [(1, 1), (2, 3), (3, 100)])
def test_bytes_do_not_depend_on_leases(
    plan: Plan, sampler: Sampler, undisturbed: dict[int, Sample], in_flight: int, budget: int
) -> None:
    assert same(paint(Coordinator(plan, range(3), in_flight, 60), sampler, budget), undisturbed)


def test_an_image_does_not_depend_on_the_others(
    plan: Plan, sampler: Sampler, undisturbed: dict[int, Sample]
) -> None:
    """Promises 3 and 4: image 2 alone is image 2 of many."""
    alone = paint(Coordinator(plan, [2], 1, 60), sampler)
    assert same(alone, {2: undisturbed[2]})
    assert len({sample.image for sample in undisturbed.values()}) == 3


def test_lost_workers_and_late_duplicates(
    plan: Plan, sampler: Sampler, undisturbed: dict[int, Sample]
) -> None:
    """Every third lease is lost with its worker; its answer comes twice, late."""
    coordinator, late, turn = Coordinator(plan, range(3), 3, 60), list[tuple[Lease, Result]](), 0
    while not coordinator.over:
        turn += 1
        lease = coordinator.lease(f"worker-{turn % 3}", 4)
        assert lease.kind != "wait", "what is revoked is open again"
        results = work(sampler, lease)
        if turn % 3 == 0:
            late.append((lease, results))
            coordinator.release("worker-0")
            continue
        assert coordinator.commit(lease.id, results)
        assert not coordinator.commit(lease.id, results), "a second answer is dropped"
        if turn % 5 == 0 and late:
            coordinator.commit(late[-1][0].id, late[-1][1])  # taken if it is still wanted, else dropped
            assert not coordinator.commit(late[-1][0].id, late[-1][1])
    assert late
    assert same({s.index: s for s in coordinator.take(range(3))}, undisturbed)


def test_a_hanging_worker_s_lease_expires(plan: Plan) -> None:
    coordinator = Coordinator(plan, [0], 1, timeout_s=0.0)
    lost = coordinator.lease("hangs", 100)
    assert coordinator.lease("other", 100).kind == "wait"
    assert coordinator.expire() == ["hangs"]
    again = coordinator.lease("other", 100)
    assert again.id != lost.id
    assert rows(again) == rows(lost)


def test_a_late_answer_serves_if_it_is_still_wanted(plan: Plan, sampler: Sampler) -> None:
    """A worker slower than the timeout is not asked the same for ever; what it did twice is dropped."""
    coordinator = Coordinator(plan, [0], 1, timeout_s=0.0)
    slow = coordinator.lease("slow", 100)
    results = work(sampler, slow)
    coordinator.expire()
    again = coordinator.lease("other", 100)
    assert coordinator.commit(slow.id, results)
    assert not coordinator.commit(again.id, results)
    assert coordinator.jobs[0].canvas is not None
    assert coordinator.jobs[0].canvas.step == 1


def test_leases_fill_across_images_and_hold_one_model(plan: Plan) -> None:
    coordinator = Coordinator(plan, range(3), 3, 60)
    lease = coordinator.lease("w", 100)
    assert lease.kind == "mask"
    assert len({piece.image for piece in coordinator.held[lease.id].pieces}) == 3


def test_forwards_are_counted_exactly(plan: Plan, tiny_bundle: Path) -> None:
    """Rows that went through the U-Nets, padding aside, are the forwards of the records."""
    sampler = Sampler(tiny_bundle, settings(sampling={"micro_batch": 1}).sampling)
    calls = 0
    for unet in (sampler.bundle.image_unet, sampler.bundle.mask_unet):
        assert unet is not None

        def count(*_: object) -> None:
            nonlocal calls
            calls += 1

        unet.register_forward_pre_hook(count)
    coordinator = Coordinator(plan, range(2), 2, 60)
    samples = paint(coordinator, sampler)
    assert sum(sample.record["forwards"] for sample in samples.values()) == calls
    assert coordinator.status().forwards == calls


def test_not_a_number_stops_that_image_only(plan: Plan, sampler: Sampler) -> None:
    """Promise 10: the error names image, step and patch, and nothing of it becomes a sample."""
    coordinator = Coordinator(plan, range(2), 2, 60)
    while not coordinator.over:
        lease = coordinator.lease("w", 1)
        results = work(sampler, lease)
        index, _, number, _ = coordinator.held[lease.id].pieces[0]
        job = coordinator.jobs[index]
        if index == 1 and job.stage == "image" and job.canvas is not None and job.canvas.step == 1:
            results = replace(results, result=np.full_like(results.result, np.nan))
            broken = number
        coordinator.commit(lease.id, results)
    status = coordinator.status()
    assert status.ready == (0,)
    assert status.failed == {1: f"image 1, image model, step 2 of 3, patch {broken}: not a finite estimate"}


def test_samples_stay_until_they_are_dropped(plan: Plan, sampler: Sampler) -> None:
    coordinator = Coordinator(plan, [0], 1, 60)
    paint(coordinator, sampler)
    assert coordinator.take([0]) == coordinator.take([0])
    coordinator.drop([0])
    assert coordinator.status().ready == ()
    assert coordinator.take([0]) == []


def test_nothing_is_rendered_while_the_writer_is_behind(
    plan: Plan, sampler: Sampler, undisturbed: dict[int, Sample]
) -> None:
    coordinator = Coordinator(plan, range(3), 1, 60)
    coordinator.wait_for_writer(True)
    while (lease := coordinator.lease("w", 100)).kind != "wait":
        assert lease.kind != "render"
        coordinator.commit(lease.id, work(sampler, lease))
    assert coordinator.status().ready == ()
    coordinator.wait_for_writer(False)
    assert same(paint(coordinator, sampler), undisturbed)


@pytest.mark.parametrize("broken", [0, 1])
def test_a_region_that_cannot_be_rendered_costs_its_tiles_only(tiny_bundle: Path, broken: int) -> None:
    """The others are made, whichever region comes first: what is left out must not depend on the order."""
    chosen = settings(size="96x32", emit="tiles", tile=32, sampling={"decode_tile": 2})
    made = make_plan(bundle.pack(tiny_bundle), tiny_bundle, chosen, None)
    sampler, coordinator, seen = Sampler(tiny_bundle, chosen.sampling), Coordinator(made, range(3), 1, 60), []
    while not coordinator.over:
        lease = coordinator.lease("w", 100)
        result = work(sampler, lease)
        if isinstance(lease.work, RenderJob):
            seen.append(list(lease.work.region.tiles))
            if len(seen) == broken + 1:
                result = replace(result, result=NonFiniteError("no number"))
        coordinator.commit(lease.id, result)
    status = coordinator.status()
    assert sorted(map(len, seen)) == [1, 2]
    assert status.failed == dict.fromkeys(seen[broken], "image 0, autoencoder, no number")
    assert sorted(status.ready) == sorted(seen[1 - broken])
    assert status.images == 1


def test_the_store_is_asked_once_where_there_are_no_snapshots(
    plan: Plan, sampler: Sampler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request an image took longer than its leases on an object store, and nobody is served meanwhile."""
    coordinator = Coordinator(plan, range(3), 3, 60, str(tmp_path))
    for name in ("exists", "files", "read", "delete"):
        monkeypatch.delattr(Folder, name)
    assert sorted(paint(coordinator, sampler)) == [0, 1, 2]
    coordinator.drop(range(3))
    assert coordinator.status().ready == ()


def test_a_store_that_does_not_answer_keeps_nobody_waiting(
    plan: Plan,
    sampler: Sampler,
    undisturbed: dict[int, Sample],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One snapshot waits for it; the others are left out, and it is removed after it."""
    answers, asked, forgotten = threading.Event(), list[int](), list[int]()

    def save(_store: Folder, image: int, _snapshot: bytes) -> None:
        asked.append(image)
        assert answers.wait(60)

    monkeypatch.setattr(snapshots, "save", save)
    monkeypatch.setattr(snapshots, "forget", lambda _store, image: forgotten.append(image))
    coordinator = Coordinator(plan, range(3), 3, 60, str(tmp_path), snapshot_s=0, background=True)
    assert same(paint(coordinator, sampler), undisturbed)
    coordinator.drop(range(3))
    assert len(asked) == 1
    assert forgotten == []
    answers.set()
    coordinator.settle()
    assert forgotten == asked


def test_while_a_snapshot_is_read_others_are_painted(
    plan: Plan,
    sampler: Sampler,
    undisturbed: dict[int, Sample],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first image is at its snapshot, whose store does not answer until the other two are done."""
    before = Coordinator(plan, [0], 1, 60, str(tmp_path), snapshot_s=0)
    while not before.saved:
        lease = before.lease("w", 5)
        before.commit(lease.id, work(sampler, lease))
    answers, read = threading.Event(), snapshots.read
    done = before.forwards

    def slow(store: Folder, image: int) -> CanvasState | None:
        assert answers.wait(60)
        return read(store, image)

    monkeypatch.setattr(snapshots, "read", slow)
    coordinator = Coordinator(plan, range(3), 3, 60, str(tmp_path), snapshot_s=1e9, background=True)
    while (lease := coordinator.lease("w", 5)).kind != "wait":
        coordinator.commit(lease.id, work(sampler, lease))
    assert sorted(coordinator.finished) == [1, 2]
    assert not coordinator.over
    others = coordinator.forwards
    answers.set()
    coordinator.settle()
    assert same(paint(coordinator, sampler), undisturbed)
    assert coordinator.forwards - others == undisturbed[0].record["forwards"] - done

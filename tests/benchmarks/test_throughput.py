"""The benchmarks measure what they say, at sizes at which the figures mean nothing."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import throughput
from benchmarks.synthesis import bundles, coordinator, memory, paper_sampler, pipeline, scaling, simulate
from diffgen.models import bundle
from diffgen.sampling.solvers import noise_schedule
from diffgen.synthesis.coordinator import Coordinator

FREE = simulate.Costs(0.0, 0.0, 0.0, 0.0, 0.0)


def test_the_papers_sampler_runs_two_forwards_a_label_and_one_for_unknown() -> None:
    calls = []

    def network(latents: torch.Tensor, _t: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
        assert len(latents) == 1
        calls.append(len(np.unique(maps)))
        return 0.1 * latents

    schedule = dict(noise_schedule(1000, "squaredcos_cap_v2", "epsilon").config)
    labels = np.zeros((16, 16), dtype=np.uint8)
    labels[:, 8:] = 2
    latents, forwards = paper_sampler.paper_sampler(network, 4, 8, schedule, labels, range(5), 250)
    covers = [paper_sampler.paper_cover((16, 16), 8, step) for step in range(5)]
    expected = sum(
        paper_sampler.paper_forwards(labels[cover.box(k)]) for cover in covers for k in range(len(cover))
    )
    assert forwards == len(calls) == expected
    assert torch.isfinite(latents).all()


def test_the_bare_loop_counts_base_forwards(tiny_bundle: Path) -> None:
    settings = bundles.settings_of(tiny_bundle)
    bare = pipeline.Bare(bundle.pack(tiny_bundle), settings.sampling)
    assert bare.loop([8, 16], 0.05) > 0


def test_a_free_coordinator_costs_nothing_and_a_slow_one_sets_the_pace() -> None:
    fleet = simulate.Fleet(4, budget=64, in_flight=32)  # 8 images have too few patches for four
    assert simulate.many_images(600, 256, 64, 5, fleet, FREE).efficiency > 0.95
    slow = simulate.many_images(600, 256, 64, 5, fleet, replace(FREE, lease_s=1e-3))
    assert slow.efficiency < 0.26
    assert slow.coordinator_busy > 0.9


def test_stepping_by_blocks_makes_the_same_patches_with_less_waiting() -> None:
    fleet = simulate.Fleet(8, 8, micro_batch=8, in_flight=1)
    costs = replace(FREE, step_s=1e-7)
    step, block = (simulate.one_image(768, 64, 4, by_blocks, fleet, costs) for by_blocks in (False, True))
    assert step.patches == block.patches
    assert block.seconds < step.seconds


def test_the_coordinators_parts_add_up() -> None:
    found = coordinator.in_process(coordinator.coordinator_task(600), 64)
    parts = sum(found[f"{name}_us_per_patch"] for name in ("lease", "commit", "step"))
    assert found["patches_per_second"] == pytest.approx(1e6 / parts)


def test_the_trivial_sampler_paints_tiles_and_the_canvas_keeps_to_its_bytes() -> None:
    task = coordinator.paper_plan(512, 1, "tiles", 512, given=False)
    sampling = task.plan.sampling.model_copy(update={"steps": 3, "mask_steps": 3})
    task = replace(task, plan=replace(task.plan, sampling=sampling))
    serving, most = Coordinator(task.plan, [0], 1, 60.0), 0.0
    sampler = memory.trivial_sampler(task.plan)
    while not serving.over:
        lease = serving.lease("one", 32)
        serving.commit(lease.id, sampler.finish(lease, sampler.compute(lease)))
        for job in serving.jobs.values():
            if job.stage == "image" and job.canvas is not None:
                most = max(most, memory.canvas_bytes(job.canvas) / 64**2)
    assert 2 * 16 < most <= 16 * 4 + 8
    assert not serving.failed


def test_parts_are_added_to_the_file(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    path.write_text(json.dumps({"coordinator": {"64": scaling.ASSUMED}}))
    throughput.main(["--only", "scaling", "--quick", "--json", str(path)])
    found = json.loads(path.read_text())
    assert found["scaling"]["measured"]
    assert set(found["scaling"]["many"]) == {"1", "8", "64", "512"}
    assert "coordinator" in found

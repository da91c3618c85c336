"""The command against bare networks, and against the paper's sampler."""

import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from benchmarks.synthesis.bundles import NUM_MAPS, forwards_of, per_label, settings_of, side_of, write_maps
from benchmarks.synthesis.effort import Effort, goal
from benchmarks.synthesis.paper_sampler import PAPER_GUIDANCE, PAPER_STEPS, paper_cover, paper_forwards
from benchmarks.synthesis.pipeline import bare_actors, bare_rate, run_command
from diffgen import label_maps
from diffgen.models import bundle
from diffgen.synthesis.plan import make_plan


def efficiency(folder: Path, effort: Effort, samplers: Sequence[int]) -> dict[str, Any]:
    """Rates of command and bare loops by turns, and the median of their ratios."""
    facts, classes = bundle.load(folder, weights=False).facts, len(bundle.load(folder, weights=False).labels)
    side = side_of(facts, 4)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        given = write_maps(Path(temporary) / "maps", side, side // 4, classes)
        for number in samplers:
            settings = settings_of(folder, synthesis__samplers=number)
            plan = make_plan(bundle.pack(folder), folder, settings, given)
            latent = (side // facts.factor,) * 2
            bare = [bare_rate(folder, plan, latent, number, effort.seconds / 4)]
            an_image = statistics.mean(forwards_of(plan, k) for k in range(NUM_MAPS))
            n = max(2 * number, round(effort.seconds * bare[0] / an_image))
            settings = settings_of(folder, synthesis__samplers=number, synthesis__n=n)
            runs = []
            for _ in range(effort.repeats):
                runs.append(run_command(folder, settings, given, number)[0])
                bare.append(bare_rate(folder, plan, latent, number, effort.seconds / 4))
            ratios = [run / statistics.mean(bare[k : k + 2]) for k, run in enumerate(runs)]
            found[str(number)] = {
                "ratio": statistics.median(ratios), "ratios": ratios, "bare": bare, "command": runs,
                "images": n, "forwards_an_image": an_image,
            }  # fmt: skip
    return found


def paper(folder: Path, effort: Effort, full: bool) -> dict[str, Any]:
    """Forwards and seconds per image of the paper's sampler and of the command."""
    import ray

    loaded = bundle.load(folder, weights=False)
    facts, side = loaded.facts, side_of(loaded.facts, 4)
    steps = range(PAPER_STEPS)
    timed = steps if full else [k * PAPER_STEPS // effort.paper_steps for k in range(effort.paper_steps)]
    with tempfile.TemporaryDirectory() as temporary:
        folder = per_label(folder, Path(temporary) / "bundle")
        given = write_maps(Path(temporary) / "maps", side, side // 4, len(loaded.labels))
        options = {"sampling__guidance": PAPER_GUIDANCE, "synthesis__samplers": 1}
        settings = settings_of(folder, **options)
        plan = make_plan(bundle.pack(folder), folder, settings, given)
        there = [given_map for k in range(NUM_MAPS) if (given_map := plan.given(k)) is not None]
        maps = [label_maps.on_grid(label_map, facts.factor) for _, label_map in there]
        with bare_actors(folder, plan.sampling, 1) as (actor,):
            done, seconds = ray.get(actor.paper.remote(maps[0], timed, PAPER_STEPS))
        an_image = statistics.mean(forwards_of(plan, k) for k in range(NUM_MAPS))
        rate = done / seconds  # ours is faster: a first guess of how many images fill the time
        n = max(1, round(effort.seconds * rate / an_image))
        n -= n % NUM_MAPS if n > NUM_MAPS else 0  # every map as often
        maps = maps[:n]
        theirs = labels = patches = 0
        for step in steps:
            cover = paper_cover(maps[0].shape, facts.image_patch, step)
            for number in range(len(cover)):
                crops = [whole[cover.box(number)] for whole in maps]
                theirs += sum(paper_forwards(crop) for crop in crops)
                labels += sum(len(np.unique(crop)) for crop in crops)
            patches += len(cover) * len(maps)
        settings = settings_of(folder, **options, synthesis__n=n)
        our_rate, forwards = run_command(folder, settings, given, 1)
    their_forwards, our_forwards = theirs / len(maps), forwards / n
    their_seconds, our_seconds = their_forwards * seconds / done, our_forwards / our_rate
    return {
        "forwards": their_forwards / our_forwards,
        "time": their_seconds / our_seconds,
        "paper": {"forwards": their_forwards, "seconds": their_seconds, "timed_forwards": done,
                  "patches_per_step": patches / len(maps) / PAPER_STEPS,
                  "labels_per_patch": labels / patches},
        "ours": {"forwards": our_forwards, "seconds": our_seconds, "images": n},
    }  # fmt: skip


def show_efficiency(found: dict[str, Any]) -> Table:
    table = Table("samplers", "bare forwards/s", "command forwards/s", "ratio", "runs", title="efficiency")
    for number, row in found.items():
        bare, runs = (statistics.median(row[name]) for name in ("bare", "command"))
        least = 0.95 if number == "1" else 0.90
        runs_text = f"{min(row['ratios']):.3f} to {max(row['ratios']):.3f}, {row['images']} images each"
        table.add_row(number, f"{bare:.1f}", f"{runs:.1f}", goal(row["ratio"], least), runs_text)
    return table


def show_paper(found: dict[str, Any]) -> Table:
    theirs, ours = found["paper"], found["ours"]
    table = Table("an image", "paper's sampler", "this command", "ratio", title="against the paper's sampler")
    table.caption = (
        f"{theirs['patches_per_step']:.1f} patches per step, {theirs['labels_per_patch']:.2f} labels per "
        f"patch; the paper's time from {theirs['timed_forwards']} forwards"
    )
    rows = (("forwards", 16.0, ".0f"), ("seconds", 25.0, ".1f"))
    for name, least, form in rows:
        ratio = found["forwards" if name == "forwards" else "time"]
        table.add_row(name, f"{theirs[name]:{form}}", f"{ours[name]:{form}}", goal(ratio, least))
    return table

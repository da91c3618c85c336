"""The checkpoints of a run, `train/PART/step-N/`, in the order of Ray Train and without it.

Invariants: `register` writes the snapshot that Ray Train reads when it starts, and `last` reads the one that
Ray Train writes. So a run begun with Ray goes on without, and the other way round. A checkpoint is in the
snapshot only when it is whole.
"""

import json
from pathlib import Path
from typing import Any

from diffgen.storage import Folder

SNAPSHOT = "checkpoint_manager_snapshot.json"
NEW: dict[str, Any] = {
    "checkpoint_results": [],
    "checkpoint_report_indices": [],
    "latest_checkpoint_result": None,
    "pending_training_results": [],
    "pending_validation_specs": [],
    "current_report_index": 0,
    "validated_checkpoint_dir_names": [],
    "timed_out_validation_checkpoint_dir_names": [],
    "failed_validation_checkpoint_dir_names": [],
}
"""Ray 2.60's `_CheckpointManagerState` of a run without checkpoints."""


def name_of(step: int) -> str:
    """The folder of a checkpoint."""
    return f"step-{step:07d}"


def last(run: Folder, part: str) -> str | None:
    """The last checkpoint's folder, as a name in the run; None where there is none."""
    found = _snapshot(run, part)["latest_checkpoint_result"]
    return f"train/{part}/{found['checkpoint_dir_name']}" if found else None


def register(run: Folder, part: str, checkpoint: Path, metrics: dict[str, float], keep: int) -> None:
    """Copy a checkpoint of `metrics["step"]` into the run as its last one; of older ones `keep` − 1 stay."""
    state, name = _snapshot(run, part), name_of(int(metrics["step"]))
    run.push(checkpoint, f"train/{part}/{name}")
    result = {"version": 0, "checkpoint_dir_name": name, "metrics": metrics}
    index = state["current_report_index"]
    pairs = zip(state["checkpoint_results"], state["checkpoint_report_indices"], strict=True)
    all_pairs = [pair for pair in pairs if pair[0]["checkpoint_dir_name"] != name] + [(result, index)]
    gone, kept = all_pairs[:-keep], all_pairs[-keep:]
    state |= {
        "checkpoint_results": [pair[0] for pair in kept],
        "checkpoint_report_indices": [pair[1] for pair in kept],
        "latest_checkpoint_result": result,
        "current_report_index": index + 1,
    }
    run.write_text(f"train/{part}/{SNAPSHOT}", json.dumps(state))
    for old, _ in gone:
        run.remove(f"train/{part}/{old['checkpoint_dir_name']}")


def _snapshot(run: Folder, part: str) -> dict[str, Any]:
    return NEW | json.loads(run.read_text(f"train/{part}/{SNAPSHOT}") or "{}")

"""An output folder belongs to one run, and says on which devices it was made."""

import json
import uuid
from pathlib import Path

import pytest

from diffgen.errors import UserError
from diffgen.storage import Folder
from diffgen.synthesis.run_record import RUN, claim


@pytest.fixture(params=["local", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    return Folder(str(tmp_path / "out") if request.param == "local" else f"memory://{uuid.uuid4().hex}/out")


def test_claim(folder: Folder) -> None:
    claim(folder, {"seed": 1, "sampling": {"steps": 20}})
    claim(folder, {"sampling": {"steps": 20}, "seed": 1})
    with pytest.raises(
        UserError, match=r"was made with other settings: sampling.steps 20 → 50; choose anoth"
    ):
        claim(folder, {"seed": 1, "sampling": {"steps": 50}})
    with pytest.raises(UserError, match=r"a None → 1; b None → 1; c None → 1; … and 2 more; choose"):
        claim(folder, {"seed": 2, "sampling": {"steps": 20}, "a": 1, "b": 1, "c": 1, "d": 1} | {"seed": 2})
    with pytest.raises(UserError, match="other settings"):
        claim(folder, {"seed": 1, "sampling": {"steps": 20}, "new": None})
    folder.write(RUN, b'{"seed"')
    with pytest.raises(UserError, match=r"run\.json is not readable"):
        claim(folder, {"seed": 1})


ON_CPU = {"device": "cpu", "precision": "fp32", "torch": "2.13.0"}
RUN_ON_CPU = {"seed": 1, "sampling": {"steps": 20, "precision": "fp32", "micro_batch": 8}}
RUN_ON_GPU = {"seed": 1, "sampling": {"steps": 20, "precision": "bf16", "micro_batch": 64}}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"device": "H100"}, "device cpu → H100"),
        ({"precision": "bf16"}, "precision fp32 → bf16"),
        ({"torch": "2.14.0"}, "torch 2.13.0 → 2.14.0"),
    ],
)
def test_another_device_is_refused_unless_they_may_mix(
    folder: Folder, change: dict[str, str], named: str
) -> None:
    other = ON_CPU | change
    run = RUN_ON_CPU if change.get("precision") is None else RUN_ON_GPU
    claim(folder, RUN_ON_CPU, ON_CPU)
    claim(folder, RUN_ON_CPU, ON_CPU)
    with pytest.raises(UserError, match=f"made on another device: {named}; .*--mix-devices"):
        claim(folder, run, other)
    with pytest.raises(UserError, match="other settings: seed 1 → 2; choose another --out"):
        claim(folder, run | {"seed": 2}, other, mix=True)
    claim(folder, run, other, mix=True)
    claim(folder, run, other)
    claim(folder, RUN_ON_CPU, ON_CPU)
    assert json.loads(folder.read(RUN)) == RUN_ON_CPU | {"made_on": [ON_CPU, other]}


def test_on_one_device_another_micro_batch_is_refused(folder: Folder) -> None:
    claim(folder, RUN_ON_CPU, ON_CPU)
    with pytest.raises(UserError, match=r"other settings: sampling.micro_batch 8 → 4"):
        claim(folder, {"seed": 1, "sampling": RUN_ON_CPU["sampling"] | {"micro_batch": 4}}, ON_CPU)  # type: ignore[operator]


def test_folders_from_before_devices_were_written_down_go_on(folder: Folder) -> None:
    claim(folder, RUN_ON_CPU)
    claim(folder, RUN_ON_CPU, ON_CPU)
    with pytest.raises(UserError, match=r"sampling.micro_batch 8 → 64; sampling.precision fp32 → bf16"):
        claim(folder, RUN_ON_GPU, ON_CPU | {"device": "H100", "precision": "bf16"})


def test_foreign_folder_is_refused_untouched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(UserError, match="is not empty and was not made by diffgen synthesize"):
        claim(Folder(str(tmp_path)), {"seed": 1})
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]

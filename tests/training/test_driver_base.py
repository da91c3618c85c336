"""The base of a run: made once, and anew where another start has left one by other settings."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from diffgen import config
from diffgen.data.stream import PatchTable
from diffgen.errors import UserError
from diffgen.labels import Labels
from diffgen.models import bundle
from diffgen.models.autoencoder import LatentCodec, LinearAutoencoder
from diffgen.storage import Folder
from diffgen.training.driver_base import MEASURED_PATCHES, RUN, Driver, InitBundle, build_base
from diffgen.training.encoder_pool import measure, measure_on_ray
from tests.conftest import TINY
from tests.data import prepared


@pytest.fixture
def data(tiny: config.Settings, labels: Labels, tmp_path: Path) -> Path:
    return prepared.make(tmp_path / "data", tiny, labels)


def base(
    data: Path, run: Folder, place: Path, start: InitBundle | None = None, **changes: Any
) -> bundle.Bundle:
    settings = config.validate(config.merge(TINY, changes))
    shaping = {**changes, "init_from": start and start.name, "training": "as it may be"}
    driver = Driver(data, str(data), run, settings, Console(quiet=True), False, place)
    return build_base(driver, ["image"], shaping, start)


def test_what_an_encode_or_a_failed_start_left_is_kept_only_for_the_same_settings(
    data: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    """Nothing may be trained on the schedule or the latents of another start."""
    run, place = Folder(str(tmp_path / "run")), tmp_path / "scratch"
    made = base(data, run, place / "1")
    stamp = (tmp_path / "run" / "base" / bundle.INDEX).stat().st_mtime_ns
    base(data, run, place / "2")
    assert (tmp_path / "run" / "base" / bundle.INDEX).stat().st_mtime_ns == stamp
    other = base(data, run, place / "3", diffusion={"prediction": "v_prediction"})
    assert [b.schedule["prediction_type"] for b in (made, other)] == ["epsilon", "v_prediction"]
    started = base(data, run, place / "4", InitBundle("b", tiny_bundle))
    assert started.codec.model.state_dict().keys() == made.codec.model.state_dict().keys()
    theirs = bundle.load(tiny_bundle).codec.model.state_dict()
    assert all(bool((theirs[k] == v).all()) for k, v in started.codec.model.state_dict().items())
    run.write_text(RUN, "")
    again = base(data, run, place / "5", diffusion={"prediction": "v_prediction"})
    assert again.schedule["prediction_type"] == "epsilon", "a run that was begun keeps its base"


@pytest.mark.parametrize("maps", [1, 50, 300])
def test_label_maps_are_measured_all_over_the_data(
    tiny: config.Settings, labels: Labels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, maps: int
) -> None:
    """Those of the first sources alone may lack a class."""
    data, seen, read = prepared.make(tmp_path, tiny, labels, maps=maps), list[int](), PatchTable.label_map
    monkeypatch.setattr(
        PatchTable, "label_map", lambda self, number: seen.append(number) or read(self, number)
    )
    base(data, Folder(str(tmp_path / "run")), tmp_path / "scratch")
    assert len(set(seen)) == len(seen) == min(maps, MEASURED_PATCHES)
    assert max(np.diff([-1, *seen, maps])) <= 2


@pytest.mark.usefixtures("ray_cluster")
def test_a_worker_measures_what_is_measured_here(tiny: config.Settings) -> None:
    """On a cluster it has the GPU that the driver may lack."""
    images = list(torch.rand(4, 2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1)
    codec = LatentCodec(LinearAutoencoder.fit(torch.cat(images), 4, 4))
    done: list[int] = []
    here, quality = measure(codec, images, True, "cpu", done.append)
    there, same = measure_on_ray(codec, images, True, tiny.on(gpu=False).training)
    assert done == [2] * 4
    assert there.mean == pytest.approx(here.mean)
    assert there.deviation == pytest.approx(here.deviation)
    assert same == pytest.approx(quality)
    blank = [torch.zeros(1, 3, 32, 32)]
    with pytest.raises(UserError, match="does not vary"):
        measure_on_ray(codec, blank, True, tiny.on(gpu=False).training)

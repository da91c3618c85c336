import io

import numpy as np
import pytest
from PIL import Image

from diffgen.sampling.seeds import Purpose
from diffgen.sampling.solvers import Solver, noise_schedule
from diffgen.sampling.time_map import FRAMES_PER_STEP, record
from tests.sampling.helpers import WIDE, make


@pytest.mark.parametrize("rule", ["jittered", "random", "multidiffusion"])
def test_the_map_is_that_of_the_canvas(rule: str) -> None:
    """Patches written in order give the L that is saved, and the film has a frame for each part of a step."""
    solver = Solver("dpmsolver++", dict(noise_schedule(1000, "linear", "epsilon").config), 3)
    canvas = make(1, np.zeros((20, 28), np.uint8), solver, rule, sides=WIDE)
    npz, gif = record(canvas.covers)
    saved = np.load(io.BytesIO(npz), allow_pickle=False)
    assert canvas.covers.purpose is Purpose.IMAGE_COVER
    for step in range(3):
        assert (saved["state"][step] == canvas.time_state).all()
        for number in range(len(canvas.cover)):
            canvas.write(number, np.zeros((1, int(canvas.cover.owned(number).sum())), np.float32))
            assert ((saved["last"][step] <= number) == (canvas.time_state == 2 - step)).all()
        canvas.advance()
    assert (saved["state"][3] == 0).all()
    film = Image.open(io.BytesIO(gif))
    assert film.n_frames > 3
    assert film.n_frames <= 3 * FRAMES_PER_STEP + 1

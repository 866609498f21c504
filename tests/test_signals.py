"""Encoders of sound and clips: against convolutions, by hand, trained, and refused."""

import math
from dataclasses import replace

import jaxtyping
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmcourse.encoders import mean_pool
from mmcourse.modalities import log_mel
from mmcourse.signals import (
    AudioEncoder,
    AudioEncoderConfig,
    VideoEncoder,
    VideoEncoderConfig,
)

TINY = {"dim": 16, "depth": 1, "heads": 2}
AUDIO = AudioEncoderConfig(8192, **TINY)  # 33 frames: 3 moments of 5 patches
VIDEO = VideoEncoderConfig(6, 16, **TINY)  # 3 moments of 4 tubelets


def sound(rows=2, samples=8192, seed=0):
    return 0.1 * torch.randn(
        rows, samples, generator=torch.Generator().manual_seed(seed)
    )


def clip(rows=2, frames=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(rows, frames, 3, 16, 16, generator=generator)


MAKE = {"audio": (AudioEncoder, AUDIO, sound), "video": (VideoEncoder, VIDEO, clip)}
BOTH = pytest.mark.parametrize("kind", MAKE)


def make(kind, **changes):
    torch.manual_seed(0)
    build, config, data = MAKE[kind]
    return build(replace(config, **changes)).eval(), data()


@pytest.fixture
def unchecked():
    """Let bad input through to our own checks, as where shapes aren't checked."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


# --- against others ---------------------------------------------------------------


def test_the_log_mel_is_that_of_modalities(place):
    encoder, audio = make("audio")
    encoder, audio = encoder.to(place.device), audio.to(place.device)
    torch.testing.assert_close(encoder.log_mel(audio), log_mel(audio))


def test_audio_patches_are_a_strided_convolution_as_in_ast():
    """AST embeds by a convolution over (bands, frames); ours is the same product."""
    encoder, audio = make("audio", depth=0)
    silence = math.log(1e-10)
    mel = F.pad(log_mel(audio), (0, 48 - 33), value=silence)
    weight = encoder.embed.weight.view(16, 1, 16, 16)
    image = ((mel - AUDIO.mean) / AUDIO.std)[:, None]
    grid = F.conv2d(image, weight, encoder.embed.bias, stride=16)  # (B, D, 5, 3)
    grid = grid + encoder.place.T[None, :, :, None] + encoder.time.T[None, :, None]
    out, mask = encoder(audio)
    expected = encoder.encoder.norm(grid.permute(0, 3, 2, 1).flatten(1, 2))
    assert out.shape == (2, AUDIO.tokens, 16) and mask.all()
    torch.testing.assert_close(out, expected, atol=1e-4, rtol=1e-4)


def test_tubelets_are_a_strided_3d_convolution_as_in_vivit():
    encoder, video = make("video", depth=0)
    weight = encoder.embed.weight.view(16, 3, 2, 8, 8)
    stride = (2, 8, 8)
    grid = F.conv3d(video.transpose(1, 2), weight, encoder.embed.bias, stride)
    x = grid.flatten(3).permute(0, 2, 3, 1)  # (B, moments, places, D)
    x = x + encoder.time[None, :, None] + encoder.place
    out, mask = encoder(video)
    assert out.shape == (2, VIDEO.tokens, 16) and mask.all()
    expected = encoder.encoder.norm(x.flatten(1, 2))
    torch.testing.assert_close(out, expected, atol=1e-4, rtol=1e-4)


# --- by hand ----------------------------------------------------------------------


@BOTH
def test_a_token_is_its_piece_its_moment_and_its_place(kind):
    encoder, x = make(kind, depth=0)
    encoder.encoder.norm = nn.Identity()
    nn.init.zeros_(encoder.embed.weight)
    nn.init.constant_(encoder.embed.bias, 3.0)
    out, _ = encoder(x)
    places = len(encoder.place)
    for n in range(out.shape[1]):
        expected = 3 + encoder.time[n // places] + encoder.place[n % places]
        torch.testing.assert_close(out[0, n], expected)


def test_the_counts_by_hand():
    config = AudioEncoderConfig()  # one second: 1 + 93 frames, 6 patches of 16
    assert (config.steps, config.places, config.tokens) == (6, 5, 30)
    assert config.shortest == 15 * 256
    encoder = AudioEncoder(replace(AUDIO, length=config.shortest))
    assert encoder(torch.zeros(1, config.shortest))[0].shape == (1, 5, 16)
    assert (VIDEO.steps, VIDEO.places, VIDEO.tokens) == (3, 4, 12)


def test_silence_is_the_number_that_fills_the_last_patch():
    encoder, _ = make("audio")
    patches = encoder.patches(torch.zeros(1, 8192))
    quiet = (math.log(1e-10) - AUDIO.mean) / AUDIO.std
    torch.testing.assert_close(patches, torch.full_like(patches, quiet))


# --- what changes nothing ---------------------------------------------------------


@BOTH
def test_rows_keep_to_themselves_in_any_order(kind, place):
    encoder, x = make(kind)
    encoder, x = encoder.to(place.device, place.dtype), x.to(place.device, place.dtype)
    out, mask = encoder(x)
    assert out.dtype == place.dtype and mask.dtype == torch.bool
    flipped, alone = encoder(x.flip(0))[0], encoder(x[1:])[0]
    torch.testing.assert_close(flipped.flip(0), out, **place.close)
    torch.testing.assert_close(alone, out[1:], **place.close)
    assert encoder.pool is mean_pool


@BOTH
def test_a_shorter_signal_has_the_first_positions(kind):
    encoder, x = make(kind, depth=0)
    half = x[:, : 4864 if kind == "audio" else 4]
    out, short = encoder(x)[0], encoder(half)[0]
    n = len(encoder.place)  # 19 frames and more: the first 16 see no end
    torch.testing.assert_close(short[:, :n], out[:, :n])
    assert short.shape[1] == 2 * n


# --- trained ----------------------------------------------------------------------


def fitted(encoder, x, label, steps=60):
    head = nn.Linear(16, 2)
    parameters = [*encoder.parameters(), *head.parameters()]
    optimizer = torch.optim.Adam(parameters, 1e-2)
    for _ in range(steps):
        loss = F.cross_entropy(head(encoder.pool(*encoder(x))), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


def test_it_learns_which_tone_is_which():
    torch.manual_seed(0)
    t, label = torch.arange(4096) / 24_000, torch.arange(8) % 2
    pitch = 300 + 500 * label + 10 * torch.arange(8)
    tones = 0.1 * torch.sin(2 * math.pi * pitch[:, None] * t)
    assert fitted(make("audio")[0].train(), tones, label) < 0.05


def test_it_learns_where_a_bar_moves():
    """The frames of both classes are the same: only their order differs."""
    torch.manual_seed(0)
    right = torch.zeros(1, 6, 3, 16, 16)
    for f in range(6):
        right[0, f, :, :, 2 * f : 2 * f + 3] = 1.0
    clips = torch.cat([right, right.flip(1)])
    assert fitted(make("video")[0].train(), clips, torch.tensor([0, 1])) < 0.05


# --- refused ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "x", "says"),
    [
        ("audio", sound(1, 3839), "3839 samples of audio: 3840 make one patch"),
        ("audio", sound(1, 9000), "9000 samples .* length=8192 are the most"),
        ("audio", sound(1).mul(9).short(), "audio is int16: divide by 32768"),
        ("audio", sound(1) * math.nan, "audio is nan at"),
        ("video", clip(1).byte(), "uint8: divide by 255"),
        ("video", clip(1, 1), "clip length 1 does not divide by frames=2"),
        ("video", clip(1, 8), "4 moments, but positions for 3"),
        ("video", clip(1)[..., :8], "16 x 8 pixels: resize it to 16 x 16"),
        ("video", clip(1) / 0, "not finite"),
    ],
)
def test_bad_input_is_refused(unchecked, kind, x, says):
    with pytest.raises(ValueError, match=says):
        make(kind)[0](x)


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: AudioEncoderConfig(mels=70), "mels=70 .* choose mels=64"),
        (lambda: AudioEncoderConfig(length=99), "length=99 .* at least 3840"),
        (lambda: VideoEncoderConfig(length=5), "length=5 .* choose length=4"),
        (lambda: VideoEncoderConfig(image_size=30), "choose image_size=24"),
        (lambda: VideoEncoderConfig(patch=64), "choose image_size=64"),
    ],
)
def test_what_no_encoder_can_be(build, says):
    with pytest.raises(ValueError, match=says):
        build()

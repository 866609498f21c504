"""Encoders of sound and clips: a signal is cut up in time, and its pieces are words.

Audio Spectrogram Transformer: Gong et al., 2021, arXiv 2104.01778. ViViT, with its
tubelets and joint attention over space and time: Arnab et al., 2021, arXiv 2103.15691.
Taught in 06_multimodal_transformer.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmcourse.encoders import mean_pool
from mmcourse.modalities import FLOOR, mel_filterbank, spectrogram, tubelets
from mmcourse.transformer import Encoder


class SignalEncoder(nn.Module):
    """Pieces of a signal, a place in time and one within the moment, an encoder.

    x_ts = E(p_ts) + time_t + place_s for piece s of moment t; all moments have
    ``places`` pieces, and there are at most ``steps`` moments of them.
    """

    def __init__(self, piece: int, steps: int, places: int, config):
        super().__init__()
        c = self.config = config
        self.embed = nn.Linear(piece, c.dim)
        self.time = nn.Parameter(0.02 * torch.randn(steps, c.dim))
        self.place = nn.Parameter(0.02 * torch.randn(places, c.dim))
        kwargs = {"hidden": c.hidden, "dropout": c.dropout}
        self.encoder = Encoder(c.dim, c.depth, c.heads, **kwargs)

    def encode(
        self, pieces: Float[Tensor, "B N P"]
    ) -> tuple[Float[Tensor, "B N D"], Bool[Tensor, "B N"]]:
        """Encode pieces in the order of time; all of them are real."""
        steps = pieces.shape[1] // len(self.place)
        if steps > len(self.time):
            raise ValueError(
                f"{steps} moments, but positions for {len(self.time)}: cut the signal, "
                "or make the config's length greater"
            )
        position = (self.time[:steps, None] + self.place).flatten(0, 1)
        x = self.encoder(self.embed(pieces.to(self.embed.weight.dtype)) + position)
        return x, x.new_ones(x.shape[:2], dtype=torch.bool)

    pool = staticmethod(mean_pool)


@dataclass(frozen=True)
class AudioEncoderConfig:
    """What an audio encoder is made of.

    ``length`` is the most samples it takes. A patch is ``patch_mels`` bands high and
    ``patch_frames`` frames long. ``mean`` and ``std`` are those of the log-mel
    numbers: the defaults were measured on clean spoken digits.
    """

    length: int = 24_000
    sample_rate: int = 24_000
    n_fft: int = 1024
    hop: int = 256
    mels: int = 80
    patch_mels: int = 16
    patch_frames: int = 16
    mean: float = -13.0
    std: float = 7.0
    dim: int = 128
    depth: int = 4
    heads: int = 4
    hidden: int | None = None
    dropout: float = 0.0

    def __post_init__(self):
        """Refuse patches that don't fit."""
        if self.mels % self.patch_mels != 0:
            raise ValueError(
                f"mels={self.mels} doesn't divide by patch_mels={self.patch_mels}: "
                f"choose mels={max(1, self.mels // self.patch_mels) * self.patch_mels}"
            )
        if self.length < self.shortest:
            raise ValueError(
                f"length={self.length} samples hold no patch of {self.patch_frames} "
                f"frames: choose at least {self.shortest}"
            )

    @property
    def shortest(self) -> int:
        """The fewest samples that fill a patch."""
        return (self.patch_frames - 1) * self.hop

    @property
    def steps(self) -> int:
        """Patches along the time of the longest sound, the last one filled up."""
        return math.ceil((1 + self.length // self.hop) / self.patch_frames)

    @property
    def places(self) -> int:
        """Patches from the lowest band to the highest."""
        return self.mels // self.patch_mels

    @property
    def tokens(self) -> int:
        """How many tokens the longest sound becomes."""
        return self.steps * self.places


class AudioEncoder(SignalEncoder):
    """Log-mel spectrogram, patches of it, positions, an encoder: AST.

    Patches don't overlap (AST's do, by 6), and the last one is filled up with silence.
    Tokens come moment by moment, each from the lowest bands to the highest.
    """

    def __init__(self, config: AudioEncoderConfig):
        c = config
        super().__init__(c.patch_mels * c.patch_frames, c.steps, c.places, c)
        bank = mel_filterbank(c.sample_rate, c.n_fft, c.mels)
        self.register_buffer("bank", bank, persistent=False)

    def forward(
        self, audio: Float[Tensor, "B T"]
    ) -> tuple[Float[Tensor, "B N D"], Bool[Tensor, "B N"]]:
        """Encode sounds, floats of at least one patch and at most ``length``."""
        return self.encode(self.patches(audio))

    def patches(self, audio: Float[Tensor, "B T"]) -> Float[Tensor, "B N P"]:
        """Cut the normalised log-mel spectrogram into patches of (band, frame)."""
        c, samples = self.config, audio.shape[-1]
        if not c.shortest <= samples <= c.length:
            raise ValueError(
                f"{samples} samples of audio: {c.shortest} make one patch, and "
                f"length={c.length} are the most: pad or cut them"
            )
        mel = (self.log_mel(audio) - c.mean) / c.std
        silence = (math.log(FLOOR) - c.mean) / c.std
        mel = F.pad(mel, (0, -mel.shape[-1] % c.patch_frames), value=silence)
        return rearrange(
            mel, "b (m p) (f q) -> b (f m) (p q)", p=c.patch_mels, q=c.patch_frames
        )

    def log_mel(self, audio: Float[Tensor, "B T"]) -> Float[Tensor, "B M F"]:
        """Compute ``modalities.log_mel`` with the filters made once, in float32."""
        audio = audio.float() if audio.is_floating_point() else audio
        with torch.autocast(audio.device.type, enabled=False):  # no FFT in bfloat16
            power = spectrogram(audio, self.config.n_fft, self.config.hop)
            return (self.bank.float() @ power).clamp(min=FLOOR).log()


@dataclass(frozen=True)
class VideoEncoderConfig:
    """What a video encoder is made of.

    ``length`` is the most frames it takes, of ``image_size`` pixels square. A tubelet
    is ``frames`` long and ``patch`` pixels wide and high.
    """

    length: int = 8
    image_size: int = 32
    frames: int = 2
    patch: int = 8
    channels: int = 3
    dim: int = 128
    depth: int = 4
    heads: int = 4
    hidden: int | None = None
    dropout: float = 0.0

    def __post_init__(self):
        """Refuse tubelets that don't fill the clip."""
        for whole, part in (("length", "frames"), ("image_size", "patch")):
            n, step = getattr(self, whole), getattr(self, part)
            if n < step or n % step != 0:
                raise ValueError(
                    f"{whole}={n} doesn't divide by {part}={step}: "
                    f"choose {whole}={max(1, n // step) * step}"
                )

    @property
    def steps(self) -> int:
        """Tubelets along the time of the longest clip."""
        return self.length // self.frames

    @property
    def places(self) -> int:
        """Tubelets of one moment."""
        return (self.image_size // self.patch) ** 2

    @property
    def tokens(self) -> int:
        """How many tokens the longest clip becomes."""
        return self.steps * self.places


class VideoEncoder(SignalEncoder):
    """Tubelets, positions in time and space, an encoder: ViViT's joint attention.

    Tokens come moment by moment, each row by row.
    """

    def __init__(self, config: VideoEncoderConfig):
        piece = config.channels * config.frames * config.patch**2
        super().__init__(piece, config.steps, config.places, config)

    def forward(
        self, video: Float[Tensor, "B F C H W"]
    ) -> tuple[Float[Tensor, "B N D"], Bool[Tensor, "B N"]]:
        """Encode clips of ``image_size`` pixels and at most ``length`` frames."""
        c, sides = self.config, (self.config.image_size, self.config.image_size)
        if tuple(video.shape[-2:]) != sides:
            raise ValueError(
                f"a clip of {video.shape[-2]} x {video.shape[-1]} pixels: resize it to "
                f"{sides[0]} x {sides[1]}, where the positions are"
            )
        return self.encode(tubelets(video, c.frames, c.patch))

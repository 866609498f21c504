"""Pictures, clips and sound become sequences of vectors, and come back again.

Pure functions without parameters. Patches are those of ViT (Dosovitskiy et al., 2020,
arXiv 2010.11929), tubelets those of ViViT (Arnab et al., 2021, arXiv 2103.15691), mel
bands are Slaney's (Auditory Toolbox, 1998), and sound returns by fast Griffin-Lim
(Perraudin, Balazs and Sondergaard, 2013). Taught in notebook 01_modalities.
"""

import math
from collections.abc import Sequence

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

# A power below this counts as silence, so that its logarithm stays finite (-23.03).
FLOOR = 1e-10


# --- pictures and clips ---------------------------------------------------------------


def patchify(images: Float[Tensor, "B C H W"], patch: int) -> Float[Tensor, "B N D"]:
    """Cut pictures into squares of ``patch`` pixels and lay each out as one vector.

    N = HW / P^2 patches row by row, of D = C P^2 numbers each. Their order is that of a
    flattened convolution weight, (c p q), so that ViT's two descriptions are one:
    ``conv(x) == patchify(x) @ weight.flatten(1).T``. MAE's code has (p q c) instead.
    Raises ValueError where the sides do not divide, or a pixel is no finite float.
    """
    _check("images", images, "B C H W")
    _check_divides("image", images.shape[-2:], patch, "patch")
    return rearrange(images, "b c (h p) (w q) -> b (h w) (c p q)", p=patch, q=patch)


def unpatchify(
    patches: Float[Tensor, "B N D"],
    patch: int,
    channels: int = 3,
    height: int | None = None,
) -> Float[Tensor, "B C H W"]:
    """Put patches together again: the inverse of ``patchify``.

    ``height`` in pixels; None takes the picture for a square.
    Raises ValueError where the patches do not fill such a picture.
    """
    _check("patches", patches, "B N D")
    if patches.shape[2] != (width := channels * patch**2):
        raise ValueError(
            f"patches are {patches.shape[2]} numbers wide, not channels={channels} x "
            f"patch={patch}^2 = {width}: give the values they were cut with"
        )
    rows = _rows(patches.shape[1], patch, height)
    return rearrange(
        patches, "b (h w) (c p q) -> b c (h p) (w q)", h=rows, p=patch, q=patch
    )


def tubelets(
    video: Float[Tensor, "B F C H W"], frames: int, patch: int
) -> Float[Tensor, "B N D"]:
    """Cut clips into blocks of ``frames`` x ``patch`` x ``patch``, one vector each.

    N = FHW / (t P^2) tubelets, time first, of D = C t P^2 numbers in the order
    (c t p q): that of a flattened 3D convolution weight.
    Raises ValueError where a side does not divide, or a pixel is no finite float.
    """
    _check("video", video, "B F C H W")
    _check_divides("clip length", video.shape[1:2], frames, "frames")
    # A tubelet is a patch of a picture that has the colours of all its frames.
    stacked = rearrange(video, "b (f t) c h w -> (b f) (c t) h w", t=frames)
    return rearrange(patchify(stacked, patch), "(b f) n d -> b (f n) d", b=len(video))


def untubelets(
    blocks: Float[Tensor, "B N D"],
    frames: int,
    patch: int,
    length: int,
    channels: int = 3,
    height: int | None = None,
) -> Float[Tensor, "B F C H W"]:
    """Put tubelets together again: the inverse of ``tubelets``.

    ``length`` is the clip's number of frames; ``height`` in pixels, None for a square.
    Raises ValueError where the tubelets do not fill such a clip.
    """
    _check("blocks", blocks, "B N D")
    n, steps = blocks.shape[1], length // frames
    if steps < 1 or length % frames or n % steps:
        raise ValueError(f"{n} tubelets of {frames} frames do not fill length={length}")
    patches = rearrange(blocks, "b (f n) d -> (b f) n d", f=steps)
    stacked = unpatchify(patches, patch, channels * frames, height)
    return rearrange(stacked, "(b f) (c t) h w -> b (f t) c h w", f=steps, t=frames)


# --- sound ----------------------------------------------------------------------------


def frame(
    audio: Float[Tensor, "B T"], n_fft: int = 1024, hop: int = 256
) -> Float[Tensor, "B F {n_fft}"]:
    """Overlapping stretches of ``n_fft`` samples, one centred on every ``hop``-th.

    Silence is added at both ends, so F = 1 + floor(T / hop).
    Raises ValueError for samples that are no finite floats.
    """
    _check("audio", audio, "B T")
    padded = torch.nn.functional.pad(audio, (n_fft // 2, n_fft // 2))
    return padded.unfold(-1, n_fft, hop)


def spectrogram(
    audio: Float[Tensor, "B T"], n_fft: int = 1024, hop: int = 256
) -> Float[Tensor, "B S F"]:
    """The power of each frequency at each moment; phase is what it forgets.

    P[k, f] = |sum_n w[n] x_f[n] exp(-2 pi i k n / n_fft)|^2 for frame x_f and Hann
    window w; bin k is the frequency k * sample_rate / n_fft.
    """
    spectrum = torch.fft.rfft(frame(audio, n_fft, hop) * _hann(n_fft, audio))
    power = spectrum.real**2 + spectrum.imag**2  # |z|^2, without the root of abs
    return rearrange(power, "b f s -> b s f")


def mel_filterbank(
    sample_rate: int,
    n_fft: int,
    mels: int,
    fmin: float = 0.0,
    fmax: float | None = None,
) -> Float[Tensor, "M S"]:
    """Triangles over the frequency bins, evenly spaced as the ear hears, equal in area.

    Triangle m rises from edge m to edge m + 1 and falls to edge m + 2; its height is
    2 / (its width in Hz). ``fmax`` None is half the sample rate.
    Raises ValueError for edges out of order, or a triangle that holds no bin.
    """
    fmax = sample_rate / 2 if fmax is None else fmax
    if not 0 <= fmin < fmax <= sample_rate / 2:
        raise ValueError(f"need 0 <= fmin={fmin} < fmax={fmax} <= {sample_rate / 2} Hz")
    double = {"dtype": torch.float64}  # narrow triangles need the digits
    even = torch.linspace(hz_to_mel(fmin), hz_to_mel(fmax), mels + 2, **double)
    edges = torch.tensor([mel_to_hz(mel) for mel in even.tolist()], **double)[:, None]
    bins = torch.fft.rfftfreq(n_fft, 1 / sample_rate, **double)
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    bank = torch.minimum(rising, falling).clamp(min=0) * 2 / (edges[2:] - edges[:-2])
    if empty := int((bank.sum(1) == 0).sum()):
        raise ValueError(
            f"{empty} of mels={mels} bands hold no frequency bin: "
            f"take fewer bands or n_fft above {n_fft}"
        )
    return bank.float()


def hz_to_mel(hz: float) -> float:
    """Slaney's scale: a straight line up to 1,000 Hz (15 mel), logarithmic above."""
    return hz * 3 / 200 if hz < 1000 else 15 + 27 * math.log(hz / 1000, 6.4)


def mel_to_hz(mel: float) -> float:
    """The inverse of ``hz_to_mel``."""
    return mel * 200 / 3 if mel < 15 else 1000 * 6.4 ** ((mel - 15) / 27)


def log_mel(
    audio: Float[Tensor, "B T"],
    sample_rate: int = 24000,
    n_fft: int = 1024,
    hop: int = 256,
    mels: int = 80,
) -> Float[Tensor, "B M F"]:
    """Sound as models read it: log max(bank @ spectrogram, 1e-10), natural logarithm.

    At 24 kHz the defaults give 94 frames a second, each of 43 ms.
    """
    power = spectrogram(audio, n_fft, hop)
    bank = mel_filterbank(sample_rate, n_fft, mels).to(power)
    return (bank @ power).clamp(min=FLOOR).log()


def mel_to_spectrogram(
    mel: Float[Tensor, "B M F"], sample_rate: int = 24000, n_fft: int = 1024
) -> Float[Tensor, "B S F"]:
    """The power P >= 0 that makes |bank @ P - mel| small, detail inside bands lost.

    From the pseudo-inverse on, 64 steps down the gradient, each cut off at 0:
    P <- max(0, P - bank^T (bank @ P - mel) / |bank|^2). ``mel`` is power, not its log.
    """
    _check("mel", mel, "B M F")
    bank = mel_filterbank(sample_rate, n_fft, mel.shape[1]).to(mel)
    step = 1 / torch.linalg.matrix_norm(bank, 2) ** 2
    power = (torch.linalg.pinv(bank) @ mel).clamp(min=0)
    for _ in range(64):
        power = (power - step * bank.T @ (bank @ power - mel)).clamp(min=0)
    return power


def griffin_lim(
    power: Float[Tensor, "B S F"],
    hop: int = 256,
    steps: int = 32,
    momentum: float = 0.9,
) -> Float[Tensor, "B T"]:
    """Sound whose spectrogram is close to ``power``: guess the phase it forgot.

    Over and over: to sound with the phase guessed so far, back to a spectrum c, and
    take the phase of c + momentum * (c - c before). The first phase is 0, so equal
    input gives equal sound. T = (F - 1) * hop. Raises ValueError for a single frame.
    """
    _check("power", power, "B S F")
    if power.shape[2] < 2:
        raise ValueError("power has 1 frame: at least 2 are needed to hear anything")
    n_fft = 2 * (power.shape[1] - 1)
    settings = {"n_fft": n_fft, "hop_length": hop, "window": _hann(n_fft, power)}
    magnitude = power.clamp(min=0).sqrt()
    guess, before = torch.complex(magnitude, torch.zeros_like(magnitude)), 0
    for _ in range(steps):
        audio = torch.istft(guess, **settings)
        c = torch.stft(audio, pad_mode="constant", return_complex=True, **settings)
        guess = magnitude * torch.sgn(c + momentum * (c - before))  # sgn z = z / |z|
        before = c
    return torch.istft(guess, **settings)


def inverse_log_mel(
    log_mels: Float[Tensor, "B M F"],
    sample_rate: int = 24000,
    n_fft: int = 1024,
    hop: int = 256,
) -> Float[Tensor, "B T"]:
    """Sound to listen to from what ``log_mel`` kept: its steps undone, last first."""
    _check("log_mels", log_mels, "B M F")
    power = mel_to_spectrogram(log_mels.exp(), sample_rate, n_fft)
    return griffin_lim(power, hop)


def _hann(n_fft: int, like: Tensor) -> Tensor:
    return torch.hann_window(n_fft, dtype=like.dtype, device=like.device)


# --- at the door ----------------------------------------------------------------------


_MEND = {
    torch.uint8: "divide by 255 to get floats in [0, 1]",
    torch.int16: "divide by 32768 to get floats in [-1, 1]",
    torch.int32: "divide by 2147483648 to get floats in [-1, 1]",
}


def _check(name: str, x: Tensor, axes: str) -> None:
    """Refuse what is no tensor of finite floats with these axes."""
    if not isinstance(x, Tensor):
        raise ValueError(f"{name} is a {type(x).__name__}: use torch.as_tensor({name})")
    shape, missing = tuple(x.shape), len(axes.split()) - x.ndim
    if missing != 0:
        mend = f": one item alone is {name}[None]" if missing == 1 else ""
        raise ValueError(f"{name} has shape {shape}, not ({axes}){mend}")
    if x.numel() == 0:
        raise ValueError(f"{name} has shape {shape}: it is empty, drop it")
    if not x.is_floating_point():
        kind, mend = str(x.dtype).removeprefix("torch."), _MEND.get(x.dtype)
        raise ValueError(f"{name} is {kind}: {mend or 'convert it with .float()'}")
    if torch.compiler.is_compiling():  # a look at values would cut the graph in two
        return
    wrong = ~torch.isfinite(x)
    if wrong.any():
        place = tuple(wrong.nonzero()[0].tolist())
        raise ValueError(
            f"{name} is {x[place].item()} at {place}, the first of {wrong.sum()} "
            f"values that are not finite: drop item {place[0]} or mend it"
        )


def _check_divides(what: str, sides: Sequence[int], step: int, name: str) -> None:
    # einops takes 2.0 for 2, remembers it, and then fails on 2 as well
    if not isinstance(step, int) or step < 1:
        raise ValueError(f"{name}={step}: choose a whole number, 1 or more")
    if any(side % step for side in sides):
        shown = "x".join(map(str, sides))
        fits = "x".join(str(max(side // step, 1) * step) for side in sides)
        raise ValueError(
            f"{what} {shown} does not divide by {name}={step}: crop or resize to {fits}"
        )


def _rows(n: int, patch: int, height: int | None) -> int:
    """How many rows ``n`` patches form in a picture of this height."""
    if height is None:
        rows = math.isqrt(n)
        fits, side = rows * rows == n, "a square: give height"
    else:
        rows = height // patch
        fits = rows > 0 and rows * patch == height and n % rows == 0
        side = f"height={height}: give the height in pixels"
    if not fits:
        raise ValueError(f"{n} patches of {patch} x {patch} do not fill {side}")
    return rows

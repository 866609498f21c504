"""Exercises and questions of 03_transformer: positions, a block, a loss, two lots."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmcourse.exercises.engine import Exercise
from mmcourse.exercises.quiz import Question

# --- positions_by_hand ----------------------------------------------------------------


def _angles(length: int, dim: int, base: float = 10_000.0, step: int = 2) -> Tensor:
    i = torch.arange(0, dim // 2)
    return torch.arange(length)[:, None] / base ** (step * i / dim)


def _by_channel(length: int, dim: int) -> Tensor:
    channel = torch.arange(dim)
    angle = torch.arange(length)[:, None] / 10_000.0 ** (channel / dim)
    return angle.sin().where(channel % 2 == 0, angle.cos())


def _paired(angle: Tensor, swapped: bool = False) -> Tensor:
    waves = [angle.cos(), angle.sin()] if swapped else [angle.sin(), angle.cos()]
    return torch.stack(waves, dim=-1).flatten(1)


POSITIONS = Exercise(
    "positions_by_hand",
    lambda length, dim: _paired(_angles(length, dim)),
    lambda rng: (int(rng.integers(3, 9)), int(rng.integers(3, 7)) * 2),
    fixed=((4, 8), (2, 6)),
    properties={
        "position 0 is 0, 1, 0, 1, ...: every sine is 0 and every cosine 1": lambda f: (
            np.allclose(np.asarray(f(1, 6)), [[0, 1, 0, 1, 0, 1]], atol=1e-5)
        ),
    },
    mistakes={
        "sine and cosine changed places: the even columns (0, 2, ...) are sines": (
            lambda n, d: _paired(_angles(n, d), swapped=True)
        ),
        "all sines stand first and all cosines behind them: here they alternate, "
        "sin, cos, sin, cos, ...": lambda n, d: torch.cat(
            [_angles(n, d).sin(), _angles(n, d).cos()], dim=1
        ),
        "your waves are too fast for their place: the exponent is 2i / D with "
        "i = 0, 1, ..., D/2 - 1, not i / D": lambda n, d: _paired(
            _angles(n, d, step=1)
        ),
        "your waves are too slow for their place: the exponent is 2i / D, and if you "
        "count 0, 2, 4, ... the 2 is already in it": lambda n, d: _paired(
            _angles(n, d, step=4)
        ),
        "your cosines are a little too slow: a sine and its cosine are a pair with "
        "one angle, so channel 2i + 1 has the exponent 2i / D too": _by_channel,
        "the base is 10,000, and yours is 1,000: count the zeros": lambda n, d: _paired(
            _angles(n, d, base=1_000.0)
        ),
        "you multiply by 10,000^(2i/D), and it should divide: later pairs are slower": (
            lambda n, d: _paired(_angles(n, d, base=1e-4))
        ),
        "you count positions from 1: the first token stands at 0": lambda n, d: _paired(
            _angles(n + 1, d)
        )[1:],
    },
)

# --- pre_norm_step --------------------------------------------------------------------


def _rms(x: Tensor, gain: Tensor, eps: float) -> Tensor:
    return gain * x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt()


def _over_tokens(x: Tensor, gain: Tensor, eps: float) -> Tensor:
    return gain * x / (x.pow(2).mean(-2, keepdim=True) + eps).sqrt()


def _layer(x: Tensor, gain: Tensor, eps: float) -> Tensor:
    return gain * F.layer_norm(x, x.shape[-1:], eps=eps)


def _rootless(x: Tensor, gain: Tensor, eps: float) -> Tensor:
    return gain * x / (x.pow(2).mean(-1, keepdim=True) + eps)


def _eps_outside(x: Tensor, gain: Tensor, eps: float) -> Tensor:
    return gain * x / (x.pow(2).mean(-1, keepdim=True).sqrt() + eps)


def _summed(x: Tensor, gain: Tensor, eps: float) -> Tensor:
    return gain * x / (x.pow(2).sum(-1, keepdim=True) + eps).sqrt()


def _with(norm):
    return lambda x, f, gain, eps: x + f(norm(x, gain, eps))


class _Branch:
    """A branch to hand to a learner's function; a report shows it by its name."""

    def __init__(self, name: str, function):
        self.name, self.function = name, function

    def __call__(self, h: Tensor) -> Tensor:
        return self.function(h)

    def __repr__(self) -> str:
        return self.name


def _branch(rng: np.random.Generator) -> tuple:
    draw = lambda *shape: torch.from_numpy(rng.normal(size=shape))  # noqa: E731
    weight = draw(4, 4)
    x, gain = draw(3, 4) * 2 + 0.5, draw(4).abs() + 0.5
    return x, _Branch("tanh(h @ W)", lambda h: torch.tanh(h @ weight)), gain, 0.1


_SQUARE = _Branch("h**2", lambda h: h**2)
_STREAM = torch.tensor([[3.0, 4.0, 0.0, 0.0], [1.0, 1.0, 1.0, -1.0]])

PRE_NORM_STEP = Exercise(
    "pre_norm_step",
    _with(_rms),
    _branch,
    fixed=((_STREAM, _SQUARE, torch.tensor([1.0, 2.0, 1.0, 0.5]), 1e-2),),
    properties={
        "a branch that gives 0 leaves the stream as it is": lambda f: torch.equal(
            torch.as_tensor(f(_STREAM, torch.zeros_like, torch.ones(4), 1e-5)), _STREAM
        ),
        "a token of zeros is no reason for NaN: that is what eps is for": lambda f: (
            torch.as_tensor(f(torch.zeros(2, 4), torch.tanh, torch.ones(4), 1e-5))
            .isfinite()
            .all()
        ),
    },
    mistakes={
        "the residual is missing: add x to what the branch returns, or the stream is "
        "lost": lambda x, f, g, eps: f(_rms(x, g, eps)),
        "this is post-norm, norm(x + f(x)): here the norm stands before the branch and "
        "the sum stays as it is": lambda x, f, g, eps: _rms(x + f(x), g, eps),
        "you normalise what the branch returns: normalise what goes into it": (
            lambda x, f, g, eps: x + _rms(f(x), g, eps)
        ),
        "you add the branch to the normalised x: the stream itself must go on "
        "untouched": lambda x, f, g, eps: _rms(x, g, eps) + f(_rms(x, g, eps)),
        "the norm is missing: the branch should read rms_norm(x), not x": (
            lambda x, f, g, eps: x + f(x)
        ),
        "you subtract the mean: that is LayerNorm, and RMSNorm only divides": _with(
            _layer
        ),
        "eps is missing: it belongs under the root, beside the mean square": _with(
            lambda x, g, eps: _rms(x, g, 0.0)
        ),
        "eps stands outside of the root: add it to the mean square, and take the root "
        "of both together": _with(_eps_outside),
        "the gain comes too late: it belongs to the norm, so multiply before the "
        "branch reads, not what the branch returns": lambda x, f, g, eps: (
            x + g * f(_rms(x, torch.ones_like(g), eps))
        ),
        "the root is missing: you divide by the mean square, and the root mean square "
        "was due": _with(_rootless),
        "you took the root of the sum of squares: RMS takes their mean": _with(_summed),
        "the gain is missing: multiply the normalised x by it, channel by channel": (
            _with(lambda x, g, eps: _rms(x, torch.ones_like(g), eps))
        ),
        "you normalise over the tokens: each token by itself, along the last axis": (
            _with(_over_tokens)
        ),
    },
    points=2,
)

# --- next_token_loss ------------------------------------------------------------------


def _entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Return minus log p of each target, (B, N)."""
    return -logits.log_softmax(-1).gather(-1, target[..., None])[..., 0]


def _mean(loss: Tensor, real: Tensor) -> Tensor:
    return (loss * real).sum() / real.sum()


def _next(logits: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    return _entropy(logits[:, :-1], tokens[:, 1:]), tokens[:, 1:] != 0


def _wrong_way(logits: Tensor, tokens: Tensor) -> Tensor:
    return _mean(_entropy(logits[:, 1:], tokens[:, :-1]), tokens[:, :-1] != 0)


def _rolled(logits: Tensor, tokens: Tensor) -> Tensor:
    target = tokens.roll(-1, 1)
    return _mean(_entropy(logits, target), target != 0)


def _by_row(logits: Tensor, tokens: Tensor) -> Tensor:
    loss, real = _next(logits, tokens)
    return ((loss * real).sum(1) / real.sum(1)).mean()


def _texts(rng: np.random.Generator) -> tuple:
    tokens = rng.integers(1, 6, size=(3, 6))
    for row, length in zip(tokens, (6, *rng.integers(2, 5, size=2)), strict=True):
        row[length:] = 0
    return torch.from_numpy(rng.normal(size=(3, 6, 6)) * 2), torch.from_numpy(tokens)


NEXT_TOKEN_LOSS = Exercise(
    "next_token_loss",
    lambda logits, tokens: _mean(*_next(logits, tokens)),
    _texts,
    properties={
        "equal logits give the loss of a guess, ln V": lambda f: (
            abs(float(f(torch.zeros(2, 4, 7), torch.tensor([[1, 2, 3, 4]] * 2))))
            - math.log(7)
            < 1e-4
        ),
        "a model that is sure of every next token has a loss near 0": lambda f: (
            abs(
                float(
                    f(
                        50 * F.one_hot(torch.tensor([[3, 1, 2, 0]]), 5).float(),
                        torch.tensor([[2, 3, 1, 2]]),
                    )
                )
            )
            < 1e-4
        ),
        "more padding at the end changes nothing": lambda f: math.isclose(
            float(f(_LOGITS[:, :4], torch.tensor([[1, 2, 3, 0]]))),
            float(f(_LOGITS, torch.tensor([[1, 2, 3, 0, 0, 0]]))),
            abs_tol=1e-4,
        ),
    },
    mistakes={
        "the targets aren't shifted: place n predicts token n + 1, and yours predicts "
        "the token that it reads": lambda logits, t: _mean(_entropy(logits, t), t != 0),
        "shifted the wrong way: you ask each place for the token before it. Drop the "
        "last logits and the first token": _wrong_way,
        "padding counts as a target: leave out the places whose next token is 0": (
            lambda logits, t: _next(logits, t)[0].mean()
        ),
        "you leave out the places that read padding, but not those that predict it: "
        "the mask belongs to the targets": lambda logits, t: _mean(
            _next(logits, t)[0], t[:, :-1] != 0
        ),
        "padding is set to 0 but still counted: divide by the number of real targets, "
        "not by all places": lambda logits, t: (
            _next(logits, t)[0] * _next(logits, t)[1]
        ).mean(),
        "you summed: take the mean over the real targets": lambda logits, t: (
            _next(logits, t)[0] * _next(logits, t)[1]
        ).sum(),
        "you took the mean of each row and then of the rows, so that short texts weigh "
        "more: every real target weighs the same": _by_row,
        "rolling the tokens makes the first one the target of the last place: the last "
        "place has no target, so leave it out": _rolled,
        "the minus is missing: log p is below 0, and the loss is -log p": (
            lambda logits, t: -_mean(*_next(logits, t))
        ),
        "you took the logarithm to the base 2: that counts bits, and the loss here is "
        "in nats, by the natural logarithm": lambda logits, t: (
            _mean(*_next(logits, t)) / math.log(2)
        ),
        "you took the probabilities themselves: the loss is minus their logarithm": (
            lambda logits, t: _mean(-(-_next(logits, t)[0]).exp(), t[:, 1:] != 0)
        ),
    },
    points=3,
)
_LOGITS = torch.linspace(-2, 2, 30).reshape(1, 6, 5).sin() * 3

# --- top_k_probabilities --------------------------------------------------------------


def _lot(rng: np.random.Generator) -> tuple:
    heat = float(rng.choice([0.5, 0.7, 1.5, 2.0]))
    return torch.from_numpy(rng.permutation(7) * 0.6 + rng.random(7) / 2), heat, 3


def _keep(logits: Tensor, k: int, fill: float = -math.inf) -> Tensor:
    least = logits.sort(descending=True).values[k - 1]
    return logits.masked_fill(logits < least, fill)


TOP_K = Exercise(
    "top_k_probabilities",
    lambda logits, heat, k: _keep(logits / heat, k).softmax(-1),
    _lot,
    fixed=((torch.tensor([2.0, 0.0, 1.0, -1.0]), 0.5, 2),),
    properties={
        "they sum to 1": lambda f: (
            abs(float(f(torch.tensor([3.0, 1.0, 2.0]), 0.8, 2).sum()) - 1) < 1e-5
        ),
        "k = 1 leaves the likeliest token alone": lambda f: (
            f(torch.tensor([1.0, 3.0, 2.0]), 2.0, 1).tolist() == [0, 1, 0]
        ),
    },
    mistakes={
        "you multiply by the temperature: divide, so that a high one makes the choice "
        "more even": lambda logits, heat, k: _keep(logits * heat, k).softmax(-1),
        "the temperature has no effect: divide the logits by it, before the softmax "
        "(afterwards, renormalising takes it out again)": lambda logits, heat, k: _keep(
            logits, k
        ).softmax(-1),
        "you keep the k least likely tokens: the k highest logits are the ones": (
            lambda logits, heat, k: (-_keep(-logits / heat, k, math.inf)).softmax(-1)
        ),
        "they don't sum to 1: after cutting, the k tokens share all of the "
        "probability": lambda logits, heat, k: (
            (logits / heat).softmax(-1) * (_keep(logits, k) > -math.inf)
        ),
        "you set the others' logits to 0: e^0 is 1, so they can still be drawn. Set "
        "them to minus infinity": lambda logits, heat, k: _keep(
            logits / heat, k, 0.0
        ).softmax(-1),
        "you keep one token too many: the k highest, counting from 1": (
            lambda logits, heat, k: _keep(logits / heat, k + 1).softmax(-1)
        ),
        "the probabilities come in order of size: each belongs at its own token's "
        "place": lambda logits, heat, k: (
            _keep(logits / heat, k).softmax(-1).sort(descending=True).values
        ),
    },
)

# --- nucleus --------------------------------------------------------------------------


def _nucleus(probabilities: Tensor, keep: Tensor, order: Tensor) -> Tensor:
    """Share out the probability among the sorted tokens that are kept, in place."""
    kept = probabilities * keep
    return torch.zeros_like(kept).scatter(-1, order, kept / kept.sum())


def _sorted(logits: Tensor, descending: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    p, order = logits.softmax(-1).sort(descending=descending)
    return p, p.cumsum(-1) - p, order  # the sum of those that stand before


def _proper(logits: Tensor, top_p: float) -> Tensor:
    p, before, order = _sorted(logits)
    return _nucleus(p, before < top_p, order)


def _dropped(logits: Tensor, top_p: float) -> Tensor:
    p, before, order = _sorted(logits)
    return _nucleus(p, before + p <= top_p, order)


def _one_more(logits: Tensor, top_p: float) -> Tensor:
    p, before, order = _sorted(logits)
    due = (before < top_p).sum()
    return _nucleus(p, torch.arange(len(p)) <= due, order)


def _unsorted(logits: Tensor, top_p: float) -> Tensor:
    p = logits.softmax(-1)
    return _nucleus(p, p.cumsum(-1) - p < top_p, torch.arange(len(p)))


def _tail(logits: Tensor, top_p: float) -> Tensor:
    p, before, order = _sorted(logits, descending=False)
    return _nucleus(p, before < top_p, order)


def _shared(logits: Tensor, top_p: float) -> Tensor:
    p, before, order = _sorted(logits)
    return torch.zeros_like(p).scatter(-1, order, p * (before < top_p))


def _even(logits: Tensor, top_p: float) -> Tensor:
    p, before, order = _sorted(logits)
    return _nucleus(torch.ones_like(p), before < top_p, order)


def _uneven(rng: np.random.Generator) -> tuple:
    logits = torch.from_numpy(rng.permutation(8) * 0.5 + rng.random(8) / 4)
    return logits, float(rng.uniform(0.6, 0.8))


NUCLEUS = Exercise(
    "nucleus",
    _proper,
    _uneven,
    fixed=((torch.tensor([0.15, 0.5, 0.05, 0.3]).log(), 0.7),),
    properties={
        "they sum to 1": lambda f: (
            abs(float(f(torch.tensor([3.0, 1.0, 2.0]), 0.8).sum()) - 1) < 1e-5
        ),
        "one token that is likelier than p alone is kept, alone": lambda f: (
            f(torch.tensor([0.0, 9.0, 1.0]), 0.5).tolist() == [0, 1, 0]
        ),
        "of four equal tokens, two reach p = 0.5: those before a third have reached it "
        "already, so it is one too many (compare by <, not by <=)": lambda f: (
            np.allclose(
                sorted(f(torch.zeros(4), 0.5).tolist()), [0, 0, 0.5, 0.5], atol=1e-5
            )
        ),
    },
    mistakes={
        "the token that crosses p is missing: the nucleus is the fewest tokens that "
        "reach p together, so that one belongs to it": _dropped,
        "you keep one token too many: the one that crosses p is the last, and the next "
        "is out": _one_more,
        "you summed in the order of the vocabulary: sort by probability first": (
            _unsorted
        ),
        "you begin with the least likely tokens: sort descending": _tail,
        "they don't sum to 1: after cutting, divide by the sum of what is left": (
            _shared
        ),
        "all tokens of your nucleus are equally likely: they keep their proportions": (
            _even
        ),
        "the probabilities come in order of size: put each back at its own token's "
        "place": lambda logits, p: _proper(logits, p).sort(descending=True).values,
    },
    points=2,
)

EXERCISES = (POSITIONS, PRE_NORM_STEP, NEXT_TOKEN_LOSS, TOP_K, NUCLEUS)

# --- questions ------------------------------------------------------------------------

QUESTIONS = (
    Question(
        "deep-post-norm",
        "You stack 10 blocks with the norm behind each sum (post-norm) and train them "
        "for 170 steps, at the full learning rate of 3e-3 from the first one. The same "
        "with the norm before each branch (pre-norm) learns the task. What does the "
        "post-norm stack do?",
        {
            "the same: a norm is a norm": "Both hold about as many norms. But in "
            "post-norm the stream itself passes each of them, and in pre-norm one path "
            "through the stack only adds.",
            "it learns a little more slowly": "With six blocks, or at a third of this "
            "rate, it gets going. With ten blocks at 3e-3 the loss stays at chance.",
            "it stays at chance": "At this depth and rate it doesn't leave chance. A "
            "warm-up, a lower rate, fewer blocks or pre-norm each help.",
        },
        right=2,
    ),
    Question(
        "greedy-names",
        "You let the trained model write 200 names, and always take the likeliest next "
        "character. How many different names do you get?",
        {
            "200": "Nothing is drawn by lot, so nothing can differ from one name to "
            "the next.",
            "about 50": "That would need some chance in the choice. There is none.",
            "1": "The same start gives the same likeliest character, every time. For "
            "variety you have to draw.",
        },
        right=2,
    ),
    Question(
        "cache-growth",
        "Without a cache, a decoder reads the whole text again for every new token. "
        "You want twice as many tokens. How does the number of tokens that it reads "
        "grow in all?",
        {
            "it doubles": "That is the cost with a cache: one token read for each "
            "token written.",
            "about four times": "The sum 1 + 2 + ... + n is n (n + 1) / 2: twice as "
            "many steps, each over a text that is twice as long on average.",
            "a little more than before": "Each step reads everything so far, so both "
            "the steps and their length grow.",
        },
        right=1,
    ),
)

"""Exercises and questions of 09_retrieval: precision, hubs, lists, codes."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmcourse.exercises.engine import Exercise
from mmcourse.exercises.quiz import Question

# --- average_precision ----------------------------------------------------------------


def _hits(scores: Tensor, relevant: Tensor, descending: bool = True) -> Tensor:
    """Return which places of the ranking hold a relevant item, as 0 and 1."""
    return relevant[scores.argsort(descending=descending)].float()


def _precisions(hits: Tensor) -> Tensor:
    return hits.cumsum(0) / torch.arange(1, len(hits) + 1)


def _average_precision(scores: Tensor, relevant: Tensor) -> Tensor:
    hits = _hits(scores, relevant)
    return (_precisions(hits) * hits).sum() / hits.sum()


def _variant(change):
    """Return what ``change(hits)`` makes of the ranking's hits."""
    return lambda scores, relevant: change(_hits(scores, relevant))


def _precision_input(rng: np.random.Generator) -> tuple:
    """Draw different scores, and at least two relevant items of nine."""
    scores = torch.from_numpy(rng.permutation(np.linspace(-0.8, 0.9, 9))).float()
    relevant = torch.zeros(9, dtype=torch.bool)
    relevant[torch.from_numpy(rng.permutation(9)[: rng.integers(2, 5)])] = True
    return scores, relevant


AVERAGE_PRECISION = Exercise(
    "average_precision",
    _average_precision,
    _precision_input,
    fixed=(
        (  # found at places 1 and 4: (1/1 + 2/4) / 2
            torch.tensor([0.9, 0.4, 0.7, 0.5]),
            torch.tensor([True, True, False, False]),
        ),
        (torch.tensor([0.1, 0.9, 0.5]), torch.tensor([True, False, True])),
    ),
    properties={
        "all relevant items first give 1": lambda f: (
            abs(float(f(torch.arange(5.0), torch.arange(5) >= 3)) - 1) < 1e-6
        ),
        "only the order of the scores counts": lambda f: (
            lambda s, r: torch.allclose(
                torch.as_tensor(f(s, r)).float(),
                torch.as_tensor(f((3 * s).exp(), r)).float(),
            )
        )(torch.tensor([0.3, -0.2, 0.8, 0.1]), torch.tensor([1, 1, 0, 0]).bool()),
    },
    mistakes={
        "you average the precision over all places: only those where a relevant item "
        "stands": _variant(lambda h: _precisions(h).mean()),
        "you divide by the number of items: divide by the number of relevant "
        "ones": _variant(lambda h: (_precisions(h) * h).mean()),
        "this is the reciprocal of the first relevant place, MRR's part: each relevant "
        "item counts": _variant(lambda h: 1 / (h.argmax() + 1)),
        "these are reciprocal places: at the second relevant item two are found, so "
        "its precision is 2 / place": _variant(
            lambda h: (h / torch.arange(1, len(h) + 1)).sum() / h.sum()
        ),
        "the ranking is the wrong way round: the highest score comes first": (
            lambda s, r: (lambda h: (_precisions(h) * h).sum() / h.sum())(
                _hits(s, r, descending=False)
            )
        ),
        "this is the precision at the last relevant item alone: average over all of "
        "them": _variant(lambda h: _precisions(h)[h.nonzero().max()]),
        "places are counted from 0: the first place is 1": _variant(
            lambda h: (
                ((h.cumsum(0) / torch.arange(len(h)).clamp(min=1)) * h).sum() / h.sum()
            )
        ),
        "the items are not sorted by their scores": lambda s, r: (
            (_precisions(r.float()) * r).sum() / r.sum()
        ),
        "you add up: divide by the number of relevant items": _variant(
            lambda h: (_precisions(h) * h).sum()
        ),
    },
    points=2,
)

# --- without_hubs ---------------------------------------------------------------------


def _popular(bank: Tensor, k: int, largest: bool = True) -> Tensor:
    """Return the mean of each item's ``k`` best cosines with a bank of queries."""
    return bank.topk(k, dim=0, largest=largest).values.mean(dim=0)


def _without_hubs(scores: Tensor, bank: Tensor, k: int) -> Tensor:
    return scores - _popular(bank, k) / 2


def _hub_input(rng: np.random.Generator) -> tuple:
    items, queries = 5, 3
    scores = torch.from_numpy(rng.uniform(-0.3, 0.9, (queries, items))).float()
    bank = torch.from_numpy(rng.uniform(-0.3, 0.9, (7, items))).float()
    return scores, bank, int(rng.integers(2, 4))


WITHOUT_HUBS = Exercise(
    "without_hubs",
    _without_hubs,
    _hub_input,
    fixed=(
        (  # item 1 is near every query of the bank
            torch.tensor([[0.5, 0.6], [0.2, 0.6]]),
            torch.tensor([[0.1, 0.8], [0.3, 0.6], [0.2, 0.7]]),
            2,
        ),
        (torch.tensor([[0.4, 0.1]]), torch.tensor([[0.5, -0.5], [0.0, 0.0]]), 1),
    ),
    properties={
        "items that are equally popular keep their order": lambda f: (
            lambda s: bool(
                (f(s, torch.full((4, 5), 0.3), 2).argsort(1) == s.argsort(1)).all()
            )
        )(torch.tensor([[0.1, 0.5, 0.3, 0.2, 0.9], [0.4, 0.2, 0.1, 0.8, 0.6]])),
        "the order of the bank's queries does not matter": lambda f: (
            lambda s, b: torch.allclose(f(s, b, 2), f(s, b.flip(0), 2), atol=1e-6)
        )(torch.rand(2, 4), torch.rand(5, 4)),
    },
    mistakes={
        "you average over all queries of the bank: only each item's k best tell "
        "how popular it is": lambda s, b, k: s - b.mean(dim=0) / 2,
        "the popularity is not halved": lambda s, b, k: s - _popular(b, k),
        "popularity is added: a hub has to be held back, so subtract": (
            lambda s, b, k: s + _popular(b, k) / 2
        ),
        "you take the k best of each query of the bank, its rows: take those of each "
        "item, its columns": lambda s, b, k: (
            s - b.topk(k, dim=1).values.mean(dim=1).mean() / 2
        ),
        "only each item's best cosine is used: average the k best": (
            lambda s, b, k: s - b.amax(dim=0) / 2
        ),
        "you take the k lowest: the highest": lambda s, b, k: (
            s - _popular(b, k, largest=False) / 2
        ),
        "you add up the k best: average": lambda s, b, k: s - k * _popular(b, k) / 2,
        "popularity is measured on the queries themselves: use the bank, for the "
        "answer to one query may not hang on the others": lambda s, b, k: (
            s - _popular(s, min(k, len(s))) / 2
        ),
    },
    points=1,
)

# --- visit_lists ----------------------------------------------------------------------


def _candidates(query: Tensor, centres: Tensor, lists: Tensor, probe: int) -> Tensor:
    nearest = (centres @ query).topk(probe).indices
    return torch.isin(lists, nearest).nonzero()[:, 0]


def _visit_lists(
    query: Tensor, rows: Tensor, centres: Tensor, lists: Tensor, probe: int
) -> Tensor:
    candidates = _candidates(query, centres, lists, probe)
    return candidates[(rows[candidates] @ query).argmax()]


def _visit_input(rng: np.random.Generator) -> tuple:
    """Draw rows in lists of any size; the best of all is often in no visited list."""
    rows = F.normalize(torch.from_numpy(rng.normal(size=(30, 4))).float(), dim=1)
    centres = F.normalize(torch.from_numpy(rng.normal(size=(6, 4))).float(), dim=1)
    query = F.normalize(torch.from_numpy(rng.normal(size=4)).float(), dim=0)
    lists = torch.from_numpy(rng.permutation(np.arange(30) % 6))
    return query, rows, centres, lists, int(rng.integers(1, 4))


_TURNS = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 2.5]) * torch.pi / 2
_ROUND = torch.stack([_TURNS.cos(), _TURNS.sin()], dim=1)

VISIT_LISTS = Exercise(
    "visit_lists",
    _visit_lists,
    _visit_input,
    fixed=(
        (  # the best row, 1, lies in list 1, whose centre is farther
            F.normalize(torch.tensor([1.0, 0.7]), dim=0),
            _ROUND,
            torch.tensor([[1.0, 0.0], [0.0, 1.0]]),
            torch.tensor([0, 1, 1, 1, 0, 0]),
            1,
        ),
        (
            F.normalize(torch.tensor([1.0, 0.7]), dim=0),
            _ROUND,
            torch.tensor([[1.0, 0.0], [0.0, 1.0]]),
            torch.tensor([0, 1, 1, 1, 0, 0]),
            2,
        ),
        (  # the products of the visited rows are all negative: -0.5, -1, -0.9
            F.normalize(torch.tensor([0.3, -1.0]), dim=0),
            _ROUND,
            torch.tensor([[0.0, 1.0], [0.0, -1.0]]),
            torch.tensor([0, 1, 1, 1, 0, 0]),
            1,
        ),
    ),
    properties={
        "with all lists visited the best of all rows is found": lambda f: (
            int(f(_ROUND[3], _ROUND, _ROUND[:3], torch.tensor([0, 1, 2, 0, 1, 2]), 3))
            == 3
        ),
    },
    mistakes={
        "you return the place among the candidates: return the row's own number": (
            lambda q, rows, c, lists, n: (
                rows[_candidates(q, c, lists, n)] @ q
            ).argmax()
        ),
        "every row is compared: only those of the visited lists": (
            lambda q, rows, c, lists, n: (rows @ q).argmax()
        ),
        "rows that aren't visited count as 0, which beats a negative product: leave "
        "them out, or set theirs to -inf": lambda q, rows, c, lists, n: (
            (rows @ q) * torch.isin(lists, (c @ q).topk(n).indices)
        ).argmax(),
        "only one list is visited: visit `probe` of them": (
            lambda q, rows, c, lists, n: _visit_lists(q, rows, c, lists, 1)
        ),
        "you visit the lists whose centres are farthest": (
            lambda q, rows, c, lists, n: _visit_lists(q, rows, -c, lists, n)
        ),
        "you visit the first lists: which ones are near is up to their centres": (
            lambda q, rows, c, lists, n: _visit_lists(
                q, rows, -torch.arange(len(c)).float()[:, None] * q[None], lists, n
            )
        ),
        "you return the worst candidate": lambda q, rows, c, lists, n: _visit_lists(
            q, -rows, c, lists, n
        ),
        "you return the list: return the row": lambda q, rows, c, lists, n: lists[
            _visit_lists(q, rows, c, lists, n)
        ],
        "you return the cosine: return the row's number": (
            lambda q, rows, c, lists, n: rows[_visit_lists(q, rows, c, lists, n)] @ q
        ),
    },
    points=2,
)

# --- score_codes ----------------------------------------------------------------------


def _table(query: Tensor, centres: Tensor) -> Tensor:
    """Return products (M, 256) of the query's parts with all centres of each part."""
    parts = query.view(len(centres), -1)
    return torch.einsum("md,mkd->mk", parts, centres)


def _score_codes(query: Tensor, codes: Tensor, centres: Tensor) -> Tensor:
    table = _table(query, centres)
    return table[torch.arange(len(centres)), codes].sum(dim=1)


def _decoded(codes: Tensor, centres: Tensor) -> Tensor:
    return centres[torch.arange(len(centres)), codes]


def _code_input(rng: np.random.Generator) -> tuple:
    parts, k, width = rng.permutation([3, 4, 2]).tolist()
    k = max(k, parts)  # so that a code may be mistaken for a part's number
    centres = torch.from_numpy(rng.normal(size=(parts, k, width))).float()
    codes = torch.from_numpy(rng.integers(0, k, (6, parts)))
    return torch.from_numpy(rng.normal(size=parts * width)).float(), codes, centres


SCORE_CODES = Exercise(
    "score_codes",
    _score_codes,
    _code_input,
    fixed=(
        (  # two parts of one number, two centres each
            torch.tensor([2.0, 3.0]),
            torch.tensor([[0, 1], [1, 1], [1, 0]]),
            torch.tensor([[[1.0], [-1.0]], [[0.5], [2.0]]]),
        ),
        (
            torch.tensor([1.0, 0.0, 0.0, 1.0]),
            torch.tensor([[1, 0]]),
            torch.tensor([[[0.0, 1.0], [3.0, 4.0]], [[5.0, 6.0], [0.0, 0.0]]]),
        ),
    ),
    properties={
        "a query twice as long scores twice as high": lambda f: (
            lambda q, codes, c: torch.allclose(f(2 * q, codes, c), 2 * f(q, codes, c))
        )(torch.randn(4), torch.tensor([[0, 1], [2, 0]]), torch.randn(2, 3, 2)),
    },
    mistakes={
        "you look up the first part's centres for every part: part m has its own, "
        "centres[m]": lambda q, codes, c: _score_codes(
            q, codes, c[:1].expand(len(c), -1, -1)
        ),
        "the query's parts are taken turn and turn about, q[m::M]: a part is a "
        "stretch of neighbours": lambda q, codes, c: _score_codes(
            q.view(-1, len(c)).T.reshape(-1), codes, c
        ),
        "you average over the parts: the product of a whole row is the sum": (
            lambda q, codes, c: _score_codes(q, codes, c) / len(c)
        ),
        "these are squared distances: return products": lambda q, codes, c: (
            (q.view(len(c), -1) - _decoded(codes, c)).square().sum(dim=(1, 2))
        ),
        "only the first part is looked up": lambda q, codes, c: _table(q, c)[
            0, codes[:, 0]
        ],
        "these are the scores of each part, (n, M): add them up": (
            lambda q, codes, c: _table(q, c)[torch.arange(len(c)), codes]
        ),
    },
    points=3,
)

EXERCISES = (AVERAGE_PRECISION, WITHOUT_HUBS, VISIT_LISTS, SCORE_CODES)

# --- questions ------------------------------------------------------------------------

QUESTIONS = (
    Question(
        "which-way-is-harder",
        "263 texts, and two drawings of each thing, 526 pictures. A text is right "
        "with either drawing. Which R@1 is at chance the higher one?",
        {
            "text to picture": "A text has two right pictures, but among twice as "
            "many: 2 of 526.",
            "picture to text": "A picture has one right text of 263: 1 of 263, which "
            "is the same as 2 of 526.",
            "they are equal": "2 right ones of 526, or 1 of 263. Chance is the same; "
            "whether a model is equally good both ways has to be measured.",
        },
        right=2,
    ),
    Question(
        "rerank-recall",
        "A matching head re-ranks the 10 best candidates of each query. What can't it "
        "change?",
        {
            "R@1": "It puts another of the 10 first, so R@1 is what it is there for.",
            "R@10": "The same 10 candidates stay, in another order: what the index "
            "missed is lost. That is why the index is judged by its recall.",
            "the median rank": "Within the 10 places move, and the median with them, "
            "where half of the queries have their item there.",
            "MRR": "1 / rank changes with each place that the right item gains.",
        },
        right=1,
    ),
    Question(
        "half-the-lists",
        "An inverted file visits 8 of 1,024 lists of equal size. About how much of the "
        "comparing is left, centres included, of a million rows?",
        {
            "1 %": "8 / 1,024 of a million rows are 7,813, and 1,024 centres were "
            "compared, too: 8,837 in all, 0.9 %.",
            "8 %": "Count again: how many rows lie in one list, and in 8?",
            "50 %": "How many of 1,024 lists are visited?",
            "0.1 %": "One list holds 977 rows, and 8 are visited.",
        },
        right=0,
    ),
)

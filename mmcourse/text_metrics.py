"""How close is a written sentence to what people wrote? Strings in, numbers out.

``references[i]`` lists what people wrote about the thing that ``hypotheses[i]`` is
about. BLEU: Papineni et al., 2002, ACL, as sacrebleu counts it (Post, 2018, arXiv
1804.08771). ROUGE-L: Lin, 2004, ACL workshop. CIDEr-D: Vedantam et al., 2015, arXiv
1411.5726. Taught in 10_captioning and 14_evaluation.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from math import exp, hypot, log

import numpy as np
from jaxtyping import Float

Tokenize = Callable[[str], list[str]]
Sets = Sequence[Sequence[str]]  # of each item, its reference texts

HAN = "\u4e00-\u9fff"
WORD = re.compile(rf"[{HAN}]|[^\W_{HAN}]+")


def tokens(text: str) -> list[str]:
    """Return the words and numbers of a text, lower case, without punctuation.

    A Chinese character is a token of its own; "don't" is two. What a metric counts
    depends on how texts are cut: numbers of two tokenizers can't be compared.
    """
    return WORD.findall(text.lower())


def ngrams(words: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    """Count every run of ``n`` words."""
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))


# --- BLEU: which share of what was written did a person write too? ----------------


def bleu(
    hypotheses: Sequence[str], references: Sets, n: int = 4, tokenize: Tokenize = tokens
) -> float:
    """Return BLEU of all items together, 0 to 1; sacrebleu gives 100 times it.

    BLEU = min(1, exp(1 - r / h)) * (p_1 ... p_n)^(1/n): p_k as in ``precisions``, h the
    length of all hypotheses, r that of the references closest in length (the shorter
    of two). It is no mean over items; of a text below n words alone, it is 0.
    """
    if n < 1:
        raise ValueError(f"n={n}: n-grams have at least 1 word, and BLEU-4 is usual")
    written, told = _tokenised(hypotheses, references, tokenize)
    p = precisions(written, told, n)
    if min(p) == 0:
        return 0.0
    h = sum(len(words) for words in written)
    r = sum(
        min((abs(len(text) - len(words)), len(text)) for text in texts)[1]
        for words, texts in zip(written, told, strict=True)
    )
    return exp(min(0, 1 - r / h) + sum(log(share) for share in p) / n)


def precisions(
    written: Sequence[list[str]], told: Sequence[list[list[str]]], n: int = 4
) -> list[float]:
    """Return the share of right k-grams among the written ones, for k from 1 to n.

    Texts come as lists of tokens. A k-gram is right as often as one reference has it:
    "the the the" is not right three times. Where no k-gram is right but some words are,
    half of one counts as right, for the next such k a quarter (sacrebleu's "exp").
    """
    shares, credit = [], 1.0
    for k in range(1, n + 1):
        right = total = 0
        for words, texts in zip(written, told, strict=True):
            found, most = ngrams(words, k), Counter()
            for text in texts:
                most |= ngrams(text, k)  # the larger count of each
            right += (found & most).total()  # the smaller count
            total += found.total()
        if right == 0 and k > 1 and shares[0] > 0:
            credit /= 2
            right = credit
        shares.append(right / total if total > 0 else 0.0)
    return shares


# --- ROUGE-L: what is left of a person's text, in its order? ----------------------


def rouge_l(
    hypothesis: str, references: Sequence[str], tokenize: Tokenize = tokens
) -> float:
    """Return ROUGE-L of one text, 0 to 1: its F against the reference that fits best.

    With L the longest common subsequence, P = L / |hypothesis| and R = L / |reference|,
    F = 2PR / (P + R), as rouge-score. COCO's tool weighs R more (beta = 1.2).
    """
    return mean_rouge_l([hypothesis], [references], tokenize)


def mean_rouge_l(
    hypotheses: Sequence[str], references: Sets, tokenize: Tokenize = tokens
) -> float:
    """Return the mean of ``rouge_l`` over the items."""
    written, told = _tokenised(hypotheses, references, tokenize)
    best = [
        max(2 * common_length(words, t) / (len(words) + len(t)) for t in texts)
        for words, texts in zip(written, told, strict=True)
    ]
    return float(np.mean(best))


def common_length(a: Sequence[str], b: Sequence[str]) -> int:
    """Return how many words a and b share in the same order, gaps allowed.

    Row by row: ``row[j]`` is the answer for a's words so far and b's first j.
    """
    row = [0] * (len(b) + 1)
    for word in a:
        above, row = row, [0]
        for j, other in enumerate(b):
            same = word == other
            row.append(above[j] + 1 if same else max(above[j + 1], row[j]))
    return row[-1]


# --- CIDEr: the rarer a run of words, the more it counts --------------------------

ORDERS = range(1, 5)  # runs of 1 to 4 words
SIGMA = 6.0  # of the Gaussian over the difference in length


def cider_d(
    hypotheses: Sequence[str],
    references: Sets,
    corpus: Sets | None = None,
    tokenize: Tokenize = tokens,
) -> Float[np.ndarray, " n"]:
    """Return CIDEr-D of each item, 0 to 10; their mean is the corpus's score.

    For each k from 1 to 4 a text is a vector: of every k-gram its count times
    log(N / df), where df of the N items have it in a reference. CIDEr-D is 10 times the
    mean over k and references of their cosine (``_cosine``) times
    exp(-d^2 / (2 * 6^2)), with d the difference in pairs of neighbouring words. A text
    of fewer than 4 words has no 4-gram and so can't reach 10.

    df is counted over the reference lists in ``corpus``, or else over ``references``
    itself: give it where few items are scored. One item alone has log(1 / 1) = 0 for
    every word, and so CIDEr-D 0, as in pycocoevalcap.
    """
    written, told = _tokenised(hypotheses, references, tokenize)
    items = told if corpus is None else _tokenised_sets("corpus", corpus, tokenize)
    df = Counter(
        gram
        for texts in items
        for gram in {g for text in texts for k in ORDERS for g in ngrams(text, k)}
    )

    def vector(words: list[str], k: int) -> dict[tuple[str, ...], float]:
        counts = ngrams(words, k).items()
        return {g: count * log(len(items) / max(1, df[g])) for g, count in counts}

    def score(words: list[str], text: list[str]) -> float:
        alike = [_cosine(vector(words, k), vector(text, k)) for k in ORDERS]
        d = max(len(words) - 1, 0) - max(len(text) - 1, 0)
        return 10 * float(np.mean(alike)) * exp(-(d**2) / (2 * SIGMA**2))

    pairs = zip(written, told, strict=True)
    return np.array([np.mean([score(w, text) for text in texts]) for w, texts in pairs])


def _cosine(a: dict, b: dict) -> float:
    """Return the cosine of a and b, a's weights in the product cut to b's.

    Thus to repeat a rare word gains nothing: the D of CIDEr-D, with the term in d.
    """
    product = sum(min(weight, b[g]) * b[g] for g, weight in a.items() if g in b)
    lengths = hypot(*a.values()) * hypot(*b.values())
    return product / lengths if lengths > 0 else 0.0


# --- what goes in -----------------------------------------------------------------


def _tokenised(
    hypotheses: Sequence, references: Sequence, tokenize: Tokenize
) -> tuple[list[list[str]], list[list[list[str]]]]:
    """Return the tokens of all texts, after checking that the lists fit."""
    if isinstance(hypotheses, str):
        raise ValueError(f"hypotheses is one string: write [{hypotheses!r:.40}]")
    for i, text in enumerate(hypotheses):
        if not isinstance(text, str):
            raise ValueError(
                f"hypotheses[{i}] is a {type(text).__name__}, not a string: hypotheses "
                "come first, then the lists of references"
            )
    told = _tokenised_sets("references", references, tokenize)
    if len(hypotheses) != len(told):
        raise ValueError(
            f"{len(hypotheses)} hypotheses but {len(told)} lists of references: "
            "references[i] lists all texts for hypotheses[i]"
        )
    return [tokenize(text) for text in hypotheses], told


def _tokenised_sets(
    name: str, sets: Sequence, tokenize: Tokenize
) -> list[list[list[str]]]:
    lists = {name: sets} | {f"{name}[{i}]": texts for i, texts in enumerate(sets)}
    for which, texts in lists.items():
        if isinstance(texts, str):
            raise ValueError(
                f"{which} is the string {texts!r:.40}, not a list: for each item write "
                "the list of its references, [[text, ...], ...]"
            )
        if len(texts) == 0:
            raise ValueError(f"{which} is empty: an item needs at least one reference")
    told = [[tokenize(text) for text in texts] for texts in sets]
    for i, texts in enumerate(told):
        if [] in texts:
            j = texts.index([])
            raise ValueError(
                f"{name}[{i}][{j}] = {sets[i][j]!r:.40} has no words: leave it out"
            )
    return told

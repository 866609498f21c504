"""BLEU, ROUGE-L and CIDEr-D against the libraries that papers use, and by hand."""

from itertools import combinations
from math import exp

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocoevalcap.cider.cider_scorer import CiderScorer
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import DefaultTokenizer
from sacrebleu.metrics import BLEU
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

from mmcourse.text_metrics import (
    bleu,
    cider_d,
    common_length,
    mean_rouge_l,
    ngrams,
    precisions,
    rouge_l,
    tokens,
)

WROTE = [
    "a red circle on a blue square",
    "the the the the the the the",  # repeated words
    "",  # a model that writes nothing
    "circle",  # one word
    "two small green triangles under a star",
    "a small star",
    "two circles and one square lie under a big star",
]
TOLD = [
    ["a red circle is on a blue square", "there is a circle on a square"],
    ["the star is on the square", "there is a star on the square"],
    ["a blue star", "one star, and it is blue"],
    ["a circle", "one red circle that lies alone"],
    ["two small green triangles under a star"],
    ["a star of small size", "star small a"],
    ["two circles and a square under a star", "a star over two circles"],
]
VOCABULARY = ["a", "the", "red", "blue", "circle", "square", "star", "on", "two"]


class Words:
    """The cut of ``tokens``, as rouge-score asks for it."""

    tokenize = staticmethod(tokens)


def drawn(seed, items=12, most_references=4):
    """Texts of few different words, so that n-grams meet, some empty or of one word."""
    rng = np.random.default_rng(seed)

    def text(shortest):
        return " ".join(rng.choice(VOCABULARY, rng.integers(shortest, 12)))

    wrote = [text(0) for _ in range(items)]
    told = [
        [text(1) for _ in range(rng.integers(1, most_references + 1))] for _ in wrote
    ]
    return wrote, told


def sacrebleu(wrote, told, tokenize="none", n=4):
    """sacrebleu wants the first references of all items, then the second, ..."""
    most = max(map(len, told))
    streams = [[t[k] if k < len(t) else None for t in told] for k in range(most)]
    scorer = BLEU(tokenize=tokenize, max_ngram_order=n)
    return scorer.corpus_score(wrote, streams).score


def pycocoevalcap(wrote, told):
    scorer = CiderScorer()
    for text, texts in zip(wrote, told, strict=True):
        scorer += (text, texts)
    return scorer.compute_score()


def cut(wrote, told):
    """The same texts as strings of tokens, which the libraries split at spaces."""

    def one(text):
        return " ".join(tokens(text))

    return [one(text) for text in wrote], [[one(t) for t in texts] for texts in told]


SETS = [(WROTE, TOLD), *(drawn(seed) for seed in range(20))]
ONE_BY_ONE = [([w], [t]) for w, t in zip(WROTE, TOLD, strict=True)]


# --- tokens and n-grams -----------------------------------------------------------


def test_tokens_by_hand():
    words = " ".join(tokens("A Cat's 2nd—cup, of_tea!"))
    assert words == "a cat s 2nd cup of tea"
    assert tokens("红色circle 在café上。") == ["红", "色", "circle", "在", "café", "上"]
    assert tokens("") == tokens(" ...! ") == []


@settings(deadline=None)
@given(st.text(st.characters(max_codepoint=127)))
def test_tokens_of_english_are_those_of_rouge_score(text):
    assert tokens(text) == DefaultTokenizer(use_stemmer=False).tokenize(text)


def test_ngrams_by_hand():
    assert ngrams(list("abab"), 2) == {("a", "b"): 2, ("b", "a"): 1}
    assert ngrams(["a"], 2) == ngrams([], 1) == {}


# --- BLEU -------------------------------------------------------------------------


@pytest.mark.parametrize("wrote, told", SETS + ONE_BY_ONE)
def test_bleu_equals_sacrebleu(wrote, told):
    for n in (1, 2, 4):
        theirs = sacrebleu(*cut(wrote, told), n=n)
        assert 100 * bleu(wrote, told, n) == pytest.approx(theirs, abs=1e-9)


def test_bleu_with_sacrebleus_own_tokens_equals_its_default():
    told = [["The cat's on a 3,000-year-old mat."], ["Yes; it is (I think) a dog!"]]
    wrote = ["The cat is on a 3,000-year-old mat.", "Yes: it is, I think, a dog!"]
    cut_as_13a = Tokenizer13a()
    ours = bleu(wrote, told, tokenize=lambda text: cut_as_13a(text).split())
    theirs = sacrebleu(wrote, told, tokenize="13a")
    assert 100 * ours == pytest.approx(theirs)
    # Another tokenizer, another number.
    assert abs(100 * bleu(wrote, told) - theirs) > 1


def test_bleu_by_hand():
    wrote, told = ["the the the cat"], [["the cat sat on the mat"]]
    written, texts = [tokens(wrote[0])], [[tokens(told[0][0])]]
    assert precisions(written, texts, 3) == [3 / 4, 1 / 3, 0.5 / 2]
    assert bleu(wrote, told, 2) == pytest.approx(exp(1 - 6 / 4) * (3 / 4 / 3) ** 0.5)


def test_the_closest_reference_counts_and_the_shorter_of_two():
    longer, shorter, shortest = "a b c d e", "a b d", "a"
    assert bleu(["a b c d"], [[longer, shorter, shortest]], 1) == 1
    assert bleu(["a b c d"], [[longer, shortest]], 1) == pytest.approx(exp(1 - 5 / 4))


def test_every_second_miss_halves_the_credit():
    shares = precisions([list("abcdef")], [[list("fedcba")]])
    assert shares == [1, 1 / 2 / 5, 1 / 4 / 4, 1 / 8 / 3]


# --- ROUGE-L ----------------------------------------------------------------------


@pytest.mark.parametrize("wrote, told", SETS)
def test_rouge_l_equals_rouge_score(wrote, told):
    scorer = RougeScorer(["rougeL"], tokenizer=Words())
    theirs = [
        scorer.score_multi(texts, text)["rougeL"].fmeasure
        for text, texts in zip(wrote, told, strict=True)
    ]
    ours = [rouge_l(text, texts) for text, texts in zip(wrote, told, strict=True)]
    assert ours == pytest.approx(theirs)
    assert mean_rouge_l(wrote, told) == pytest.approx(np.mean(theirs))


def test_rouge_l_equals_rouge_scores_default_on_english():
    text, texts = "The cat's ON the mat.", ["A cat is on a mat!", "Mats, on the cat"]
    scorer = RougeScorer(["rougeL"])
    theirs = scorer.score_multi(texts, text)["rougeL"].fmeasure
    assert rouge_l(text, texts) == pytest.approx(theirs)


def test_rouge_l_by_hand():
    # "the cat on mat" is left of six words, in order: P = 4 / 5, R = 4 / 6.
    f = 2 * (4 / 5) * (4 / 6) / (4 / 5 + 4 / 6)
    told = "the cat sat on the mat"
    assert rouge_l("the cat lay on mat", [told]) == pytest.approx(f)
    assert rouge_l("the cat lay on mat", ["dogs", told]) == pytest.approx(f)
    assert rouge_l("", [told]) == 0
    assert rouge_l(told, [told]) == 1


@settings(deadline=None)
@given(st.text("abc", max_size=7), st.text("abc", max_size=7))
def test_common_length_equals_trying_all_subsequences(a, b):
    def all_of(text):
        return {s for n in range(len(text) + 1) for s in combinations(text, n)}

    assert common_length(a, b) == max(map(len, all_of(a) & all_of(b)))
    assert common_length(a, b) == common_length(b, a)


# --- CIDEr-D ----------------------------------------------------------------------


@pytest.mark.parametrize("wrote, told", SETS + ONE_BY_ONE)
def test_cider_d_equals_pycocoevalcap(wrote, told):
    mean, each = pycocoevalcap(*cut(wrote, told))
    ours = cider_d(wrote, told)
    np.testing.assert_allclose(ours, each, atol=1e-9)
    assert ours.mean() == pytest.approx(mean, abs=1e-9)


def test_cider_d_by_hand():
    wrote, told = ["a cat", "a dog"], [["a cat"], ["the big dog"]]
    # "a" and "cat" stand in one of two items each; "cat" and the pair weigh log 2.
    # First: cosine 1 of one word and of pairs, no longer runs: 10 * 2 / 4.
    # Second: one of sqrt(2) words meets one of sqrt(3); a pair less than the reference.
    second = 10 / 4 * (1 / 6**0.5) * exp(-1 / 72)
    assert cider_d(wrote, told) == pytest.approx([5, second])


def test_a_word_that_is_in_every_item_counts_for_nothing():
    assert cider_d(["a", "a"], [["a dog"], ["a cat"]]).tolist() == [0, 0]


def test_rare_words_count_more():
    told = [["red star"], ["red square"], ["red circle"], ["blue moon"]]
    scores = cider_d(["red", "square", "circle", "moon"], told)
    assert scores[0] < scores[1]


def test_to_repeat_a_word_brings_nothing():
    told = [["a small dog"], ["one cat"]]
    once, often = (cider_d([w, "x"], told)[0] for w in ("dog x x", "dog dog dog"))
    assert 0 < often < once


def test_one_item_alone_is_zero_without_a_corpus():
    assert cider_d(WROTE[:1], TOLD[:1]).tolist() == [0]
    ours = cider_d(WROTE[:2], TOLD[:2], corpus=TOLD)
    np.testing.assert_allclose(ours, cider_d(WROTE, TOLD)[:2])


# --- what holds for all -----------------------------------------------------------


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6))
def test_ranges_order_and_perfection(seed):
    wrote, told = drawn(seed, items=6)
    order = np.random.default_rng(seed).permutation(6)
    moved = [wrote[i] for i in order], [told[i][::-1] for i in order]
    assert 0 <= bleu(wrote, told) <= 1
    assert bleu(*moved) == pytest.approx(bleu(wrote, told))
    assert 0 <= mean_rouge_l(wrote, told) <= 1
    assert mean_rouge_l(*moved) == pytest.approx(mean_rouge_l(wrote, told))
    scores = cider_d(wrote, told)
    assert scores.min() >= 0 and scores.max() <= 10 + 1e-9
    np.testing.assert_allclose(cider_d(*moved), scores[order], atol=1e-9)


def test_what_a_person_wrote_is_perfect():
    texts = ["two red stars under a moon", "one big cat eats a fish"]
    assert bleu(texts, [[text] for text in texts]) == pytest.approx(1)
    assert mean_rouge_l(texts, [[text] for text in texts]) == 1
    assert cider_d(texts, [[text] for text in texts]) == pytest.approx([10, 10])


def test_tokenize_is_used_everywhere():
    wrote, told = ["A cat.", "Dogs!"], [["a cat"], ["Dogs!"]]
    assert mean_rouge_l(wrote, told) == 1
    assert mean_rouge_l(wrote, told, str.split) == 0.5
    assert bleu(wrote, told, 1) == 1
    assert bleu(wrote, told, 1, str.split) == pytest.approx(1 / 3)
    scores = cider_d(wrote, told, tokenize=str.split)
    assert scores.tolist() == pytest.approx([0, 2.5])


# --- errors -----------------------------------------------------------------------


def plain(function):
    """The function by its own messages alone, without beartype's."""
    return getattr(function, "__wrapped__", function)


@pytest.mark.parametrize("metric", [bleu, mean_rouge_l, cider_d])
@pytest.mark.parametrize(
    "wrote, told, why",
    [
        (["a"], [["a"], ["b"]], "1 hypotheses but 2 lists of references"),
        (["a", "b"], [["a", "b"]], "2 hypotheses but 1 lists of references"),
        ("a", [["a"]], r"hypotheses is one string: write \['a'\]"),
        (["a"], "a", "references is the string 'a', not a list"),
        (["a", "b"], [["a"], "b c"], r"references\[1\] is the string 'b c'"),
        (["a", "b"], [["a"], []], r"references\[1\] is empty"),
        ([], [], "references is empty"),
        (
            ["a", "b"],
            [["a"], ["b", " ?"]],
            r"references\[1\]\[1\] = ' \?' has no words",
        ),
        ([["a"]], [["a"]], r"hypotheses\[0\] is a list, not a string"),
    ],
)
def test_what_does_not_fit_is_refused(metric, wrote, told, why):
    with pytest.raises(ValueError, match=why):
        plain(metric)(wrote, told)


def test_swapped_arguments_are_refused():
    for metric in (bleu, mean_rouge_l, cider_d):
        with pytest.raises(ValueError, match="hypotheses come first"):
            plain(metric)(TOLD, WROTE)
    with pytest.raises(ValueError, match="is the string 'a cat'"):
        rouge_l("a cat", "a cat")


def test_other_bad_arguments():
    with pytest.raises(ValueError, match="n=0"):
        bleu(["a"], [["a"]], 0)
    with pytest.raises(ValueError, match="corpus is empty"):
        cider_d(["a"], [["a"]], corpus=[])

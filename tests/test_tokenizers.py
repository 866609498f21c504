import json
from collections import Counter
from functools import cache
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Reference
from tokenizers import decoders, models, pre_tokenizers, trainers

from mmcourse.tokenizers import (
    BOS,
    BYTES,
    EOS,
    PAD,
    SPECIALS,
    UNK,
    BytePairTokenizer,
    CharTokenizer,
    WordTokenizer,
    learn_merges,
    merge,
    pad,
)

KINDS = (CharTokenizer, WordTokenizer, BytePairTokenizer)
CORPUS = [
    "red apple", "green apple", "Red apples aren't green: they're red!", "🍎 apple 🍏",
    "红苹果", "青苹果和红苹果", "苹果 2,000 个", "grinning face 😀😀😀",
    "👩‍🚀 woman astronaut", "aaaa aaaaaaa aa", "two  blanks\tand\n\n a line ",
    "naïve café ½ ² Ⅷ हिन्दी",
]  # fmt: skip

# Code points that Unicode has not assigned yet (Cn) are left out where we compare: the
# library and regex know different editions of Unicode.
assigned = st.characters(exclude_categories=("Cs", "Cn"))
few_signs = st.text(st.sampled_from("ab 苹果😀😁'"), min_size=1, max_size=40)
corpora = st.lists(few_signs.filter(str.strip), min_size=1, max_size=8)


def reference(texts, vocab_size):
    """The byte-level byte-pair tokenizer of the tokenizers library."""
    tok = Reference(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tok.train_from_iterator(texts, trainer)
    tok.encode_special_tokens = True  # "<pad>" in a text is text, as with us
    return tok


def in_gpt2_signs(piece: bytes) -> str:
    """A piece as the library spells it: a printable sign for every byte."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = sorted({*range(256)} - printable)
    return "".join(chr(b if b in printable else 256 + others.index(b)) for b in piece)


@cache
def trained(texts, vocab_size):
    return BytePairTokenizer.train(texts, vocab_size), reference(texts, vocab_size)


def assert_same_as_library(texts, vocab_size, probes):
    ours, theirs = trained(tuple(texts), vocab_size)
    vocab = theirs.get_vocab()
    spelled = [*SPECIALS, *map(in_gpt2_signs, ours.pieces[4:])]
    assert {piece: i for i, piece in enumerate(spelled)} == vocab
    merges = [tuple(spelled[i] for i in pair) for pair in ours.merges]
    saved = json.loads(theirs.to_str())["model"]["merges"]
    assert merges == [tuple(pair) for pair in saved]
    for text in probes:
        assert ours.encode(text) == theirs.encode(text).ids, text


# --- byte pairs against the library and against a naive loop --------------------------


@pytest.mark.parametrize("vocab_size", [260, 270, 300, 1000])
def test_byte_pairs_equal_the_library(vocab_size):
    probes = [*CORPUS, "an unseen 🍇 葡萄, isn't it?", "   ", "\r\n x"]
    assert_same_as_library(CORPUS, vocab_size, probes)


@settings(deadline=None, max_examples=60)
@given(corpora, st.integers(0, 60), few_signs)
def test_byte_pairs_equal_the_library_on_any_corpus(texts, merges, probe):
    assert_same_as_library(texts, 260 + merges, [probe])


@settings(deadline=None, max_examples=60)
@given(st.text(assigned, min_size=1, max_size=60))
def test_byte_pairs_cut_any_text_like_the_library(text):
    assert_same_as_library(CORPUS, 300, [text])


@settings(deadline=None)
@given(
    st.dictionaries(
        st.lists(st.integers(4, 6), min_size=1, max_size=9).map(tuple),
        st.integers(1, 5),
        max_size=8,
    ),
    st.integers(0, 12),
)
def test_learn_merges_equals_counting_everything_every_time(words, merges):
    expected, new, left = [], 260, dict(words)
    while len(expected) < merges:
        counts = Counter()
        for word, times in left.items():
            for pair in pairwise(word):
                counts[pair] += times
        if not counts:
            break
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        expected.append(best)
        merged = Counter()
        for word, times in left.items():
            merged[merge(word, best, new)] += times
        left, new = merged, new + 1
    assert learn_merges(words, merges) == expected


def test_byte_pair_training_by_hand():
    # low x 3, lower x 1: "lo" and "ow" both occur four times. "l" has the smaller id,
    # so lo is first, then low; "er" and "we" are left, low+e and e+r tie at 1.
    tok = BytePairTokenizer.train(["low", "low", "low", "lower"], 263)
    assert [tok.pieces[i] for i in range(260, 263)] == [b"lo", b"low", b"er"]
    assert tok.tokens("lower slow") == ["low", "er", " ", "s", "low"]
    assert tok.encode("low") == [261]


def test_bytes_are_all_there_once():
    assert sorted(BYTES) == list(range(256))
    assert BYTES[0] == ord("!")


def test_bytes_that_are_no_character_are_shown():
    tok = BytePairTokenizer.train(["a"], 260)
    assert tok.tokens("a中") == ["a", "‹e4›", "‹b8›", "‹ad›"]
    tok = BytePairTokenizer.train(["中", "中"], 262)
    assert tok.tokens("中") == ["中"]
    assert tok.decode(tok.encode("中")[:1]) == "中"


def test_broken_bytes_decode_to_a_replacement():
    tok = BytePairTokenizer.train(["a"], 260)
    assert tok.decode([*tok.encode("中")[:2], *tok.encode("a")]) == "�a"


# --- what every tokenizer promises ----------------------------------------------------


@settings(deadline=None)
@given(st.text(min_size=1))
def test_byte_pairs_give_back_any_text(text):
    tok, _ = trained(tuple(CORPUS), 300)
    assert tok.decode(tok.encode(text, ends=True)) == text


@settings(deadline=None)
@given(st.lists(st.text(min_size=1).filter(str.strip), min_size=1, max_size=5))
def test_characters_give_back_their_own_texts(texts):
    tok = CharTokenizer.train(texts)
    assert [tok.decode(tok.encode(text)) for text in texts] == texts


def test_characters_by_hand():
    tok = CharTokenizer.train(["abb", "b苹"])
    assert tok.vocab == [*SPECIALS, "b", "a", "苹"]
    assert tok.encode("a苹x", ends=True) == [BOS, 5, 6, UNK, EOS]
    assert tok.decode([BOS, 5, 6, UNK, EOS, PAD]) == "a苹<unk>"


def test_words_by_hand():
    tok = WordTokenizer.train(["the cat, the dog", "红苹果 the"], vocab_size=6)
    assert tok.vocab == [*SPECIALS, "the", ","]
    full = WordTokenizer.train(["the cat, the dog", "红苹果 the"])
    assert full.tokens("the  cat,红苹果 x") == ["the", "cat", ",", "红苹果", "<unk>"]
    assert full.decode(full.encode("the  dog")) == "the dog"


@pytest.mark.parametrize("kind", KINDS)
def test_training_does_not_depend_on_the_order_of_texts(kind):
    assert kind.train(CORPUS).vocab == kind.train(CORPUS[::-1]).vocab


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_loaded_is_the_same(kind, tmp_path):
    tok = kind.train(CORPUS, vocab_size=280)
    tok.save(tmp_path / "tok.json")
    again = kind.load(tmp_path / "tok.json")
    assert again.vocab == tok.vocab
    assert [again.encode(t) for t in CORPUS] == [tok.encode(t) for t in CORPUS]


def test_another_kinds_file_is_refused(tmp_path):
    CharTokenizer.train(["a"]).save(tmp_path / "tok.json")
    with pytest.raises(ValueError, match=r"holds a CharTokenizer.*CharTokenizer\.load"):
        WordTokenizer.load(tmp_path / "tok.json")


@pytest.mark.parametrize("kind", KINDS)
def test_bad_input_is_refused(kind):
    with pytest.raises(ValueError, match=r"of 3 texts, empty: \[1, 2\]"):
        kind.train(["a", "", "  "])
    with pytest.raises(ValueError, match="of 0 texts"):
        kind.train([])
    with pytest.raises(ValueError, match="pass a list"):
        kind.train("apple")
    with pytest.raises(ValueError, match="vocab_size=3"):
        kind.train(["a"], vocab_size=3)
    tok = kind.train(CORPUS, vocab_size=280)
    with pytest.raises(ValueError, match="is empty"):
        tok.encode("")
    for wrong in (-1, tok.vocab_size):
        with pytest.raises(ValueError, match=f"id {wrong} at place 1 .* 0 to "):
            tok.decode([4, wrong])


def test_a_text_of_blanks_has_no_words():
    with pytest.raises(ValueError, match="'  ' is empty"):
        WordTokenizer.train(["a"]).encode("  ")


# --- padding --------------------------------------------------------------------------


def test_padding_by_hand():
    tokens, mask = pad([[7, 8, EOS], [9], [5, 6]])
    assert tokens.tolist() == [[7, 8, EOS], [9, PAD, PAD], [5, 6, PAD]]
    assert mask.tolist() == [[True] * 3, [True, False, False], [True, True, False]]
    tokens, mask = pad([[7, 8, 9, EOS], [7, 8, 9], [5]], length=2)
    assert tokens.tolist() == [[7, EOS], [7, 8], [5, PAD]]
    assert mask.tolist() == [[True, True], [True, True], [True, False]]


@given(
    st.lists(st.lists(st.integers(4, 99), min_size=1), min_size=1),
    st.none() | st.integers(1, 9),
)
def test_the_mask_shows_what_was_there(sequences, length):
    tokens, mask = pad(sequences, length)
    assert tokens.dtype == torch.int64
    for row, real, ids in zip(tokens, mask, sequences, strict=True):
        assert row[real].tolist() == ids[: mask.shape[1]]
        assert (row[~real] == PAD).all()


def test_padding_refuses_what_is_empty():
    with pytest.raises(ValueError, match=r"of 3 sequences, empty: \[0, 2\]"):
        pad([[], [5], []])
    with pytest.raises(ValueError, match="of 0 sequences"):
        pad([])
    with pytest.raises(ValueError, match="length=0"):
        pad([[5]], length=0)

"""Text becomes whole numbers: by character, by word, by byte pair.

The byte pairs are those of Sennrich, Haddow and Birch (2015, arXiv 1508.07909), over
the bytes of UTF-8 as in GPT-2 (Radford et al., 2019). Taught in notebook 01_modalities.
"""

import codecs
import heapq
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import chain, pairwise
from pathlib import Path

import regex
import torch
from jaxtyping import Bool, Int
from torch import Tensor

PAD, UNK, BOS, EOS = range(4)
SPECIALS = ("<pad>", "<unk>", "<bos>", "<eos>")

# The 256 bytes in GPT-2's order, those that print first. The order matters: ids decide
# between byte pairs that are equally frequent.
_PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
BYTES = [*_PRINTABLE, *sorted({*range(256)} - {*_PRINTABLE})]
_ID_OF_BYTE = {byte: i for i, byte in enumerate(BYTES, start=len(SPECIALS))}


class Tokenizer:
    """The face of all three: ``train``, ``encode``, ``decode``, ``tokens``, ``save``.

    ``vocab`` lists the pieces and a piece's place is its id, so that ``vocab[ids[0]]``
    shows the first one. ``pattern`` says how a text falls into pieces, and ``joint``
    what stands between them when they are put together again.
    """

    pattern: regex.Pattern
    joint = ""

    def __init__(self, vocab: Iterable[str]):
        self.state = self.vocab = list(vocab)
        self._ids = {piece: i for i, piece in enumerate(self.vocab)}

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int | None = None) -> "Tokenizer":
        """Keep the pieces that occur most often; of equals, the first in the alphabet.

        ``vocab_size`` counts the four specials too; None keeps every piece.
        Raises ValueError where a text is empty.
        """
        if vocab_size is not None and vocab_size <= len(SPECIALS):
            raise ValueError(f"vocab_size={vocab_size} has no room: choose 5 or more")
        counts = cls._count(texts)
        pieces = sorted(counts, key=lambda piece: (-counts[piece], piece))
        return cls([*SPECIALS, *pieces][:vocab_size])

    @property
    def vocab_size(self) -> int:
        """The number of ids, specials included."""
        return len(self.vocab)

    def encode(self, text: str, ends: bool = False) -> list[int]:
        """Text to ids; ``ends`` puts ``BOS`` before and ``EOS`` after them.

        What the vocabulary lacks becomes ``UNK``. Raises ValueError for a text that
        holds no piece.
        """
        ids = [i for piece in self.pattern.findall(text) for i in self._encode(piece)]
        if not ids:
            raise ValueError(f"the text {text!r} is empty: there is nothing to encode")
        return [BOS, *ids, EOS] if ends else ids

    def decode(self, ids: Iterable[int]) -> str:
        """Ids to text, less padding and ends. Raises ValueError for an unknown id."""
        ids = [int(i) for i in ids]
        for place, i in enumerate(ids):
            if not 0 <= i < self.vocab_size:
                raise ValueError(
                    f"id {i} at place {place} is not in the vocabulary: "
                    f"ids go from 0 to {self.vocab_size - 1}"
                )
        return self._decode([i for i in ids if i not in (PAD, BOS, EOS)])

    def tokens(self, text: str) -> list[str]:
        """The pieces of a text, as a reader wants to see them."""
        return [self.vocab[i] for i in self.encode(text)]

    def save(self, path: str | Path) -> None:
        """Write the tokenizer as JSON."""
        saved = {"kind": type(self).__name__, "state": self.state}
        Path(path).write_text(json.dumps(saved, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> "Tokenizer":
        """Read what ``save`` wrote. Raises ValueError for another kind's file."""
        saved = json.loads(Path(path).read_text(encoding="utf-8"))
        if (kind := saved["kind"]) != cls.__name__:
            raise ValueError(f"{path} holds a {kind}: read it with {kind}.load")
        return cls(saved["state"])

    def _encode(self, piece: str) -> Sequence[int]:
        return [self._ids.get(piece, UNK)]

    def _decode(self, ids: list[int]) -> str:
        return self.joint.join(self.vocab[i] for i in ids)

    @classmethod
    def _count(cls, texts: Iterable[str]) -> Counter[str]:
        if isinstance(texts, str):
            raise ValueError(f"texts is one str, {texts[:20]!r}: pass a list of texts")
        texts = list(texts)
        empty = [i for i, text in enumerate(texts) if not text.strip()]
        if empty or not texts:
            raise ValueError(f"of {len(texts)} texts, empty: {empty[:5]}; drop those")
        return Counter(chain.from_iterable(map(cls.pattern.findall, texts)))


class CharTokenizer(Tokenizer):
    """Every character is a piece: a tiny vocabulary, long sequences."""

    pattern = regex.compile(r"(?s).")


class WordTokenizer(Tokenizer):
    """Every word and every other sign is a piece: short sequences, many unknown words.

    ``decode`` puts one blank between pieces: it gives back the words, not the spacing.
    Chinese is written without blanks, so that a whole phrase becomes one "word".
    """

    pattern = regex.compile(r"\w+|[^\w\s]")
    joint = " "


class BytePairTokenizer(Tokenizer):
    """Frequent pieces are long, rare ones single bytes: nothing is ever unknown.

    Start from the 256 bytes. Over and over, make the most frequent pair of neighbours
    one new piece: (a, b) = argmax count(a, b), and a + b joins the vocabulary. Encoding
    repeats these merges in the order in which they were learned.
    """

    # GPT-2 first cuts a text: English endings, letters, digits, other signs, blanks. A
    # word takes the blank before it along; no byte pair ever reaches over a cut.
    pattern = regex.compile(
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
    )

    def __init__(self, merges: Iterable[Sequence[int]]):
        self.merges = [(left, right) for left, right in merges]
        self.pieces = [*map(str.encode, SPECIALS), *(bytes([b]) for b in BYTES)]
        self._merged = {}
        for left, right in self.merges:
            self._merged[left, right] = len(self.pieces)
            self.pieces.append(self.pieces[left] + self.pieces[right])
        super().__init__(piece.decode(errors="mmcourse.show") for piece in self.pieces)
        self.state = self.merges

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int = 1024) -> "Tokenizer":
        """Learn merges until there are ``vocab_size`` pieces, or no pair is left.

        ``vocab_size`` counts the four specials and the 256 bytes too. Raises ValueError
        where it is less than these 260, or a text is empty.
        """
        merges = vocab_size - len(SPECIALS) - len(BYTES)
        if merges < 0:
            raise ValueError(
                f"vocab_size={vocab_size} is less than 4 specials + 256 bytes"
            )
        words = {to_bytes(word): n for word, n in cls._count(texts).items()}
        return cls(learn_merges(words, merges))

    def _encode(self, piece: str) -> Sequence[int]:
        ids = to_bytes(piece)
        while known := self._merged.keys() & pairwise(ids):
            first = min(known, key=self._merged.__getitem__)  # the first one learned
            ids = merge(ids, first, self._merged[first])
        return ids

    def _decode(self, ids: list[int]) -> str:
        # A model may write bytes that are no text: they become the sign � here.
        return b"".join(self.pieces[i] for i in ids).decode(errors="replace")


def to_bytes(word: str) -> tuple[int, ...]:
    """The ids of a word's UTF-8 bytes: one for an English letter, three for 中."""
    return tuple(_ID_OF_BYTE[byte] for byte in word.encode())


def merge(ids: Sequence[int], pair: tuple[int, int], new: int) -> tuple[int, ...]:
    """Replace ``pair`` by ``new`` wherever it stands, from left to right."""
    out = []
    for i in ids:
        if out and (out[-1], i) == pair:
            out[-1] = new
        else:
            out.append(i)
    return tuple(out)


def learn_merges(
    words: dict[tuple[int, ...], int], merges: int
) -> list[tuple[int, int]]:
    """The most frequent pair of neighbours, again and again, each merged when found.

    ``words`` maps each word, as ids, to its count. Only words that hold the merged pair
    are counted anew.
    """
    spelled, times = list(words), list(words.values())
    counts, where = Counter(), defaultdict(set)

    def count(word: int, sign: int) -> list[tuple[int, int]]:
        pairs = list(pairwise(spelled[word]))
        for pair in pairs:
            counts[pair] += sign * times[word]
            where[pair].add(word)
        return pairs

    for word in range(len(spelled)):
        count(word, +1)
    # Of equally frequent pairs the one with the smaller left id, then the smaller right
    # id wins, as in the tokenizers library: just how tuples compare in a heap.
    heap = [(-n, pair) for pair, n in counts.items()]
    heapq.heapify(heap)
    learned, first_new = [], len(SPECIALS) + len(BYTES)
    while heap and len(learned) < merges:
        n, pair = heapq.heappop(heap)
        if -n != counts[pair]:  # out of date: its new count is in the heap as well
            continue
        touched = set()
        for word in where.pop(pair):
            touched.update(count(word, -1))
            spelled[word] = merge(spelled[word], pair, first_new + len(learned))
            touched.update(count(word, +1))
        learned.append(pair)
        for other in touched:
            if counts[other] > 0:
                heapq.heappush(heap, (-counts[other], other))
    return learned


def pad(
    sequences: Sequence[Sequence[int]], length: int | None = None
) -> tuple[Int[Tensor, "B L"], Bool[Tensor, "B L"]]:
    """Lists of ids to one batch: ``tokens``, and ``mask``, which is True where real.

    ``length`` None takes the longest. A longer sequence is cut; if it ended in ``EOS``
    it still does. Raises ValueError for an empty sequence or length.
    """
    empty = [i for i, ids in enumerate(sequences) if len(ids) == 0]
    if empty or len(sequences) == 0:
        raise ValueError(f"of {len(sequences)} sequences, empty: {empty}; drop those")
    if length is None:
        length = max(map(len, sequences))
    if length < 1:
        raise ValueError(f"length={length}: choose 1 or more")
    tokens = torch.full((len(sequences), length), PAD)
    mask = torch.zeros(len(sequences), length, dtype=torch.bool)
    for row, ids in enumerate(sequences):
        end = min(len(ids), length)
        tokens[row, :end] = torch.as_tensor(ids[:end])
        if ids[-1] == EOS:
            tokens[row, end - 1] = EOS
        mask[row, :end] = True
    return tokens, mask


def _show(error: UnicodeDecodeError) -> tuple[str, int]:
    """Write bytes that are no whole character as ‹e4›."""
    wrong = error.object[error.start : error.end]
    return "".join(f"‹{byte:02x}›" for byte in wrong), error.end


codecs.register_error("mmcourse.show", _show)

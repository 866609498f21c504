"""Find things by meaning: an index over embeddings of any modality, and a second look.

``Index`` finds the nearest of very many rows: exactly, or faster in inverted lists
(Sivic and Zisserman, 2003) of product-quantised codes (Jegou, Douze and Schmid, 2011),
on faiss (Douze et al., 2024, arXiv 2401.08281). ``Matcher`` then reads query and
candidate together, as ALBEF's matching head does (Li et al., 2021, arXiv 2107.07651).
Taught in 09_retrieval.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import ArrayLike
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mmcourse.losses import hard_negatives, matching

KINDS = ("exact", "ivf", "ivfpq")


class Found(NamedTuple):
    """What a search found, best first; id -1 where the lists visited held too few."""

    scores: Float[Tensor, "Q k"]
    ids: Int[Tensor, "Q k"]


class Index:
    """Rows of length 1 by id, found by their cosine with a query.

    "exact" compares a query with every row. "ivf" parts the rows into ``lists`` by
    their nearest centre (k-means) and visits ``probe`` lists. "ivfpq" keeps of a row,
    instead of 4 D bytes, a code of ``code`` bytes: each says which of 256 centres is
    nearest to one part of what is left after subtracting the list's centre. The last
    two must ``train`` on a sample first. Ids are whole numbers of your choice; rows of
    several modalities lie in one index, and ``among`` picks those to search.
    """

    def __init__(
        self,
        dim: int,
        kind: str = "exact",
        lists: int = 256,
        code: int = 32,
        probe: int = 8,
    ):
        import faiss

        if kind not in KINDS:
            raise ValueError(f"kind={kind!r}: choose from {KINDS}")
        if kind == "ivfpq" and dim % code != 0:
            raise ValueError(f"code={code} bytes: choose a divisor of dim={dim}")
        name = {"exact": "IDMap2,Flat", "ivf": f"IVF{lists},Flat"}
        name["ivfpq"] = f"IVF{lists},PQ{code}np"  # no polysemous codes: slow to train
        self.dim, self.kind, self.probe = dim, kind, probe
        self._index = faiss.index_factory(dim, name[kind], faiss.METRIC_INNER_PRODUCT)
        if kind == "ivfpq":  # faiss's 25 rounds over four times the rows gain little
            self._index.pq.cp.niter, self._index.pq.cp.max_points_per_centroid = 8, 64
        self.ids = torch.empty(0, dtype=torch.int64)

    def __len__(self) -> int:
        """Return how many rows there are."""
        return len(self.ids)

    def train(self, rows: Float[Tensor, "n D"]) -> "Index":
        """Learn the centres of lists and codes from a sample of rows; return self.

        Faiss wants at least 39 rows for each list, and for each of a code's 256.
        """
        rows = self._checked(rows)
        lists = 1 if self.kind == "exact" else self._index.nlist
        needed = 39 * max(lists, 256 if self.kind == "ivfpq" else 1)
        if self.kind != "exact" and len(rows) < needed:
            raise ValueError(
                f"{len(rows)} rows to learn {lists} lists from: give at least {needed},"
                " or choose fewer lists"
            )
        self._index.train(rows)
        return self

    def add(self, rows: Float[Tensor, "n D"], ids: Int[Tensor, " n"]) -> None:
        """Add rows under ids that are not in use."""
        rows = self._checked(rows)
        if not self._index.is_trained:
            raise ValueError(f"an index of kind {self.kind!r}: train(sample) it first")
        ids = torch.as_tensor(ids)
        if ids.shape != (len(rows),) or ids.dtype != torch.int64 or (ids < 0).any():
            raise ValueError(
                f"ids {ids.dtype} {tuple(ids.shape)} for {len(rows)} rows: one whole "
                "number (int64), 0 or more, for each"
            )
        every = torch.cat([self.ids, ids])
        if len(every.unique()) < len(every):
            taken = ids[torch.isin(ids, self.ids)].tolist() or "among themselves"
            raise ValueError(
                f"ids are twice there: {str(taken)[:60]}; remove them first"
            )
        self._index.add_with_ids(rows, ids.numpy())
        self.ids = every

    def remove(self, ids: Sequence[int] | Int[Tensor, " n"]) -> None:
        """Take rows out; the ids of the others stay as they are."""
        ids = torch.as_tensor(ids, dtype=torch.int64)
        if not (known := torch.isin(ids, self.ids)).all():
            raise ValueError(f"no row has the ids {ids[~known].tolist()[:5]}")
        self._index.remove_ids(ids.numpy())
        self.ids = self.ids[~torch.isin(self.ids, ids)]

    def search(
        self, queries: Float[Tensor, "Q D"], k: int, among: ArrayLike | None = None
    ) -> Found:
        """Return each query's ``k`` best rows, of all or of those ``among`` ids."""
        import faiss

        queries = self._checked(queries)
        if not 1 <= k <= len(self):
            raise ValueError(f"k={k} of {len(self)} rows: choose from 1 to all")
        exact = self.kind == "exact"
        kwargs = {} if exact else {"nprobe": self.probe}
        if among is not None:
            kwargs["sel"] = faiss.IDSelectorBatch(np.asarray(among, dtype=np.int64))
        kinds = faiss.SearchParameters, faiss.SearchParametersIVF
        params = kinds[not exact](**kwargs)
        scores, ids = self._index.search(queries, k, params=params)
        return Found(torch.from_numpy(scores), torch.from_numpy(ids))

    def save(self, path: Path) -> None:
        """Write everything into one file, whole or not at all."""
        import faiss

        tensors = {
            "index": torch.from_numpy(faiss.serialize_index(self._index)),
            "ids": self.ids,
            "probe": torch.tensor(self.probe),
        }
        part = Path(f"{path}.{os.getpid()}.part")
        try:
            save_file(tensors, part)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: Path) -> "Index":
        """Read what ``save`` wrote."""
        import faiss

        try:
            tensors = load_file(path)
            inner = faiss.deserialize_index(tensors["index"].numpy())
        except (SafetensorError, KeyError, RuntimeError) as error:
            raise ValueError(f"{path} holds no whole index: build it anew") from error
        index = cls.__new__(cls)
        index.dim, index._index, index.ids = inner.d, inner, tensors["ids"]
        index.probe = int(tensors["probe"])
        kinds = {"IndexIVFFlat": "ivf", "IndexIVFPQ": "ivfpq"}
        index.kind = kinds.get(type(inner).__name__, "exact")
        return index

    def _checked(self, rows: Tensor) -> np.ndarray:
        if rows.ndim != 2 or rows.shape[1] != self.dim or len(rows) == 0:
            raise ValueError(
                f"rows {tuple(rows.shape)}: (n, {self.dim}) are needed, at least one"
            )
        lengths = rows.detach().float().norm(dim=1)
        if not ((lengths - 1).abs() < 1e-2).all():  # NaN fails as well
            raise ValueError(
                f"rows of length {lengths.min():.3g} to {lengths.max():.3g}, not 1: "
                "use torch.nn.functional.normalize(x, dim=-1) first"
            )
        return rows.detach().float().cpu().contiguous().numpy()


class Matcher(nn.Module):
    """Says whether a picture and a text belong together, having seen both.

    Logits = W tanh(LN(U x) * LN(V y)): a product of both, which cosines of finished
    embeddings can't make. Too slow for all pairs, so it re-ranks what an index found.
    """

    def __init__(self, image: int, text: int, dim: int = 256, dropout: float = 0.3):
        super().__init__()
        self.sides = nn.ModuleDict(
            {
                name: nn.Sequential(
                    nn.Dropout(dropout), nn.Linear(width, dim), nn.LayerNorm(dim)
                )
                for name, width in (("image", image), ("text", text))
            }
        )
        self.head = nn.Sequential(nn.Tanh(), nn.Dropout(dropout), nn.Linear(dim, 2))

    def forward(
        self, image: Float[Tensor, "*B I"], text: Float[Tensor, "*B T"]
    ) -> Float[Tensor, "*B 2"]:
        """Return logits of "no" and "yes"."""
        return self.head(self.sides["image"](image) * self.sides["text"](text))

    def loss(
        self, batch: Mapping[str, Tensor], scores: Float[Tensor, "B B"] | None
    ) -> Float[Tensor, ""]:
        """Tell right pairs from wrong ones: hard by ``scores``, or any if None."""
        image, text = batch["image"], batch["tokens"]
        if scores is None:
            scores = image.new_zeros(len(image), len(image))
        texts, pictures = hard_negatives(scores)
        wrong = torch.cat([self(image, text[texts]), self(image[pictures], text)])
        return matching(self(image, text), wrong)


def popularity(
    items: Float[Tensor, "G D"], bank: Float[Tensor, "B D"], k: int = 10
) -> Float[Tensor, " G"]:
    """Return how near each item is to the ``k`` nearest of a bank of queries.

    Some items, hubs, are near to every query. Half of this, subtracted from an item's
    cosines, holds them back: CSLS, Conneau et al., 2018, arXiv 1710.04087, with a bank
    of training queries, as in Bogolin et al., 2022, arXiv 2112.12777.
    """
    if not 1 <= k <= len(bank):
        raise ValueError(f"k={k} of {len(bank)} queries in the bank: choose up to all")
    return (bank @ items.T).topk(k, dim=0).values.mean(dim=0)


def rerank(
    found: Found, score: Callable[[int, Int[Tensor, " k"]], Float[Tensor, " k"]]
) -> Found:
    """Order each query's candidates anew by ``score(query, ids)``, the higher first."""
    rows = zip(range(len(found.ids)), found.ids, strict=True)
    scores = torch.stack([score(query, ids) for query, ids in rows])
    order = scores.argsort(dim=1, descending=True)
    return Found(scores.gather(1, order), found.ids.gather(1, order))

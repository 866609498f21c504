"""The index finds what comparing with every row finds; ids stay right; files are whole.

faiss is held against a product of matrices, the matcher against what it must learn.
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmcourse.losses import matching
from mmcourse.tasks.retrieval import (
    KINDS,
    Found,
    Index,
    Matcher,
    popularity,
    rerank,
)

CHANCE = torch.Generator().manual_seed(0)
ROWS = F.normalize(torch.randn(12_000, 16, generator=CHANCE), dim=1)
IDS = torch.arange(12_000) * 3 + 5  # not the places of the rows
CONFIG = {"lists": 16, "code": 8, "probe": 16}  # all lists visited


def made(kind, n=12_000, **config):
    index = Index(16, kind, **(CONFIG | config)).train(ROWS)
    index.add(ROWS[:n], IDS[:n])
    return index


def by_products(queries, k, n=12_000):
    best = (queries @ ROWS[:n].T).topk(k, dim=1)
    return Found(best.values, IDS[best.indices])


@pytest.mark.parametrize("kind", ["exact", "ivf"])
def test_with_all_lists_visited_it_equals_a_product_of_matrices(kind):
    found, due = made(kind).search(ROWS[:40], 7), by_products(ROWS[:40], 7)
    torch.testing.assert_close(found.scores, due.scores, atol=1e-5, rtol=0)
    assert torch.equal(found.ids, due.ids)


def test_codes_find_most_of_it():
    found, due = made("ivfpq").search(ROWS[:200], 10), by_products(ROWS[:200], 10)
    hits = (found.ids[:, :, None] == due.ids[:, None, :]).any(1).float().mean()
    assert 0.7 < hits < 1


def test_more_lists_find_more():
    recalls = []
    noise = torch.randn(300, 16, generator=torch.Generator().manual_seed(1))
    queries = F.normalize(ROWS[:300] + 0.3 * noise, dim=1)
    due = by_products(queries, 1).ids
    for probe in (1, 4, 16):
        found = made("ivf", probe=probe).search(queries, 1).ids
        recalls.append((found == due).float().mean().item())
    assert recalls[0] < recalls[1] < recalls[2] == 1


@pytest.mark.parametrize("kind", KINDS)
def test_adding_and_removing_keep_the_ids_right(kind):
    index = made(kind, 6000)
    index.remove(IDS[:3000:2])
    index.add(ROWS[6000:9000], IDS[6000:9000])
    index.remove(IDS[6000:6500].tolist())
    kept = torch.cat([IDS[1:3000:2], IDS[3000:6000], IDS[6500:9000]])
    assert len(index) == len(kept) and torch.equal(index.ids.sort().values, kept)
    places = torch.searchsorted(IDS, kept)[::11]
    found = index.search(ROWS[places], 1).ids[:, 0]
    wrong = (found != IDS[places]).float().mean()
    assert wrong == 0 if kind != "ivfpq" else wrong < 0.05
    everything = index.search(ROWS[:50], len(index)).ids
    assert torch.isin(everything[everything >= 0], kept).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_removed_row_may_come_back(kind):
    index = made(kind, 100)
    index.remove([5])
    index.add(ROWS[:1], torch.tensor([5]))
    assert index.search(ROWS[:1], 1).ids.item() == 5


@pytest.mark.parametrize("kind", KINDS)
def test_among_picks_a_modality(kind):
    index = made(kind)
    found = index.search(ROWS[:20], 5, among=IDS[1::2])
    assert torch.isin(found.ids, IDS[1::2]).all()
    if kind != "ivfpq":
        best = (ROWS[:20] @ ROWS[1::2].T).topk(5, dim=1).indices
        assert torch.equal(found.ids, IDS[1::2][best])


def test_where_the_lists_hold_too_few_the_id_is_minus_one():
    found = made("ivf", 40, probe=1).search(ROWS[:1], 40)
    assert found.ids[0, 0] >= 0 and found.ids[0, -1] == -1


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_loaded_it_finds_the_same(kind, tmp_path):
    index = made(kind, 2000, probe=3)
    index.save(tmp_path / "index.safetensors")
    again = Index.load(tmp_path / "index.safetensors")
    assert (again.kind, again.dim, again.probe, len(again)) == (kind, 16, 3, 2000)
    one, other = (i.search(ROWS[:30], 5) for i in (index, again))
    assert torch.equal(one.ids, other.ids) and torch.equal(one.scores, other.scores)
    again.add(ROWS[-1:], IDS[-1:])
    with pytest.raises(ValueError, match="twice there"):
        again.add(ROWS[-1:], IDS[-1:])


def test_a_torn_file_is_said_to_be_one(tmp_path):
    path = tmp_path / "index.safetensors"
    made("ivf", 500).save(path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="no whole index: build it anew"):
        Index.load(path)
    with pytest.raises(FileNotFoundError):
        Index.load(tmp_path / "nowhere.safetensors")


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "index.safetensors"
    made("exact", 500).save(path)
    before = path.read_bytes()

    def full(tensors, part):
        part.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr("mmcourse.tasks.retrieval.save_file", full)
    with pytest.raises(OSError, match="no space"):
        made("exact", 600).save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def refused(say, call):
    with pytest.raises(ValueError, match=say):
        call()


def test_bad_input_is_refused_with_the_mend():
    index = made("exact", 100)
    refused("kind='hnsw': choose from", lambda: Index(16, "hnsw"))
    refused("code=5 bytes: choose a divisor", lambda: Index(16, "ivfpq", code=5))
    refused("20 rows to learn 16 lists", lambda: Index(16, "ivf", 16).train(ROWS[:20]))
    refused("train", lambda: Index(16, "ivf", 16).add(ROWS[:5], IDS[:5]))
    refused("needed, at least one", lambda: index.search(ROWS[:0], 1))
    refused("needed, at least one", lambda: index.search(ROWS[:2, :8], 1))
    refused("not 1: use", lambda: index.add(2 * ROWS[200:201], IDS[200:201]))
    refused("not 1: use", lambda: index.search(ROWS[:1] * float("nan"), 1))
    refused("k=101 of 100 rows", lambda: index.search(ROWS[:1], 101))
    refused("k=0 of 100 rows", lambda: index.search(ROWS[:1], 0))
    refused("no row has the ids", lambda: index.remove([1]))
    refused("twice there", lambda: index.add(ROWS[:2], IDS[:2]))
    refused("among themselves", lambda: index.add(ROWS[:2], torch.tensor([1, 1])))
    add = getattr(Index.add, "__wrapped__", Index.add)  # by its own message alone
    refused("whole number", lambda: add(index, ROWS[:2], torch.tensor([1])))
    refused("whole number", lambda: index.add(ROWS[:2], torch.tensor([-1, 1])))
    assert len(index) == 100


# --- the second look ----------------------------------------------------------------


def test_the_matcher_learns_what_belongs_together():
    """Sixteen pictures; a text is its picture with every second number turned."""
    torch.manual_seed(0)
    matcher = Matcher(4, 4, 32, dropout=0.0)
    optimizer = torch.optim.Adam(matcher.parameters(), 1e-2)
    image = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 4)
    batch = {"image": image, "tokens": image * torch.tensor([1.0, -1.0, 1.0, -1.0])}
    for _ in range(300):
        optimizer.zero_grad()
        matcher.loss(batch, None).backward()
        optimizer.step()
    every = batch["image"].repeat_interleave(16, 0), batch["tokens"].repeat(16, 1)
    assert torch.equal(matcher(*every).argmax(-1), torch.eye(16).long().flatten())


def test_hard_scores_choose_hard_negatives():
    torch.manual_seed(0)
    matcher, image, text = Matcher(3, 3, 4, dropout=0.0), torch.eye(3), -torch.eye(3)
    scores = 99.0 * torch.eye(3).roll(1, dims=1)  # picture i is near text i + 1
    wrong = [matcher(image, text[[1, 2, 0]]), matcher(image[[2, 0, 1]], text)]
    due = matching(matcher(image, text), torch.cat(wrong))
    torch.testing.assert_close(
        matcher.loss({"image": image, "tokens": text}, scores), due
    )


def test_popularity_by_hand():
    items = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    bank = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    by_hand = [(1 + 0.8) / 2, (1 + 0.6) / 2, (0.96 + 0.8) / 2]
    assert popularity(items, bank, 2).tolist() == pytest.approx(by_hand)
    assert popularity(items, bank[:1], 1).tolist() == pytest.approx([1.0, 0.0, 0.6])
    refused("k=4 of 3 queries", lambda: popularity(items, bank, 4))


def test_a_hub_held_back_lets_others_be_found():
    """At 0, 40 and 80 degrees: the one in the middle is nearest to 22 and to 58."""
    turns = torch.deg2rad(torch.tensor([0.0, 40.0, 80.0, 22.0, 58.0]))
    items, queries = torch.stack([turns.cos(), turns.sin()], dim=1).split([3, 2])
    scores = queries @ items.T
    assert scores.argmax(1).tolist() == [1, 1]
    held_back = scores - popularity(items, queries, 2) / 2
    assert held_back.argmax(1).tolist() == [0, 2]


def test_reranking_orders_the_candidates_and_loses_none():
    found = Found(torch.zeros(2, 3), torch.tensor([[4, 7, 9], [1, 4, 8]]))
    new = rerank(found, lambda query, ids: (ids - 7.0).abs() * (1 - 2 * query))
    assert new.ids.tolist() == [[4, 9, 7], [8, 4, 1]]
    assert np.allclose(new.scores, [[3, 2, 0], [-1, -3, -6]])

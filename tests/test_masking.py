"""Hidden tokens and patches: shares, what is never hidden, and back in order."""

import pytest
import torch

from mmcourse.losses import IGNORE
from mmcourse.masking import hide_patches, hide_tokens, pick

MASK, VOCAB, SPECIALS = 3, 1000, (0, 1, 2)


def texts(rows=400, length=20):
    make = torch.Generator().manual_seed(0)
    tokens = torch.randint(4, VOCAB, (rows, length), generator=make)
    tokens[:, 0], tokens[:, -1] = 1, 2
    lengths = torch.randint(3, length + 1, (rows, 1), generator=make)
    return tokens, torch.arange(length) < lengths


def test_the_share_and_the_three_fates():
    torch.manual_seed(0)
    tokens, _ = texts(2000)
    mask = torch.ones_like(tokens, dtype=torch.bool)
    seen, labels = hide_tokens(tokens, mask, MASK, VOCAB, SPECIALS)
    chosen = labels != IGNORE
    able = tokens[:, 1:-1].numel()
    assert chosen.sum().item() / able == pytest.approx(0.15, abs=0.01)
    fates = [seen == MASK, (seen != MASK) & (seen != tokens), seen == tokens]
    shares = [(f & chosen).sum().item() / chosen.sum().item() for f in fates]
    assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.02)


def test_labels_are_the_tokens_and_what_is_not_chosen_stays():
    tokens, mask = texts()
    seen, labels = hide_tokens(tokens, mask, MASK, VOCAB, SPECIALS)
    chosen = labels != IGNORE
    assert (labels[chosen] == tokens[chosen]).all()
    assert (seen[~chosen] == tokens[~chosen]).all()


def test_padding_and_specials_are_never_chosen_and_every_text_teaches():
    tokens, mask = texts()
    _, labels = hide_tokens(tokens, mask, MASK, VOCAB, SPECIALS, share=0.05)
    chosen = labels != IGNORE
    assert not (chosen & ~mask).any()
    assert not (chosen & torch.isin(tokens, torch.tensor(SPECIALS))).any()
    assert chosen.any(dim=1).all()
    bare = torch.tensor([[1, 2, 0]])
    assert (hide_tokens(bare, bare > 0, MASK, VOCAB, SPECIALS)[1] == IGNORE).all()


@pytest.mark.parametrize(("share", "kept"), [(0.75, 4), (0.5, 8), (0.9, 1)])
def test_patches_come_back_in_their_order(share, kept):
    torch.manual_seed(0)
    x = torch.randn(3, 16, 5)
    hidden = hide_patches(3, 16, share)
    assert hidden.kept.shape == (3, kept)
    visible = pick(x, hidden.kept)
    full = torch.cat([visible, torch.zeros(3, 16 - kept, 5)], dim=1)
    back = pick(full, hidden.restore)
    expected = x.masked_fill(hidden.hidden[..., None], 0.0)
    torch.testing.assert_close(back, expected)


def test_every_patch_is_hidden_as_often_as_any_other():
    torch.manual_seed(0)
    share = hide_patches(8000, 16).hidden.float().mean(dim=0)
    torch.testing.assert_close(share, torch.full((16,), 0.75), atol=0.03, rtol=0)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_shares_of_no_sense_are_refused(share):
    with pytest.raises(ValueError, match="share="):
        hide_patches(2, 16, share)
    with pytest.raises(ValueError, match="share="):
        hide_tokens(*texts(2), MASK, VOCAB, SPECIALS, share)


def test_hiding_all_of_few_patches_is_refused():
    with pytest.raises(ValueError, match="leaves 0 visible"):
        hide_patches(2, 2, 0.75)

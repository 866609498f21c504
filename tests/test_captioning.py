"""The captioner learns, writes what its loss says, and its truth is counted."""

from collections import Counter
from math import log

import pytest
import torch

from mmcourse import losses, scenes
from mmcourse.encoders import ConvEncoder
from mmcourse.tasks import captioning
from mmcourse.tasks.captioning import Captioner, captions, coverage, hallucinated
from mmcourse.tokenizers import BOS, EOS, WordTokenizer, pad
from mmcourse.training import TrainConfig, batches, fit
from mmcourse.transformer import DecoderConfig

COLOURS = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1)}


def small(vocab=9, **config):
    torch.manual_seed(0)
    made = DecoderConfig(vocab, 8, dim=16, depth=1, heads=2, cross=True, **config)
    return Captioner(ConvEncoder(16, (8, 12)), 12, made)


def some(tokens=((BOS, 4, 5, EOS), (BOS, 6, EOS))):
    ids, mask = pad(tokens)
    return {"image": torch.rand(len(ids), 3, 16, 16), "tokens": ids, "mask": mask}


def painted():
    """Pictures of one colour and what they are called."""
    names = [f"a {name} wall" for name in COLOURS for _ in range(8)]
    colours = [COLOURS[name.split()[1]] for name in names]
    images = torch.tensor(colours).float()[:, :, None, None].expand(-1, -1, 16, 16)
    torch.manual_seed(0)
    return (images * 0.8 + 0.2 * torch.rand(len(names), 3, 16, 16)), names


def test_it_learns_to_name_colours():
    images, names = painted()
    tokenizer = WordTokenizer.train(names)
    tokens, mask = pad([tokenizer.encode(name, ends=True) for name in names])
    model = small(tokenizer.vocab_size)
    rows = {"image": images, "tokens": tokens, "mask": mask}
    config = TrainConfig(epochs=25, lr=1e-2, device="cpu")
    fit(model, captioning.loss, batches(rows, 8), None, config)
    assert captions(model, tokenizer, images, steps=7) == names
    assert captions(model, tokenizer, images, steps=7, beams=3) == names


def test_gives_logits_for_every_token():
    assert small()(some()).shape == (2, 4, 9)


def test_a_word_depends_on_the_words_before_it_and_on_the_picture():
    model, batch = small().eval(), some()
    before = model(batch)
    later = batch | {"tokens": batch["tokens"].clone()}
    later["tokens"][:, 2] = 7
    assert torch.allclose(model(later)[:, :2], before[:, :2], atol=1e-6)
    assert not torch.allclose(model(later)[:, 2], before[:, 2])
    other = batch | {"image": batch["image"].flip(0)}
    assert not torch.allclose(model(other), before)


def test_padding_changes_nothing():
    model, batch = small().eval(), some()
    alone = {key: x[1:] for key, x in batch.items()}
    alone |= {key: alone[key][:, :3] for key in ("tokens", "mask")}
    assert torch.allclose(model(batch)[1, :3], model(alone)[0], atol=1e-6)
    loss = captioning.loss(model, batch)
    noisy = batch | {"tokens": batch["tokens"].masked_fill(~batch["mask"], 8)}
    assert torch.allclose(captioning.loss(model, noisy), loss)


def test_the_loss_is_the_smoothed_cross_entropy():
    model, batch = small().eval(), some()
    p = model(batch).log_softmax(-1)
    by_hand = []
    for row, place in ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1)):
        target = torch.full((9,), 0.1 / 9)
        target[batch["tokens"][row, place + 1]] += 0.9
        by_hand.append(-(target * p[row, place]).sum())
    loss = captioning.loss(model, batch)
    assert torch.allclose(loss, torch.stack(by_hand).mean(), atol=1e-6)
    plain = losses.caption(model(batch), batch["tokens"], batch["mask"])
    assert torch.allclose(captioning.loss(model, batch, 0.0), plain)


@pytest.mark.parametrize("smoothing", [-0.1, 1.0])
def test_a_share_that_is_none_is_refused(smoothing):
    with pytest.raises(ValueError, match="smoothing"):
        captioning.loss(small(), some(), smoothing)


def test_greedy_writing_is_the_argmax_of_teacher_forcing():
    model, image = small().eval(), torch.rand(3, 3, 16, 16)
    written = model.write(image, 6)
    assert (written[:, 0] == BOS).all()
    forced = model(
        {"image": image, "tokens": written, "mask": torch.ones_like(written).bool()}
    )
    best = forced.argmax(-1)
    for row, guess in zip(written, best, strict=True):
        for place in range(1, len(row)):
            if row[place - 1] != EOS:
                assert row[place] == guess[place - 1]


def test_writing_leaves_the_model_as_it_was():
    model = small(dropout=0.5).train()
    tokenizer = WordTokenizer(["<pad>", "<unk>", "<bos>", "<eos>", *"abcde"])
    first, second = (
        captions(model, tokenizer, torch.ones(1, 3, 16, 16), steps=6) for _ in range(2)
    )
    assert first == second and model.training


def test_batches_do_not_change_what_is_written():
    model, images = small(), torch.rand(5, 3, 16, 16)
    tokenizer = WordTokenizer(["<pad>", "<unk>", "<bos>", "<eos>", *"abcde"])
    whole = captions(model, tokenizer, images, steps=6)
    assert whole == captions(model, tokenizer, images, steps=6, batch=2)


def test_a_decoder_that_cannot_see_is_refused():
    with pytest.raises(ValueError, match="cross=True"):
        Captioner(ConvEncoder(16), 64, DecoderConfig(9, 8))


def test_a_picture_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"\(3, 16, 16\)"):
        small()(some() | {"image": torch.rand(2, 3, 24, 24)})


# --- hallucination and coverage ---------------------------------------------------


def test_hallucinated_counts_things_over_all_captions():
    said = [["red circle", "red circle"], ["blue square"], []]
    there = [["red circle"], ["blue square", "red circle"], ["red circle"]]
    assert hallucinated(said, there) == pytest.approx(1 / 3)
    assert hallucinated([[]], [["red circle"]]) == 0.0
    assert hallucinated(there, there) == 0.0


def test_hallucinated_needs_as_many_pictures():
    with pytest.raises(ValueError):
        hallucinated([["a"]], [["a"], ["b"]])


def test_coverage_by_how_often_a_word_was_seen():
    known = Counter(cat=20, dog=5, emu=1)
    told = [["a cat", "a dog"], ["an emu"], ["a yak"]]
    shares = coverage(["cat cat", "emu", "cat"], told, known)
    assert shares == {
        "0": pytest.approx(0 / 5),  # a (three times), an, yak
        "1 to 2": 1.0,
        "3 to 9": 0.0,
        "10 or more": 1.0,
    }


# --- scenes, read back ------------------------------------------------------------


def test_every_caption_reads_back_as_its_scene():
    for part in scenes.splits(120, seed=3).values():
        for scene, _ in part:
            said = Counter(scenes.read(scene.caption))
            assert said == Counter(thing.phrase for thing in scene.things)


def test_the_captioners_spacing_can_be_read():
    said = scenes.read("two small red circles , a large blue square and a small")
    circle = scenes.Phrase("small", "red", "circle")
    assert said == [circle, circle, scenes.Phrase("large", "blue", "square")]


def test_chance_is_the_log_of_the_vocabulary():
    logits, tokens = torch.zeros(1, 3, 7), torch.tensor([[1, 2, 3]])
    assert losses.caption(logits, tokens).item() == pytest.approx(log(7))

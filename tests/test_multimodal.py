"""Whole models: against torch's decoder, by hand, with parts missing, trained."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmcourse import fusion as fu
from mmcourse.encoders import TextEncoder, TextEncoderConfig
from mmcourse.interpret import record_attention
from mmcourse.multimodal import (
    Context,
    LateFusion,
    MultimodalConfig,
    MultimodalTransformer,
    drop_modalities,
    present,
)
from mmcourse.signals import (
    AudioEncoder,
    AudioEncoderConfig,
    VideoEncoderConfig,
)
from mmcourse.vit import ViT, ViTConfig

SMALL = {"depth": 1, "heads": 2}
TEXT = TextEncoderConfig(20, 6, 16, **SMALL)
IMAGE = ViTConfig(16, 8, dim=24, **SMALL)
AUDIO = AudioEncoderConfig(5000, dim=16, **SMALL)
VIDEO = VideoEncoderConfig(4, 16, dim=16, **SMALL)
ALL = {"text": TEXT, "image": IMAGE, "audio": AUDIO, "video": VIDEO}
THREE = {k: ALL[k] for k in ("text", "image", "audio")}
CONFIG = MultimodalConfig(**ALL, dim=16, heads=2, classes=5, queries=2, vocab=11)
THREE_ONLY = MultimodalConfig(**THREE, dim=16, heads=2, classes=5)
KEY = {"text": "tokens", "image": "image", "audio": "audio", "video": "video"}
NAMES = pytest.mark.parametrize("name", KEY)


def make(config=CONFIG, **changes):
    torch.manual_seed(0)
    return MultimodalTransformer(replace(config, **changes)).eval()


def batch_of(rows=4, seed=1, device="cpu", dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)
    batch = {
        "tokens": torch.randint(0, 20, (rows, 6), generator=g),
        "mask": torch.arange(6) < torch.randint(2, 7, (rows, 1), generator=g),
        "image": torch.rand(rows, 3, 16, 16, generator=g),
        "audio": 0.1 * torch.randn(rows, 5000, generator=g),
        "video": torch.rand(rows, 4, 3, 16, 16, generator=g),
        "label": torch.arange(rows) % 5,
    }
    batch = {k: v.to(device) for k, v in batch.items()}
    return {k: v.to(dtype) if v.is_floating_point() else v for k, v in batch.items()}


def without(batch, name, rows, fill=None):
    """The batch with a modality marked as missing in some rows."""
    here = torch.ones(len(batch["label"]), 4, dtype=torch.bool)
    here[rows, [*KEY].index(name)] = False
    x = batch[KEY[name]].clone()
    if fill is not None:
        x[rows] = fill
    return batch | {KEY[name]: x, "present": here.to(x.device)}


def encoders(names=("text", "image", "audio"), dim=16):
    torch.manual_seed(0)
    kinds = {"text": TextEncoder, "image": ViT, "audio": AudioEncoder}
    return {n: kinds[n](replace(ALL[n], dim=dim)).eval() for n in names}


def late(kind, names=("text", "image", "audio"), classes=5):
    made = encoders(names)
    if kind in fu.DECISION_LEVEL:
        heads = {n: nn.Linear(16, classes) for n in names}
        return LateFusion(made, kind(names, classes), heads).eval()
    return LateFusion(made, kind(names, 16), nn.Linear(16, classes)).eval()


LATE = pytest.mark.parametrize("kind", [fu.Gated, fu.Average, fu.CrossModal])

# --- against others ---------------------------------------------------------------


def torchs_decoder(model, dim=16, heads=2, depth=2):
    """nn.TransformerDecoder with the weights of the model's own decoder."""
    layer = nn.TransformerDecoderLayer(
        dim, heads, 4 * dim, 0.0, "gelu", batch_first=True, norm_first=True
    )
    theirs = nn.TransformerDecoder(layer, depth, nn.LayerNorm(dim)).eval()
    for a, b in zip(model.decoder.blocks, theirs.layers, strict=True):
        for mine, other in ((a.attention, b.self_attn), (a.cross, b.multihead_attn)):
            other.in_proj_weight.data = mine.qkv.weight.data
            other.in_proj_bias.data = mine.qkv.bias.data
            other.out_proj.load_state_dict(mine.out.state_dict())
        pairs = [(a.mlp.up, b.linear1), (a.mlp.down, b.linear2)]
        norms = zip(a.norms.values(), (b.norm1, b.norm2, b.norm3), strict=True)
        for mine, other in (*pairs, *norms):
            other.load_state_dict(mine.state_dict())
    theirs.norm.load_state_dict(model.decoder.norm.state_dict())
    return theirs


def shaken(model):
    with torch.no_grad():
        for p in model.parameters():
            p += 0.1 * torch.randn_like(p)
    return model


@pytest.mark.parametrize("vocab", [0, 11])
def test_the_decoder_reads_as_torchs_does(vocab):
    model = shaken(make(vocab=vocab))
    theirs = torchs_decoder(model)
    context = model.fuse(model.encode(without(batch_of(), "image", [1, 2])))
    padding = ~context.mask
    x = torch.randn(4, 3, 16)
    expected = theirs(x, context.tokens, memory_key_padding_mask=padding)
    out = model.read(x, context)
    torch.testing.assert_close(out, expected, atol=1e-4, rtol=1e-4)


def test_it_writes_as_torchs_decoder_does():
    model = shaken(make())
    context = model.fuse(model.encode(batch_of()))
    tokens = torch.randint(0, 11, (4, 5))
    x = torchs_decoder(model)(
        model.decoder.embed(tokens),
        context.tokens,
        tgt_mask=nn.Transformer.generate_square_subsequent_mask(5),
        memory_key_padding_mask=~context.mask,
        tgt_is_causal=True,
    )
    theirs = x @ model.decoder.embed.token.weight.T
    torch.testing.assert_close(
        model.write(tokens, context), theirs, atol=1e-4, rtol=1e-4
    )


@LATE
def test_late_fusion_is_its_parts_one_after_the_other(kind):
    model, batch = late(kind), batch_of()
    given = {"text": (batch["tokens"], batch["mask"])}
    given |= {n: (batch[n],) for n in ("image", "audio")}
    parts = {n: model.encoders[n](*x) for n, x in given.items()}
    if kind.tokens:
        features, real = ({n: p[i] for n, p in parts.items()} for i in (0, 1))
        expected = model.head(model.fusion(features, real))
    else:
        pooled = {n: model.encoders[n].pool(*p) for n, p in parts.items()}
        if kind in fu.DECISION_LEVEL:
            pooled = {n: model.heads[n](x) for n, x in pooled.items()}
        expected = model.head(model.fusion(pooled))
    torch.testing.assert_close(model(batch), expected, atol=1e-5, rtol=1e-5)


# --- by hand ----------------------------------------------------------------------


def test_what_the_decoder_reads_is_laid_out_in_order():
    model, batch = make(), batch_of()
    context = model.fuse(model.encode(batch))
    assert isinstance(context, Context)
    lengths = {"text": 6, "image": 1 + 4, "audio": 2 * 5, "video": 2 * 4}
    assert {k: s.stop - s.start for k, s in context.spans.items()} == lengths
    assert [*context.spans] == [*model.modalities] == [*KEY]
    x, _ = model.encoders["image"](batch["image"])
    x = model.project["image"](x) + model.position["image"] + model.modality["image"]
    torch.testing.assert_close(context.tokens[:, context.spans["image"]], x)
    assert torch.equal(context.mask[:, :6], batch["mask"])
    one = {"image": model.encode_image(batch["image"])}
    torch.testing.assert_close(model.fuse(one).tokens, x)
    assert model.encode_text(batch["tokens"], batch["mask"])[0].shape == (4, 6, 16)
    assert model.encode_audio(batch["audio"])[0].shape == (4, 10, 16)
    assert model.encode_video(batch["video"])[0].shape == (4, 8, 16)


def test_who_is_there_by_hand():
    batch = {"tokens": torch.ones(3, 2, dtype=torch.long), "image": torch.ones(3, 1)}
    names = ("text", "image", "audio")
    assert present(batch, names).tolist() == [[True, True, False]] * 3
    batch["mask"] = torch.tensor([[True, False], [False, False], [True, True]])
    table = torch.tensor([[1, 0, 1], [1, 1, 1], [1, 1, 0]]).bool()
    here = present(batch | {"present": table}, names)
    assert here.int().tolist() == [[1, 0, 0], [0, 1, 0], [1, 1, 0]]


def test_attention_to_each_modality_is_recorded():
    model = make()
    batch = without(batch_of(), "audio", [2])
    spans = model.fuse(model.encode(batch)).spans
    with record_attention(model) as weights:
        out = model(batch)
    assert torch.equal(out, model(batch))
    cross = [w for n, w in weights.items() if n.startswith("decoder") and "cross" in n]
    assert len(cross) == 2
    for w in cross:
        assert w.shape == (4, 2, 2, 29)  # rows, heads, queries, tokens read
        shares = {n: w[..., s].sum(-1) for n, s in spans.items()}
        torch.testing.assert_close(sum(shares.values()), torch.ones(4, 2, 2))
        assert (shares["audio"][2] == 0).all() and (shares["audio"][0] > 0).all()


# --- missing ----------------------------------------------------------------------


def fills(name):
    return [0, 7] if name == "text" else [0.0, 1.0, -3e4, float("nan")]


@NAMES
def test_what_a_missing_modality_holds_changes_nothing(name, place):
    model = make().to(place.device, place.dtype)
    batch = batch_of(device=place.device, dtype=place.dtype)
    outs, texts, prompt = [], [], batch["tokens"][:, :1] % 11
    for fill in [None, *fills(name)]:
        changed = without(batch, name, [0, 2], fill)
        outs.append(model(changed))
        texts.append(model.generate(changed, prompt, 4))
    assert all(torch.equal(outs[0], out) for out in outs[1:])
    assert all(torch.equal(texts[0], text) for text in texts[1:])
    assert not torch.allclose(outs[0][0], model(batch)[0], **place.close)
    torch.testing.assert_close(outs[0][1], model(batch)[1], **place.close)


@NAMES
def test_nothing_leaks_into_the_gradients_either(name):
    grads = []
    for fill in [None, *fills(name)]:
        model = make()
        model(without(batch_of(), name, [0, 2], fill)).square().sum().backward()
        grads.append([p.grad for p in model.parameters() if p.grad is not None])
    for other in grads[1:]:
        assert all(torch.equal(a, b) for a, b in zip(grads[0], other, strict=True))


@NAMES
def test_missing_for_all_is_absent(name):
    model, batch = make(), batch_of()
    marked = without(batch, name, range(4))
    absent = {k: v for k, v in batch.items() if k != KEY[name]}
    torch.testing.assert_close(model(marked), model(absent), atol=1e-6, rtol=1e-5)
    assert not torch.allclose(model(absent), model(batch), atol=1e-5)


def test_a_text_without_a_real_token_is_missing():
    model, batch = make(), batch_of()
    empty = batch | {"mask": batch["mask"].clone()}
    empty["mask"][1] = False
    torch.testing.assert_close(model(empty), model(without(batch, "text", [1])))


@LATE
@pytest.mark.parametrize("name", THREE)
def test_late_fusion_leaves_out_what_is_missing(kind, name):
    model, batch = late(kind), batch_of()
    outs = []
    for fill in [None, *fills(name)]:
        changed = without(batch, name, [0, 2], fill)
        outs.append(model(changed | {"present": changed["present"][:, :3]}))
    assert all(torch.equal(outs[0], out) for out in outs[1:])
    assert not torch.allclose(outs[0][0], model(batch)[0], atol=1e-5)
    everywhere = without(batch, name, range(4))
    marked = model(everywhere | {"present": everywhere["present"][:, :3]})
    absent = model({k: v for k, v in batch.items() if k != KEY[name]})
    torch.testing.assert_close(marked, absent, atol=1e-6, rtol=1e-5)


def test_modality_dropout_drops_by_the_probability_but_never_all():
    torch.manual_seed(0)
    here = torch.tensor([[True, True, True], [True, False, True], [False, True, False]])
    here = here.repeat(4000, 1)
    kept = drop_modalities(here, 0.5)
    assert kept.any(dim=1).all() and not (kept & ~here).any()
    of_three, of_two, of_one = (kept[i::3].float().sum(1).mean() for i in range(3))
    # 3 x 1/2 and 2 x 1/2, plus one for the rows that would have lost all
    assert abs(of_three - (1.5 + 1 / 8)) < 0.05
    assert abs(of_two - (1.0 + 1 / 4)) < 0.05
    assert of_one == 1
    assert torch.equal(drop_modalities(here, 0.0), here)


def test_modality_dropout_is_for_training_alone():
    model, batch = make(modality_dropout=0.9), batch_of()
    out = model(batch)
    assert torch.equal(out, make()(batch))
    torch.manual_seed(1)
    model.train()
    masks = model.fuse(model.encode(batch)).mask
    full = model.eval().fuse(model.encode(batch)).mask
    assert masks.any(dim=1).all() and not (masks & ~full).any()
    assert masks.sum() < full.sum()
    prompt = batch["tokens"][:, :1] % 11
    written = model.train().generate(batch, prompt, 3)
    assert model.training and torch.equal(written, make().generate(batch, prompt, 3))


# --- what changes nothing ---------------------------------------------------------


def test_rows_move_with_their_answers(place):
    model = make().to(place.device, place.dtype)
    batch = batch_of(device=place.device, dtype=place.dtype)
    batch = without(batch, "audio", [1])
    order = torch.tensor([2, 0, 3, 1], device=place.device)
    moved = {k: v[order] for k, v in batch.items()}
    torch.testing.assert_close(model(moved), model(batch)[order], **place.close)


@LATE
def test_rows_of_a_late_fusion_move_too(kind):
    model, batch, order = late(kind), batch_of(), torch.tensor([2, 0, 3, 1])
    moved = {k: v[order] for k, v in batch.items()}
    torch.testing.assert_close(model(moved), model(batch)[order], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("build", [make, lambda: late(fu.Concat)])
def test_padding_of_a_text_changes_nothing(build):
    model, batch = build(), batch_of()
    short = batch | {"tokens": batch["tokens"][:, :4], "mask": batch["mask"][:, :4]}
    padded = batch | {"mask": batch["mask"] & (torch.arange(6) < 4)}
    torch.testing.assert_close(model(padded), model(short), atol=1e-5, rtol=1e-4)
    other = padded | {"tokens": torch.where(padded["mask"], padded["tokens"], 9)}
    torch.testing.assert_close(model(other), model(padded), atol=1e-5, rtol=1e-4)


def test_what_is_written_later_changes_nothing_earlier():
    model, tokens = make(), torch.randint(0, 11, (4, 5))
    context = model.fuse(model.encode(batch_of()))
    other = tokens.clone()
    other[:, 3:] = 0
    a, b = model.write(tokens, context), model.write(other, context)
    torch.testing.assert_close(a[:, :3], b[:, :3])


def test_the_cache_writes_what_a_loop_without_it_does():
    model = shaken(make())
    batch = without(batch_of(), "image", [0])
    prompt = torch.randint(0, 11, (4, 2))
    tokens = prompt
    context = model.fuse(model.encode(batch))
    for _ in range(6):
        new = model.write(tokens, context)[:, -1].argmax(-1, keepdim=True)
        tokens = torch.cat([tokens, new], dim=1)
    assert torch.equal(model.generate(batch, prompt, 6), tokens)


def test_beams_keep_each_row_to_its_own_context():
    model = shaken(make())
    batch, prompt = without(batch_of(), "image", [0]), torch.randint(0, 11, (4, 2))
    together = model.generate(batch, prompt, 5, beams=3)
    for i in range(4):
        row = {k: v[i : i + 1] for k, v in batch.items()}
        alone = model.generate(row, prompt[i : i + 1], 5, beams=3)
        assert torch.equal(alone, together[i : i + 1])


def test_it_compiles_in_one_graph():
    """In a process of its own, where beartype isn't compiled as well."""
    script = """
import torch
from tests.test_multimodal import batch_of, make, without
model, batch = make(), without(batch_of(), "image", [1])
compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
assert torch.allclose(compiled(batch), model(batch), atol=1e-5)
print("the same")
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "the same", done.stderr[-2000:]


# --- trained ----------------------------------------------------------------------


def trained(model, loss, steps=80, lr=1e-2):
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr)
    for _ in range(steps):
        optimizer.zero_grad()
        value = loss(model)
        value.backward()
        optimizer.step()
    model.eval()
    return value.item()


def test_one_batch_of_three_modalities_is_learnt(place):
    if place.dtype == torch.bfloat16:
        pytest.skip("weights in bfloat16 are too coarse to train")
    model = make(THREE_ONLY)
    model, batch = model.to(place.device), batch_of(8, device=place.device)
    batch.pop("video")

    def loss(model):
        return F.cross_entropy(model(batch), batch["label"])

    assert trained(model, loss) < 0.05
    assert all(p.grad is not None for p in model.parameters())
    assert (model(batch).argmax(-1) == batch["label"]).all()


@LATE
def test_one_batch_is_learnt_by_late_fusion(kind):
    model, batch = late(kind), batch_of(8)

    def loss(model):
        return F.cross_entropy(model(batch), batch["label"])

    assert trained(model, loss) < 0.3


def test_texts_about_pictures_are_learnt_and_written_again():
    """The prompt is the same for all: what is written comes out of the pictures."""
    config = MultimodalConfig(image=IMAGE, audio=AUDIO, dim=16, heads=2, vocab=11)
    model, batch = make(config), batch_of(6)
    start, end = torch.zeros(6, 1, dtype=torch.long), torch.ones(6, 1, dtype=torch.long)
    target = torch.cat([start, torch.randint(2, 11, (6, 4)), end], dim=1)
    batch["target"] = target[:, :-1]

    def loss(model):
        return F.cross_entropy(model(batch).flatten(0, 1), target[:, 1:].flatten())

    assert trained(model, loss, steps=150) < 0.1
    assert torch.equal(model.generate(batch, start, 5, stop=1), target)


# --- refused ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (dict.fromkeys(ALL), "no modality: give a config for some of"),
        ({"classes": 0, "vocab": 0}, "classes=0, vocab=0"),
        ({"modality_dropout": 1.0}, "modality_dropout=1.0: choose from 0 to below 1"),
        ({"queries": 0}, "queries=0"),
        ({"heads": 3}, "dim=16 is not divisible by heads=3"),
    ],
)
def test_what_no_model_can_be(changes, says):
    with pytest.raises(ValueError, match=says):
        make(**changes)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"image": torch.rand(3, 3, 16, 16)}, "'image': 3, .*as many of each"),
        ({"image": torch.zeros(4, 3, 16, 16).byte()}, "image is torch.uint8: floats"),
        ({"image": torch.rand(4, 3, 16, 16) / 0}, "image of row 0 holds NaN"),
        ({"image": torch.rand(4, 3, 16, 24)}, "7 tokens of image, but positions for 5"),
        ({"present": torch.ones(4, 3).bool()}, r"\(4, 4\) are needed, a column for"),
        ({"present": torch.ones(4, 4)}, r"present is torch.float32 \(4, 4\): booleans"),
        ({"present": torch.eye(4).bool().roll(1, 1) & (torch.arange(4) < 3)}, "row 2"),
    ],
)
def test_a_bad_batch_is_refused(changes, says):
    with pytest.raises(ValueError, match=says):
        make()(batch_of() | changes)


def test_what_a_model_lacks_is_said():
    model, batch = make(THREE_ONLY), batch_of()
    with pytest.raises(ValueError, match="no encoder of video: this model has"):
        model.encode_video(batch["video"])
    with pytest.raises(ValueError, match="vocab=0: this model classifies"):
        model.generate(batch, batch["tokens"][:, :1], 2)
    writes = make(replace(THREE_ONLY, classes=0, vocab=11))
    with pytest.raises(ValueError, match="classes=0: this model writes"):
        writes.classify(writes.fuse(writes.encode(batch)))
    with pytest.raises(ValueError, match="of at least one of"):
        model({"label": batch["label"]})
    with pytest.raises(ValueError, match=r"modalities \['smell'\]: choose from"):
        LateFusion({"smell": nn.Identity()}, fu.Concat(("a", "b"), 4), nn.Identity())
    with pytest.raises(ValueError, match=r"heads for \['text'\]: one each for"):
        made, heads = encoders(), {"text": nn.Identity()}
        LateFusion(made, fu.Average((*made,), 4), heads)

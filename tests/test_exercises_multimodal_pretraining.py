"""Right answers of several styles pass; wrong ones are refused, many by name."""

import math

import torch
import torch.nn.functional as F
import transformers
from answers import assert_right, assert_told, each_answer, each_mistake

from mmcourse import losses
from mmcourse.exercises.multimodal_pretraining import EXERCISES, QUESTIONS

# --- right answers ----------------------------------------------------------------


def words_as_in_the_solution(tokens, chosen, dice, other):
    seen = tokens.masked_fill(chosen & (dice < 0.8), 99)
    seen = torch.where(chosen & (dice >= 0.8) & (dice < 0.9), other, seen)
    return seen, tokens.masked_fill(~chosen, -100)


def words_by_loop(tokens, chosen, dice, other):
    seen, labels = tokens.clone(), torch.full_like(tokens, -100)
    for i in range(tokens.shape[0]):
        for j in range(tokens.shape[1]):
            if chosen[i, j]:
                labels[i, j] = tokens[i, j]
                if dice[i, j] < 0.8:
                    seen[i, j] = 99
                elif dice[i, j] < 0.9:
                    seen[i, j] = other[i, j]
    return seen, labels


def words_by_where(tokens, chosen, dice, other):
    fate = torch.where(dice < 0.8, 99, torch.where(dice < 0.9, other, tokens))
    return torch.where(chosen, fate, tokens), torch.where(chosen, tokens, -100)


def error_as_in_the_solution(predicted, patches, hidden):
    return (predicted - patches).square().mean(dim=-1)[hidden].mean()


def error_by_picking_first(predicted, patches, hidden):
    return F.mse_loss(predicted[hidden], patches[hidden])


def error_by_weights(predicted, patches, hidden):
    error = ((predicted - patches) ** 2).mean(-1)
    return (error * hidden).sum() / hidden.sum()


def error_by_package(predicted, patches, hidden):
    return losses.masked_image(predicted, patches, hidden, normalise=False)


def texts_as_in_the_solution(scores, ids):
    partners = ids[:, None] == ids[None, :]
    return scores.masked_fill(partners, -torch.inf).argmax(dim=1)


def texts_by_loop(scores, ids):
    places = []
    for i, row in enumerate(scores.tolist()):
        wrong = [j for j in range(len(row)) if ids[j] != ids[i]]
        places.append(max(wrong, key=lambda j, row=row: row[j]))
    return torch.tensor(places)


def texts_by_subtracting(scores, ids):
    return (scores - 1e9 * ids.eq(ids[:, None])).max(dim=1).indices


def write_as_in_the_solution(logits, tokens, mask):
    real = mask[:, 1:]
    return F.cross_entropy(logits[:, :-1][real], tokens[:, 1:][real])


def write_by_log_softmax(logits, tokens, mask):
    log_p = logits[:, :-1].log_softmax(-1)
    named = log_p.gather(-1, tokens[:, 1:, None])[..., 0]
    return -(named * mask[:, 1:]).sum() / mask[:, 1:].sum()


def write_by_ignoring(logits, tokens, mask):
    labels = tokens.masked_fill(~mask, -100)[:, 1:]
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), labels.flatten())


def write_by_package(logits, tokens, mask):
    return losses.caption(logits, tokens, mask)


RIGHT = {
    "hide_words": [words_as_in_the_solution, words_by_loop, words_by_where],
    "painted_error": [
        error_as_in_the_solution,
        error_by_picking_first,
        error_by_weights,
        error_by_package,
    ],
    "hardest_texts": [texts_as_in_the_solution, texts_by_loop, texts_by_subtracting],
    "write_on": [
        write_as_in_the_solution,
        write_by_log_softmax,
        write_by_ignoring,
        write_by_package,
    ],
}


@each_answer(RIGHT)
def test_right_answers_pass(id, answer):
    assert_right(id, answer)


def test_each_exercise_has_answers_and_mistakes():
    assert [e.id for e in EXERCISES] == list(RIGHT) == list(MISTAKES)
    assert len(QUESTIONS) == 3


# --- wrong answers, written as a learner would ------------------------------------


def fates(low=0.8, high=0.9):
    """Return the three fates of a token as a function of its dice."""
    return lambda t, d, o: torch.where(d < low, 99, torch.where(d < high, o, t))


def hide(fate, asked):
    return lambda t, c, d, o: (fate(t, c, d, o), torch.where(asked(c, d), t, -100))


def usual(t, c, d, o):
    return torch.where(c, fates()(t, d, o), t)


WORDS = {
    "every chosen token becomes the mask": hide(
        lambda t, c, d, o: torch.where(c, 99, t), lambda c, d: c
    ),
    "tokens are swapped that were not chosen": hide(
        lambda t, c, d, o: fates()(t, d, o), lambda c, d: c
    ),
    "every token is asked for": lambda t, c, d, o: (usual(t, c, d, o), t),
    "the labels hold what is seen": lambda t, c, d, o: (
        usual(t, c, d, o),
        torch.where(c, usual(t, c, d, o), -100),
    ),
    "chosen tokens that stay": hide(usual, lambda c, d: c & ~(d >= 0.9)),
    "only masked tokens have a label": hide(usual, lambda c, d: c & (d < 0.8)),
    "`chosen` is turned round": lambda t, c, d, o: words_by_loop(t, ~c, d, o),
    "changed places": hide(
        lambda t, c, d, o: torch.where(
            c, torch.where(d < 0.8, 99, torch.where(d < 0.9, t, o)), t
        ),
        lambda c, d: c,
    ),
    "below 0.9 all become the mask": hide(
        lambda t, c, d, o: torch.where(c, fates(0.9)(t, d, o), t), lambda c, d: c
    ),
}

ERRORS = {
    "visible patches count as well": lambda p, x, h: F.mse_loss(p, x),
    "`hidden` is turned round": lambda p, x, h: F.mse_loss(p[~h], x[~h]),
    "you divide by all patches": lambda p, x, h: (
        ((p - x) ** 2).mean(-1)[h].sum() / h.numel()
    ),
    "you average each picture first": lambda p, x, h: torch.stack(
        [F.mse_loss(a[k], b[k]) for a, b, k in zip(p, x, h, strict=True) if k.any()]
    ).mean(),
    "you add up over a patch's numbers": lambda p, x, h: (
        ((p[h] - x[h]) ** 2).sum(-1).mean()
    ),
    "these are absolute errors": lambda p, x, h: F.l1_loss(p[h], x[h]),
    "you add up over the patches": lambda p, x, h: ((p[h] - x[h]) ** 2).mean(-1).sum(),
}


def barred(scores, ids, value, equal=True):
    partners = ids.eq(ids[:, None])
    return torch.where(partners if equal else ~partners, value, scores)


TEXTS = {
    "only the pair itself": lambda s, ids: (s - 1e9 * torch.eye(len(s))).max(1).indices,
    "nothing is left out": lambda s, ids: s.max(dim=1).indices,
    "the easiest negatives": lambda s, ids: barred(s, ids, math.inf).min(1).indices,
    "you search the columns": lambda s, ids: barred(s, ids, -math.inf).max(0).indices,
    "you put 0 in the place": lambda s, ids: barred(s, ids, 0.0).max(1).indices,
    "these are the scores": lambda s, ids: barred(s, ids, -math.inf).max(1).values,
    "turned round": lambda s, ids: barred(s, ids, -math.inf, False).max(1).indices,
}


def entropy(logits, tokens):
    return -logits.log_softmax(-1).gather(-1, tokens[..., None])[..., 0]


WRITES = {
    "nothing is shifted": lambda z, t, m: entropy(z, t)[m].mean(),
    "shifted the wrong way": lambda z, t, m: entropy(z[:, 1:], t[:, :-1])[
        m[:, 1:]
    ].mean(),
    "padding counts": lambda z, t, m: entropy(z[:, :-1], t[:, 1:]).mean(),
    "you average each text first": lambda z, t, m: torch.stack(
        [entropy(a[:-1], b[1:])[k[1:]].mean() for a, b, k in zip(z, t, m, strict=True)]
    ).mean(),
    "the mask is not shifted": lambda z, t, m: entropy(z[:, :-1], t[:, 1:])[
        m[:, :-1]
    ].mean(),
    "you add up": lambda z, t, m: entropy(z[:, :-1], t[:, 1:])[m[:, 1:]].sum(),
    "the sign is wrong": lambda z, t, m: -entropy(z[:, :-1], t[:, 1:])[m[:, 1:]].mean(),
}

MISTAKES = {
    "hide_words": WORDS,
    "painted_error": ERRORS,
    "hardest_texts": TEXTS,
    "write_on": WRITES,
}


@each_mistake(MISTAKES)
def test_mistakes_of_another_style_are_recognised(id, told, answer):
    assert_told(id, told, answer)


# --- questions --------------------------------------------------------------------


def test_the_right_answers():
    right = {q.id: [*q.answers][q.right] for q in QUESTIONS}
    assert right["word-behind-mask"] == "one time in ten"
    assert right["beit-text"] == "CLIPModel"
    assert right["forgetting"] == "worse"


def test_the_classes_have_what_the_replies_say():
    for name in ("CLIPModel", "SiglipModel"):
        kind = getattr(transformers, name)
        assert hasattr(kind, "get_text_features")
        assert hasattr(kind, "get_image_features")
    for name in ("BeitModel", "ViTModel"):
        assert not hasattr(getattr(transformers, name), "get_text_features")

"""Right answers of several styles pass; wrong ones that nobody listed are refused."""

import numpy as np
import pytest
import torch

from mmcourse.exercises import check
from mmcourse.exercises.modalities import EXERCISES


def merge_by_index(tokens, pair):
    out, skip = [], False
    for i, token in enumerate(tokens):
        if skip:
            skip = False
        elif i + 1 < len(tokens) and (token, tokens[i + 1]) == pair:
            out.append(token + tokens[i + 1])
            skip = True
        else:
            out.append(token)
    return out


def merge_by_popping(tokens, pair):
    rest, out = list(tokens), []
    while rest:
        first = rest.pop(0)
        joins = rest and (first, rest[0]) == pair
        out.append(first + rest.pop(0) if joins else first)
    return out


def learn_with_dict(words, merges):
    spelled, learned = {word: list(word) for word in words}, []
    while len(learned) < merges:
        counts = {}
        for word, tokens in spelled.items():
            for i in range(len(tokens) - 1):
                pair = tokens[i], tokens[i + 1]
                counts[pair] = counts.get(pair, 0) + words[word]
        if not counts:
            return learned
        learned.append(sorted(counts.items(), key=lambda item: (-item[1], item[0]))[0])
        learned[-1] = learned[-1][0]
        spelled = {w: merge_by_index(t, learned[-1]) for w, t in spelled.items()}
    return learned


def mask_by_loop(lengths, length):
    mask = torch.zeros(len(lengths), length, dtype=torch.bool)
    for row, n in enumerate(lengths):
        mask[row, :n] = True
    return mask


def mask_in_numpy(lengths, length):
    return np.arange(length)[None] < lengths.numpy()[:, None]


def patches_by_loop(image, patch):
    rows, columns = (range(0, side, patch) for side in image.shape)
    return torch.stack(
        [image[r : r + patch, c : c + patch].flatten() for r in rows for c in columns]
    )


def patches_by_unfold(image, patch):
    cut = torch.nn.functional.unfold(image[None, None], patch, stride=patch)
    return cut[0].T


def patches_by_two_unfolds(image, patch):
    return image.unfold(0, patch, patch).unfold(1, patch, patch).reshape(-1, patch**2)


def frames_by_loop(audio, size, hop):
    starts = range(0, len(audio) - size + 1, hop)
    return torch.stack([audio[s : s + size] for s in starts])


def frames_by_index(audio, size, hop):
    starts = torch.arange(0, len(audio) - size + 1, hop)
    return audio[starts[:, None] + torch.arange(size)]


@pytest.mark.parametrize(
    "id, answer",
    [
        ("merge_pair", merge_by_index),
        ("merge_pair", merge_by_popping),
        ("learn_merges", learn_with_dict),
        ("padding_mask", mask_by_loop),
        ("padding_mask", mask_in_numpy),
        ("patchify_by_hand", patches_by_loop),
        ("patchify_by_hand", patches_by_unfold),
        ("patchify_by_hand", patches_by_two_unfolds),
        ("frame_signal", frames_by_loop),
        ("frame_signal", frames_by_index),
    ],
)
def test_right_answers_of_other_styles_pass(id, answer):
    assert check(id, answer).status == "correct", check(id, answer)


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda e: e.id)
def test_a_wrong_answer_that_nobody_listed_is_refused(exercise):
    wrong = check(exercise.id, lambda *arguments: exercise.reference(*arguments)[:0])
    assert wrong.status == "incorrect"

"""Right answers of several styles pass; wrong ones that nobody listed are refused."""

from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmcourse.exercises import check
from mmcourse.exercises.vision_transformer import EXERCISES
from mmcourse.vit import PatchEmbedding


def embed_by_convolution(image, weight, bias):
    return F.conv2d(image[None], weight, bias, stride=weight.shape[-1])[0].flatten(1).T


def embed_by_unfold(image, weight, bias):
    side = weight.shape[-1]
    patches = F.unfold(image[None], side, stride=side)[0].T
    return F.linear(patches, weight.flatten(1), bias)


def embed_by_package(image, weight, bias):
    layer = PatchEmbedding(weight.shape[-1], len(image), len(weight)).to(image.dtype)
    layer.convolution.weight.data, layer.convolution.bias.data = weight, bias
    return layer.as_linear(image[None])[0].detach()


def embed_by_loops(image, weight, bias):
    side, tokens = weight.shape[-1], []
    for r in range(image.shape[1] // side):
        for c in range(image.shape[2] // side):
            patch = image[:, r * side : (r + 1) * side, c * side : (c + 1) * side]
            tokens.append((weight * patch).sum(dim=(1, 2, 3)) + bias)
    return torch.stack(tokens)


def prepend_by_filling(patches, class_token, positions):
    batch, n, dim = patches.shape
    z = patches.new_empty(batch, n + 1, dim)
    z[:, 0], z[:, 1:] = class_token, patches
    return z + positions[None]


def prepend_with_positions_first(patches, class_token, positions):
    first = (class_token + positions[0]).repeat(len(patches), 1, 1)
    return torch.cat([first, patches + positions[1:]], 1)


def prepend_in_numpy(patches, class_token, positions):
    first = np.broadcast_to(class_token.numpy(), (len(patches), 1, len(class_token)))
    return np.concatenate([first, patches.numpy()], 1) + positions.numpy()


def pool_by_sum(tokens, prefix):
    return tokens[:, prefix:].sum(1) / (tokens.shape[1] - prefix)


def pool_by_loop(tokens, prefix):
    return torch.stack([torch.stack([*row[prefix:]]).mean(0) for row in tokens])


def nearest_by_counting(train, labels, queries, k):
    found = []
    for query in queries:
        order = ((train - query) ** 2).sum(1).argsort()[:k]
        counts = Counter(labels[order].tolist())
        found.append(min(counts, key=lambda label: (-counts[label], label)))
    return torch.tensor(found)


def nearest_by_mode(train, labels, queries, k):
    places = torch.cdist(queries, train).argsort(dim=1)[:, :k]
    return labels[places].mode(dim=1).values


def nearest_in_numpy(train, labels, queries, k):
    away = np.linalg.norm(queries.numpy()[:, None] - train.numpy()[None], axis=-1)
    votes = labels.numpy()[away.argsort(1)[:, :k]]
    return np.array([np.bincount(row).argmax() for row in votes])


def resize_by_weights(positions, old, new):
    def blend(was, wanted):
        matrix = torch.zeros(wanted, was, dtype=positions.dtype)
        for i in range(wanted):
            at = min(max((i + 0.5) * was / wanted - 0.5, 0), was - 1)
            low, share = int(at), at - int(at)
            matrix[i, low] += 1 - share
            matrix[i, min(low + 1, was - 1)] += share
        return matrix

    both = torch.kron(blend(old[0], new[0]), blend(old[1], new[1]))
    return both @ positions


def resize_by_permute(positions, old, new):
    grid = positions.reshape(*old, -1).permute(2, 0, 1)[None]
    grid = F.interpolate(grid, size=new, mode="bilinear")[0]
    return grid.permute(1, 2, 0).reshape(new[0] * new[1], -1)


@pytest.mark.parametrize(
    "id, answer",
    [
        ("embed_patches", embed_by_convolution),
        ("embed_patches", embed_by_unfold),
        ("embed_patches", embed_by_package),
        ("embed_patches", embed_by_loops),
        ("prepend_class", prepend_by_filling),
        ("prepend_class", prepend_with_positions_first),
        ("prepend_class", prepend_in_numpy),
        ("pool_patches", pool_by_sum),
        ("pool_patches", pool_by_loop),
        ("nearest_labels", nearest_by_counting),
        ("nearest_labels", nearest_by_mode),
        ("nearest_labels", nearest_in_numpy),
        ("resize_grid", resize_by_weights),
        ("resize_grid", resize_by_permute),
    ],
)
def test_right_answers_of_other_styles_pass(id, answer):
    for _ in range(3):  # inputs are random
        assert check(id, answer).status == "correct", check(id, answer)


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda e: e.id)
def test_a_wrong_answer_that_nobody_listed_is_refused(exercise):
    for wrong in (
        lambda *arguments: exercise.reference(*arguments)[:0],
        lambda *arguments: exercise.reference(*arguments) + 1,
        lambda *arguments: exercise.reference(*arguments).flip(0),
    ):
        assert check(exercise.id, wrong).status == "incorrect"

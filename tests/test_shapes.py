"""Clips of moving shapes: whole in every frame, the labels true, the middle mute."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mmcourse import shapes

FRAMES, SIZE = 9, 32


def clips(n, seed=0):
    rng = np.random.default_rng(seed)
    return [shapes.random_clip(rng, FRAMES, SIZE) for _ in range(n)]


def centroid(frame):
    """The centre (x, y) of what isn't white in one frame (C, H, W)."""
    ink = 255.0 - frame.min(axis=0)
    y, x = np.indices(ink.shape)
    return np.array([(x * ink).sum(), (y * ink).sum()]) / ink.sum()


def test_the_shape_moves_as_labelled():
    for clip in clips(40):
        video = shapes.draw_clip(clip, FRAMES, SIZE)
        moved = centroid(video[-1]) - centroid(video[0])
        due = np.array(shapes.MOTIONS[clip.motion]) * clip.step * (FRAMES - 1)
        assert np.abs(moved - due).max() < 0.3, (clip, moved, due)


def test_every_frame_holds_the_whole_shape_in_its_colour():
    for clip in clips(40, seed=1):
        video = shapes.draw_clip(clip, FRAMES, SIZE)
        assert video.shape == (FRAMES, 3, SIZE, SIZE) and video.dtype == np.uint8
        ink = (255.0 - video).sum(axis=(1, 2, 3))
        assert ink.max() / ink.min() < 1.12  # nothing is cut off at an edge
        x, y = np.rint(centroid(video[4])).astype(int)
        assert tuple(video[4, :, y, x]) == shapes.COLOURS[clip.colour]


@pytest.mark.parametrize(
    ("shape", "area"), [("circle", np.pi), ("square", 4), ("triangle", 2)]
)
def test_each_shape_has_its_area(shape, area):
    clip = shapes.Clip(shape, "red", "left", (16.0, 16.0), radius=6.0, step=1.0)
    picture = np.asarray(shapes.draw(clip, (16.0, 16.0), SIZE)).astype(float)
    ink = (255 - picture[..., 1]).sum() / (255 - shapes.COLOURS["red"][1])
    assert ink == pytest.approx(area * 36, rel=0.08)


def test_the_middle_frame_does_not_tell_the_motion_and_the_ends_together_do():
    made = clips(240, seed=2)
    videos = np.stack([shapes.draw_clip(c, FRAMES, SIZE) for c in made]) / 255.0
    labels = [c.motion for c in made]
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
    centres = np.array([[centroid(v[f] * 255) for f in (0, 4, 8)] for v in videos])
    middle = np.hstack([centres[:, 1], videos[:, 4, 0, ::4, ::4].reshape(240, -1)])
    ends = centres[:, 2] - centres[:, 0]
    assert cross_val_score(model, middle, labels, cv=5).mean() < 0.38  # chance 0.25
    assert cross_val_score(model, ends, labels, cv=5).mean() > 0.95


def test_the_middle_of_the_path_is_the_same_whatever_the_motion():
    """By construction: turn only the motion, and the middle stays where it was."""

    class Turned(np.random.Generator):
        def __init__(self, motion):
            super().__init__(np.random.PCG64(5))
            self.motion = motion

        def choice(self, options):
            drawn = super().choice(options)
            return self.motion if self.motion in options else drawn

    middles = [
        shapes.draw_clip(shapes.random_clip(Turned(m), FRAMES, SIZE), FRAMES, SIZE)[4]
        for m in shapes.MOTIONS
    ]
    for other in middles[1:]:
        np.testing.assert_array_equal(other, middles[0])


def test_all_labels_come_up_and_the_same_seed_gives_the_same_clips():
    made = clips(200, seed=3)
    assert {c.shape for c in made} == set(shapes.SHAPES)
    assert {c.colour for c in made} == set(shapes.COLOURS)
    counts = [sum(c.motion == m for c in made) for m in shapes.MOTIONS]
    assert min(counts) > 30
    assert made == clips(200, seed=3) != clips(200, seed=4)


def test_caption():
    clip = shapes.Clip("square", "blue", "up", (9.0, 9.0), radius=4.0, step=1.0)
    assert clip.caption == "a blue square moves up"

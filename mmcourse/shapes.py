"""Drawn shapes that move: short clips whose label takes several frames to tell.

Constructed data, and said to be so: everything in it is known. Taught in 01_modalities.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

COLOURS = {
    "red": (204, 51, 51),
    "green": (46, 139, 87),
    "blue": (51, 102, 204),
    "yellow": (230, 180, 30),
}
SHAPES = ("circle", "square", "triangle")
MOTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
OVERSAMPLE = 4  # draw larger, then shrink: smooth edges


@dataclass(frozen=True)
class Clip:
    """A shape, its colour, where it starts and how it moves; lengths in pixels."""

    shape: str
    colour: str
    motion: str
    start: tuple[float, float]
    radius: float
    step: float

    @property
    def caption(self) -> str:
        """Return the clip in words."""
        return f"a {self.colour} {self.shape} moves {self.motion}"


def random_clip(rng: np.random.Generator, frames: int, size: int) -> Clip:
    """Draw a clip at random so that the shape stays whole inside every frame.

    The middle of the path is drawn from the same square for every motion, so that the
    middle frame tells nothing about the motion.
    """
    radius = float(rng.uniform(0.1, 0.16) * size)
    step = float(rng.uniform(0.5, 1.0) * 0.3 * size / max(frames - 1, 1))
    shape, colour = str(rng.choice(SHAPES)), str(rng.choice([*COLOURS]))
    motion = str(rng.choice([*MOTIONS]))
    half = step * (frames - 1) / 2
    x, y = rng.uniform(radius + half, size - radius - half, size=2)
    dx, dy = MOTIONS[motion]
    return Clip(shape, colour, motion, (x - dx * half, y - dy * half), radius, step)


def draw_clip(clip: Clip, frames: int, size: int) -> np.ndarray:
    """Draw the frames of a clip: (F, C, H, W), unsigned bytes."""
    dx, dy = MOTIONS[clip.motion]
    x, y = clip.start
    images = [
        draw(clip, (x + dx * clip.step * f, y + dy * clip.step * f), size)
        for f in range(frames)
    ]
    return np.stack([np.asarray(image).transpose(2, 0, 1) for image in images])


def draw(clip: Clip, centre: tuple[float, float], size: int) -> Image.Image:
    """Draw one shape on a white square picture of ``size`` pixels."""
    large = Image.new("RGB", (size * OVERSAMPLE,) * 2, "white")
    x, y = (c * OVERSAMPLE for c in centre)
    paint(large, clip.shape, clip.colour, (x, y), clip.radius * OVERSAMPLE)
    return large.resize((size, size), Image.Resampling.BOX)


def paint(
    picture: Image.Image,
    shape: str,
    colour: str,
    centre: tuple[float, float],
    radius: float,
) -> None:
    """Paint one shape onto a picture, over what is there; lengths in its pixels."""
    (x, y), r = centre, radius
    pen, fill = ImageDraw.Draw(picture), COLOURS[colour]
    if shape == "circle":
        pen.ellipse((x - r, y - r, x + r, y + r), fill=fill)
    elif shape == "square":
        pen.rectangle((x - r, y - r, x + r, y + r), fill=fill)
    else:
        pen.polygon([(x, y - r), (x - r, y + r), (x + r, y + r)], fill=fill)

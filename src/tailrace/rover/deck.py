"""The edge of the rover's deck, which is in the foreground of the panorama."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

from .terrain import DUST

WIDTH, HEIGHT = 2_700, 260


def draw_deck(picture: Image.Image, middle: int, random: np.random.Generator) -> None:
    """Draw the deck at the bottom of a picture: cells of the rover's array, a rail, and a sundial.

    `middle` is the column of the deck's middle.
    """
    scale = 2
    layer = Image.new("RGBA", (WIDTH * scale, HEIGHT * scale))
    draw = ImageDraw.Draw(layer)

    def at(x: float, y: float) -> tuple[float, float]:
        """Return the place of a point of the deck: x from -1 to 1, y from its far edge (0) to the near one (1)."""
        spread = 0.72 + 0.28 * y
        sag = 22 * (1 - x * x)  # a straight edge is bent by the projection
        return (1_350 + 1_300 * x * spread) * scale, (70 + 210 * y - sag) * scale

    def plate(x0: float, y0: float, x1: float, y1: float, color: tuple[int, ...]) -> None:
        edge = [at(x0 + (x1 - x0) * part / 24, y0) for part in range(25)]
        edge += [at(x1 - (x1 - x0) * part / 24, y1) for part in range(25)]
        draw.polygon(edge, fill=color)

    plate(-1.02, -0.05, 1.02, 1.1, (96, 84, 74, 255))
    plate(-1.02, -0.05, 1.02, 0.0, (196, 172, 144, 255))
    for column in range(26):
        for row in range(4):
            x, y = -0.98 + column * 1.96 / 26, 0.06 + row * 0.26
            if not 11 <= column <= 14:
                warm = (column * 7 + row * 5) % 11
                plate(x, y, x + 1.8 / 26, y + 0.225, (38 + warm, 34 + warm // 2, 44 + warm // 2, 255))
                plate(x + 0.8 / 26, y, x + 0.84 / 26, y + 0.225, (92, 82, 80, 255))
    _draw_sundial(draw, at, scale)
    deck = layer.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)
    picture.paste(_lit(deck, random), (middle - WIDTH // 2, picture.height - HEIGHT), deck)


def _lit(deck: Image.Image, random: np.random.Generator) -> Image.Image:
    """Let the light of the sun, on the right, and some dust fall on the deck."""
    colors = np.asarray(deck.convert("RGB"), np.float32) / 255
    across = np.linspace(0, 1, colors.shape[1], dtype=np.float32)[None, :, None]
    down = np.linspace(1, 0, colors.shape[0], dtype=np.float32)[:, None, None]
    dust = random.standard_normal(colors.shape[:2]).astype(np.float32)[..., None]
    glint = np.exp(-(((across - 0.80) / 0.16) ** 2)) * (0.35 + 0.65 * down)
    colors = colors * (0.72 + 0.34 * across) * (0.85 + 0.3 * down) + DUST * (0.085 + 0.022 * dust + 0.17 * glint)
    return Image.fromarray((np.clip(colors, 0, 1) * 255).astype(np.uint8))


def _draw_sundial(draw: ImageDraw.ImageDraw, at: Callable[[float, float], tuple[float, float]], scale: int) -> None:
    """Draw the target by which the camera calibrates its colors."""
    middle_x, middle_y = at(0.0, 0.5)
    for width, color in ((118, (132, 116, 98)), (104, (190, 172, 148)), (78, (112, 102, 92)), (52, (58, 54, 52))):
        half, tall = width * scale, width * scale * 0.42
        draw.ellipse((middle_x - half, middle_y - tall, middle_x + half, middle_y + tall), fill=(*color, 255))
    for turn, color in enumerate(((132, 58, 46), (78, 96, 66), (62, 74, 104), (158, 128, 66))):
        x = middle_x + (1 if turn % 2 else -1) * 132 * scale
        y = middle_y + (1 if turn // 2 else -1) * 30 * scale
        draw.ellipse((x - 15 * scale, y - 8 * scale, x + 15 * scale, y + 8 * scale), fill=(*color, 255))
    # The post, and its shadow away from the sun.
    draw.polygon(
        [
            (middle_x, middle_y),
            (middle_x - 78 * scale, middle_y + 30 * scale),
            (middle_x - 70 * scale, middle_y + 36 * scale),
        ],
        fill=(40, 36, 34, 255),
    )
    draw.line((middle_x, middle_y, middle_x, middle_y - 62 * scale), fill=(212, 198, 178, 255), width=7 * scale)
    ball = 9 * scale
    draw.ellipse(
        (middle_x - ball, middle_y - 71 * scale, middle_x + ball, middle_y - 53 * scale), fill=(232, 220, 200, 255)
    )

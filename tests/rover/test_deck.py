from __future__ import annotations

import numpy as np
from PIL import Image

from tailrace.rover.deck import HEIGHT, WIDTH, draw_deck

SKY = (0, 255, 0)


def test_the_deck_covers_the_bottom_of_a_picture_around_its_middle() -> None:
    picture = Image.new("RGB", (WIDTH + 600, HEIGHT + 40), SKY)
    draw_deck(picture, WIDTH // 2 + 300, np.random.default_rng(1))
    drawn = np.asarray(picture)
    free = (drawn == SKY).all(axis=2)
    assert free[:40].all()
    assert free[:, :290].all()
    assert free[:, -290:].all()
    assert not free[-1, 600:-600].any()
    # It is wider in front, and the same on both sides.
    widths = (~free).sum(axis=1)
    assert widths[-1] > widths[120] > 0
    assert abs(int(free[-1].argmin()) - int(free[-1, ::-1].argmin())) <= 2

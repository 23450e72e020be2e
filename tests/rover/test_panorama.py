from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from tailrace.rover.image import _paint
from tailrace.rover.panorama import HEIGHT, TOP, WIDTH, paint
from tailrace.rover.terrain import PER_DEGREE

STRIP = 64


@pytest.fixture(scope="module")
def strip() -> bytes:
    return paint(STRIP)


def pixels(image: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.asarray(Image.open(io.BytesIO(image)), np.float64)


def test_the_panorama_is_a_large_progressive_jpeg(strip: bytes) -> None:
    image = Image.open(io.BytesIO(strip))
    assert (image.format, image.size, image.mode) == ("JPEG", (STRIP, HEIGHT), "RGB")
    assert image.info["progressive"]
    # The middle has the deck, which is the smoothest part of the picture.
    assert len(strip) * WIDTH / STRIP > 4e6


def test_the_same_picture_comes_each_time(strip: bytes) -> None:
    assert paint(STRIP) == strip


def test_the_sky_is_above_the_ground(strip: bytes) -> None:
    picture = pixels(strip)
    horizon = int(TOP * PER_DEGREE)
    sky, ground = picture[: horizon - 120], picture[horizon + 60 : HEIGHT - 300]
    assert sky.mean() > ground.mean() + 20
    assert ground.std(axis=(0, 1)).min() > 3 * sky.std(axis=1).mean()
    red, _, blue = ground.mean(axis=(0, 1))
    assert red > 1.5 * blue


def test_the_deck_is_in_the_foreground(strip: bytes) -> None:
    deck = pixels(strip)[-60:]
    red, _, blue = deck.mean(axis=(0, 1))
    assert red < 1.4 * blue


def test_the_first_start_paints_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tailrace.rover.panorama.paint", lambda: b"all of it")
    assert _paint() == b"all of it"

from __future__ import annotations

import numpy as np
import pytest

from tailrace.rover.terrain import Floats, Terrain

TERRAIN = Terrain(np.random.default_rng(1))


def places(count: int, reach: float, seed: int = 0) -> tuple[Floats, Floats]:
    x, y = np.random.default_rng(seed).uniform(-reach, reach, (2, count)).astype(np.float32)
    return x, y


def far_from(x: Floats, y: Floats) -> Floats:
    return np.asarray(np.hypot(x, y), np.float32)


@pytest.mark.parametrize("length", [0.1, 3.0, 500.0])
def test_noise_is_bounded_and_smooth(length: float) -> None:
    x, y = places(2_000, 20 * length)
    value, near = TERRAIN.noise(x, y, length), TERRAIN.noise(x + np.float32(length / 1_000), y, length)
    assert np.abs(value).max() <= 1
    assert value.std() > 0.2
    assert np.abs(near - value).max() < 0.01


def test_the_same_random_numbers_are_the_same_ground() -> None:
    x, y = places(100, 50.0)
    far = far_from(x, y)
    again, other = (Terrain(np.random.default_rng(seed)) for seed in (1, 2))
    assert (again.land(x, y, far) == TERRAIN.land(x, y, far)).all()
    assert not (other.land(x, y, far) == TERRAIN.land(x, y, far)).any()


def test_the_rover_stands_on_level_ground_before_hills() -> None:
    x, y = places(2_000, 3.0)
    assert np.abs(TERRAIN.land(x, y, far_from(x, y))).max() < 0.6
    angle = np.linspace(0, 2 * np.pi, 500, dtype=np.float32)
    x, y = 25_000 * np.sin(angle), 25_000 * np.cos(angle)
    assert TERRAIN.land(x, y, far_from(x, y)).max() > 200


def test_rocks_rise_from_the_ground_and_those_too_far_away_are_left_out() -> None:
    x, y = places(20_000, 5.0)
    near = TERRAIN.stones(x, y, far_from(x, y))
    assert near.min() == 0
    assert 0.01 < (near > 0).mean() < 0.6
    assert near.max() < 1
    assert not TERRAIN.stones(x, y, np.full_like(x, 5_000)).any()


def test_lit_stones_are_as_high_as_those_that_rays_meet() -> None:
    x, y = places(5_000, 5.0)
    far = far_from(x, y)
    height, *_, cover, tone = TERRAIN.lit_stones(x, y, far, np.full_like(x, 0.006))
    assert (height == TERRAIN.stones(x, y, far)).all()
    assert cover[height > 0.1].min() == 1
    assert (tone >= 0).all()
    assert (tone <= 1).all()


def test_shadows_lie_beside_rocks_away_from_the_sun() -> None:
    """All that is in the shadow of a low sun is next to a rock on the way to the sun."""
    x, y = places(20_000, 5.0)
    light = TERRAIN.shade(x, y, far_from(x, y), (1.0, 0.0), 0.15)
    assert (light.min(), light.max()) == (0, 1)
    assert 0.02 < (light < 0.5).mean() < 0.6
    high = TERRAIN.shade(x, y, far_from(x, y), (1.0, 0.0), 10.0)
    assert (high < 0.5).mean() < (light < 0.5).mean()


def test_the_wheels_press_into_the_ground_and_darken_it() -> None:
    along = np.linspace(3, 30, 400, dtype=np.float32)
    turn = np.radians(np.float32(-38.0))
    across = np.linspace(-3, 3, 400, dtype=np.float32)[:, None]
    x = along * np.sin(turn) + across * np.cos(turn)
    y = along * np.cos(turn) - across * np.sin(turn)
    depth, dark = TERRAIN.tracks(x, y, far_from(x, y))
    assert depth.min() < -0.008
    assert 0 < dark.max() <= 1
    assert dark[depth < -0.008].min() > 0.2
    assert 0.02 < (dark > 0.5).mean() < 0.2  # two wheels of some 20 cm in 6 m

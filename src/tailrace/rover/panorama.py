"""Paint a panorama of Mars: the same picture each time, from one seed.

The ground is a height field: hills, dunes, ripples and rocks. For each column of the picture, a ray walks outwards over
it and notes how high the ground rises into view. So each pixel knows how far away its ground is, and is lit by the sun
there. The air reddens with distance, the sky is bright around the sun, and bluish close to it, as dust makes it.

The columns are painted in blocks, in threads: numpy lets go of the interpreter lock in nearly all of its work.
"""

from __future__ import annotations

import io
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .deck import draw_deck
from .terrain import PER_DEGREE, Floats, Terrain, rgb, smooth

WIDTH, HEIGHT = 6_000, 1_500
TOP = 14.0
"""Degrees of the upper edge above the horizon. The picture is 200 degrees wide, and goes 36 below the horizon."""

EYE = 1.9
"""Metres of the camera above the ground, on a mast."""
NEAREST, FARTHEST, STRIDE = 2.3, 45_000.0, 1.005
"""Where a ray begins and ends, and by which factor it grows at each step."""

SUN_AZIMUTH, SUN_ELEVATION = 47.0, 8.5
SUN_RADIUS = 0.175
"""Degrees: from Mars, the sun is two thirds as wide as from Earth."""

BLOCK = 250
"""The columns that are painted at once."""

SEED = 20_210_218


def paint(width: int = WIDTH, quality: int = 96) -> bytes:
    """Return the panorama as a progressive JPEG. A smaller width is a strip out of the middle."""
    scene = Scene(np.random.default_rng(SEED))
    start = (WIDTH - width) // 2
    blocks = [(first, min(first + BLOCK, start + width)) for first in range(start, start + width, BLOCK)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        painted = pool.map(lambda block: scene.columns(*block), blocks)
    picture = Image.fromarray(np.concatenate(list(painted), axis=1))
    draw_deck(picture, WIDTH // 2 - start, np.random.default_rng(SEED))
    file = io.BytesIO()
    # Full resolution of colours: halved ones blur the grid of the deck.
    picture.save(file, "JPEG", quality=quality, progressive=True, optimize=True, subsampling=0)
    return file.getvalue()


SUNLIGHT, SKYLIGHT = rgb(1.42, 1.20, 0.97), rgb(0.34, 0.29, 0.255)
ZENITH, HORIZON = rgb(0.56, 0.42, 0.32), rgb(0.86, 0.66, 0.47)
HALO, GLARE = rgb(0.40, 0.47, 0.55), rgb(0.75, 0.80, 0.82)


class Scene:
    """The ground, the light and the sky."""

    def __init__(self, random: np.random.Generator) -> None:
        self._terrain = Terrain(random)
        self._seeds = random.integers(1 << 31, size=WIDTH)
        azimuth, elevation = np.radians(SUN_AZIMUTH), np.radians(SUN_ELEVATION)
        self._to_sun = float(np.sin(azimuth)), float(np.cos(azimuth))
        self._sun_slope = float(np.tan(elevation))
        flat = np.cos(elevation)
        self._light = self._to_sun[0] * flat, self._to_sun[1] * flat, np.sin(elevation)

    def columns(self, first: int, last: int) -> NDArray[np.uint8]:
        """Return some columns of the picture."""
        azimuth = np.radians((np.arange(first, last, dtype=np.float32) + 0.5 - WIDTH / 2) / PER_DEGREE)
        elevation = TOP - (np.arange(HEIGHT, dtype=np.float32) + 0.5) / PER_DEGREE
        picture = self._sky(azimuth, elevation)
        far = self._distances(azimuth, np.tan(np.radians(elevation)))
        ground = np.isfinite(far)
        row, column = np.nonzero(ground)
        distance = far[ground]
        haze = self._haze(azimuth)[column]
        x, y = distance * np.sin(azimuth)[column], distance * np.cos(azimuth)[column]
        thick = (1 - np.exp(-distance / 17_000.0) * (1 - 0.10 * smooth(20, 900, distance)))[:, None]
        picture[row, column] = self._ground(x, y, distance) * (1 - thick) + haze * thick
        for index, number in enumerate(range(first, last)):  # the grain of the sensor
            grain = np.random.default_rng(self._seeds[number]).standard_normal((HEIGHT, 1), np.float32)
            picture[:, index] += 0.011 * grain
        return (np.clip(_developed(picture), 0, 1) * 255 + 0.5).astype(np.uint8)

    def _distances(self, azimuth: Floats, slopes: Floats) -> Floats:
        """Return how far away the ground is in each pixel: infinite for the sky."""
        steps = int(np.log(FARTHEST / NEAREST) / np.log(STRIDE))
        far = (NEAREST * STRIDE ** np.arange(steps)).astype(np.float32)[:, None]
        x, y = far * np.sin(azimuth), far * np.cos(azimuth)
        wide = np.broadcast_to(far, x.shape)
        height = self._terrain.land(x, y, wide, fine=False)
        near = int(np.searchsorted(far[:, 0], 260.0))  # no rock is visible behind this
        height[:near] += self._terrain.stones(x[:near].ravel(), y[:near].ravel(), wide[:near].ravel()).reshape(near, -1)
        height -= far * far / (2 * 3_389_500.0)  # the planet is round
        risen = np.maximum.accumulate((height - EYE) / far, axis=0)
        found = np.full((len(slopes), len(azimuth)), np.inf, np.float32)
        upward = slopes[::-1]
        for column in range(len(azimuth)):
            seen = risen[:, column]
            at = np.searchsorted(seen, upward)
            hit = at < steps
            at = np.minimum(at, steps - 1)
            before = np.maximum(at - 1, 0)
            span = np.maximum(seen[at] - seen[before], 1e-9)
            part = np.clip((upward - seen[before]) / span, 0, 1)
            distance = far[before, 0] + (far[at, 0] - far[before, 0]) * part
            found[:, column] = np.where(hit, distance, np.inf)[::-1]
        return found

    def _ground(self, x: Floats, y: Floats, far: Floats) -> Floats:
        """Return the color of the ground at some points."""
        near = np.maximum(far * np.float32(0.0011), np.float32(0.006))
        stones, stone_east, stone_north, cover, tone = self._terrain.lit_stones(x, y, far, near)
        height = self._terrain.land(x, y, far)
        east = (self._terrain.land(x + near, y, far) - height + stone_east - stones) / near
        north = (self._terrain.land(x, y + near, far) - height + stone_north - stones) / near
        length = np.sqrt(east * east + north * north + 1)
        light_x, light_y, light_z = self._light
        facing = np.clip((light_z - east * light_x - north * light_y) / length, 0, 1)
        shaded = self._terrain.shade(x, y, far, self._to_sun, self._sun_slope)
        shaded = shaded + (1 - shaded) * np.clip(stones / 0.25, 0, 0.85)
        sunlit = (facing * shaded)[:, None] * SUNLIGHT
        # Dust scatters light forwards, so ground on the way to the sun is brighter.
        toward = (x * self._to_sun[0] + y * self._to_sun[1]) / np.maximum(far, 1)
        skylit = ((0.72 + 0.28 / length) * (1.0 + 0.22 * np.clip(toward, -1, 1)))[:, None] * SKYLIGHT
        color: Floats = self._terrain.albedo(x, y, far, cover, tone) * (sunlit + skylit) * 1.28
        return color

    # The sky

    def _sky(self, azimuth: Floats, elevation: Floats) -> Floats:
        up = np.clip(elevation, 0, None)[:, None]
        rise = (1 - np.exp(-up / 11.0))[..., None]
        sky = HORIZON * (1 - rise) + ZENITH * rise
        away = self._from_sun(azimuth[None, :], elevation[:, None])[..., None]
        sky = sky * (0.78 + 0.34 * np.exp(-away / 38.0))
        sky = sky + HALO * 0.55 * np.exp(-away / 8.5) + GLARE * 0.75 * np.exp(-away / 2.2)
        band = 0.016 * self._terrain.noise(
            azimuth[None, :] * 9 + elevation[:, None] * 0.05, elevation[:, None] * 0.9, 1.0
        )
        sky = sky * (1 + band)[..., None]
        return np.asarray(sky + GLARE * (1.4 * (1 - smooth(SUN_RADIUS * 0.8, SUN_RADIUS * 1.2, away))), np.float32)

    def _haze(self, azimuth: Floats) -> Floats:
        """The color of much air: that of the sky above the horizon."""
        haze: Floats = self._sky(azimuth, np.array([1.2], np.float32))[0] * 0.94
        return haze

    def _from_sun(self, azimuth: Floats, elevation: Floats) -> Floats:
        up, sun_up = np.radians(elevation), np.radians(np.float32(SUN_ELEVATION))
        turned = azimuth - np.radians(np.float32(SUN_AZIMUTH))
        cosine = np.sin(up) * np.sin(sun_up) + np.cos(up) * np.cos(sun_up) * np.cos(turned)
        return np.asarray(np.degrees(np.arccos(np.clip(cosine, -1, 1))), np.float32)


def _developed(light: Floats) -> Floats:
    """Return light as a camera develops it: brighter shadows, and highlights that do not clip at once."""
    light = np.clip(light, 0, None)
    curved = light * (1 + light * np.float32(0.12)) / (1 + light * np.float32(0.36))
    return np.asarray(curved * np.float32(1.22), np.float32) ** np.float32(0.86)

"""Paint a panorama of Mars: the same picture each time, from one seed.

The ground is a height field: hills, dunes, ripples and rocks. For each column of the picture, a ray walks outwards over
it and notes how high the ground rises into view. So each pixel knows how far away its ground is, and is lit by the sun
there. The air reddens with distance, the sky is bright around the sun, and bluish close to it, as dust makes it.

The columns are painted in blocks, in threads: numpy lets go of the interpreter lock in nearly all of its work.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Floats: TypeAlias = NDArray[np.float32]

WIDTH, HEIGHT = 6_000, 1_500
PER_DEGREE = 30.0
"""Pixels to a degree, both ways: 200 degrees around, from 14 above the horizon to 36 below it."""
TOP = 14.0

EYE = 1.9
"""Metres of the camera above the ground, on a mast."""
NEAREST, FARTHEST, STRIDE = 2.3, 45_000.0, 1.005
"""Where a ray begins and ends, and by which factor it grows at each step."""

SUN_AZIMUTH, SUN_ELEVATION = 47.0, 8.5
SUN_RADIUS = 0.175
"""Degrees: from Mars, the sun is two thirds as wide as from Earth."""

ROLLING = ((520.0, 5.0, 60.0), (170.0, 2.2, 25.0), (52.0, 0.75, 8.0), (17.0, 0.26, 0.0), (5.3, 0.085, 0.0))
"""Bumps of the ground: how long they are, how high, and where they begin, so that the rover stands on level ground."""

FINE = ((1.7, 0.026), (0.5, 0.008), (0.17, 0.0042), (0.06, 0.0031), (0.021, 0.0015))

_CELLS = 256
"""The cells of a plan of rocks, each way: a power of two."""

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
    _draw_deck(picture, start)
    file = io.BytesIO()
    # Full resolution of colours: halved ones blur the grid of the deck.
    picture.save(file, "JPEG", quality=quality, progressive=True, optimize=True, subsampling=0)
    return file.getvalue()


def _smooth(low: float, high: float, value: Floats) -> Floats:
    part: Floats = np.clip((value - low) / (high - low), 0.0, 1.0)
    return part * part * (3.0 - 2.0 * part)


def _color(red: float, green: float, blue: float) -> Floats:
    return np.array([red, green, blue], np.float32)


DUST, SAND, BASALT = _color(0.66, 0.45, 0.30), _color(0.43, 0.285, 0.20), _color(0.33, 0.245, 0.205)
SUNLIGHT, SKYLIGHT = _color(1.42, 1.20, 0.97), _color(0.34, 0.29, 0.255)
ZENITH, HORIZON = _color(0.56, 0.42, 0.32), _color(0.86, 0.66, 0.47)
HALO, GLARE = _color(0.40, 0.47, 0.55), _color(0.75, 0.80, 0.82)


@dataclass(frozen=True)
class Rocks:
    """Rocks of one size: at most one in each cell of a grid, and wholly inside it."""

    cell: float
    share: float
    smallest: float
    largest: float


class Scene:
    """The ground, the light and the sky."""

    LAYERS = (
        Rocks(0.10, 0.58, 0.006, 0.027),
        Rocks(0.37, 0.34, 0.02, 0.08),
        Rocks(1.3, 0.26, 0.06, 0.24),
        Rocks(5.5, 0.22, 0.22, 0.75),
    )

    def __init__(self, random: np.random.Generator) -> None:
        self._lattice = random.random(512 * 512, np.float32)
        self._plans = [self._plan(rocks, random) for rocks in self.LAYERS]
        self._seeds = random.integers(1 << 31, size=WIDTH)
        azimuth, elevation = np.radians(SUN_AZIMUTH), np.radians(SUN_ELEVATION)
        self._to_sun = float(np.sin(azimuth)), float(np.cos(azimuth))
        self._sun_slope = float(np.tan(elevation))
        flat = np.cos(elevation)
        self._light = self._to_sun[0] * flat, self._to_sun[1] * flat, np.sin(elevation)

    # The ground

    def _noise(self, x: Floats, y: Floats, length: float) -> Floats:
        """Return smooth noise from -1 to 1, with bumps of a length in metres."""
        x, y = x / np.float32(length), y / np.float32(length)
        column, row = np.floor(x), np.floor(y)
        x, y = x - column, y - row
        x, y = x * x * (3 - 2 * x), y * y * (3 - 2 * y)
        left, upper = column.astype(np.int32) & 511, (row.astype(np.int32) & 511) << 9
        right, lower = (left + 1) & 511, (upper + 512) & 0x3FFFF
        value = self._lattice.take
        above, below = value(upper + left), value(lower + left)
        above += (value(upper + right) - above) * x
        below += (value(lower + right) - below) * x
        return (above + (below - above) * y) * 2 - 1

    def _land(self, x: Floats, y: Floats, far: Floats, *, fine: bool = True) -> Floats:
        """Return the height without rocks. Small bumps fade out where a pixel would cover several of them.

        The finest bumps only catch light. They are too low to hide anything.
        """
        height = self._tracks(x, y, far)[0]
        height += 26.0 * self._noise(x, y, 2_600) * _smooth(250, 3_000, far)
        for length, rise, start in ROLLING:
            height += self._bumps(x, y, length, rise) * _smooth(start, 4 * start + 6, far)
        for length, rise in FINE if fine else ():
            _add(height, _fading(far, length), partial(self._bumps, length=length, rise=rise), x, y)
        _add(height, _smooth(4_500, 14_000, far), self._hills, x, y)
        _add(height, _fading(far, 0.85), self._ripples, x, y)
        return height

    def _bumps(self, x: Floats, y: Floats, length: float, rise: float) -> Floats:
        # Shifted, so that the bumps of all lengths do not begin at one point.
        return rise * self._noise(x + 31 * length, y - 17 * length, length)

    def _hills(self, x: Floats, y: Floats) -> Floats:
        """A rim of hills and table mountains on the horizon."""
        ridge = 1 - np.abs(self._noise(x, y, 7_000))
        ridge = ridge * ridge * (0.6 + 0.4 * self._noise(x, y, 21_000))
        rough = 0.16 * self._noise(x, y, 1_100) + 0.07 * self._noise(x, y, 380) + 0.03 * self._noise(x, y, 120)
        table = _smooth(0.18, 0.34, self._noise(x + 9_000, y, 4_300) + 0.5 * rough)
        hills: Floats = 620 * ridge * (1 + rough) + 90 * rough + 190 * table * (1 + 0.25 * rough)
        return hills

    def _ripples(self, x: Floats, y: Floats) -> Floats:
        """Ripples of sand, in patches."""
        patch = _smooth(0.02, 0.5, self._noise(x + 400, y - 900, 23))
        bent = x * 0.93 + y * 0.36 + 0.55 * self._noise(x, y, 3.1) + 0.25 * self._noise(x, y, 1.1)
        crest: Floats = 1 - np.abs(np.sin(bent * (np.pi / 0.85)))
        crest *= 0.06 * patch * crest
        return crest

    def _tracks(self, x: Floats, y: Floats, far: Floats) -> tuple[Floats, Floats]:
        """The tracks of the wheels, from the rover into the distance: their depth, and how much they darken."""
        turn = np.radians(-38.0)
        along = x * np.sin(turn) + y * np.cos(turn)
        across = x * np.cos(turn) - y * np.sin(turn)
        across = across - 2.6 * np.sin(along / 15.0) * _smooth(4, 40, along) - 16 * _smooth(50, 160, along)
        inside = np.abs(np.abs(across) - np.float32(0.56))
        there = _smooth(1.0, 2.5, along) * (1 - _smooth(350, 900, along))
        floor = (1 - _smooth(0.085, 0.12, inside)) * there
        crumbled = 0.55 + 0.6 * self._noise(x, y, 0.21)
        bank = np.exp(-(((inside - 0.15) / 0.045) ** 2)) * there * crumbled
        tread = (0.5 + 0.5 * np.sin(along * (2 * np.pi / 0.13))) * _fading(far, 0.22)
        depth = (-0.022 + 0.012 * tread) * floor + 0.0055 * bank
        return depth * _fading(far, 0.8), floor * (0.75 + 0.25 * tread)

    # Rocks

    def _plan(self, rocks: Rocks, random: np.random.Generator) -> Floats:
        """Return what the cells of a layer hold: middle, radius, height, tone and stretch. The plan repeats."""
        side = _CELLS
        there, size, right, up, tall, tone, stretch = random.random((7, side, side), np.float32)
        column, row = np.meshgrid(np.arange(side, dtype=np.float32), np.arange(side, dtype=np.float32))
        dense = np.clip(0.8 + 1.1 * self._noise(column, row, 8), 0.1, 1.7)
        radius = rocks.smallest + (rocks.largest - rocks.smallest) * size**3
        radius = np.where(there < rocks.share * dense, radius, 0)
        room = rocks.cell - 2.4 * radius
        middle = 1.2 * radius + room * right, 1.2 * radius + room * up
        plan = [*middle, radius, radius * (0.5 + 0.75 * tall), tone, 0.72 + 0.5 * stretch]
        return np.stack([trait.ravel() for trait in plan])

    def _near_rocks(self, layer: int, x: Floats, y: Floats, far: Floats) -> tuple[NDArray[np.intp], list[Floats]]:
        """Return which points have a rock in their cell, where they are from its middle, and its other traits."""
        rocks, plan = self.LAYERS[layer], self._plans[layer]
        column, row = np.floor(x / np.float32(rocks.cell)), np.floor(y / np.float32(rocks.cell))
        side = _CELLS - 1
        cell = ((row.astype(np.int32) & side) * _CELLS) + (column.astype(np.int32) & side)
        seen = (plan[2].take(cell) > 0) & (far < rocks.largest * 1_200)
        found = np.nonzero(seen)[0]
        cell, column, row = cell[found], column[found], row[found]
        away_x = x[found] - column * np.float32(rocks.cell) - plan[0].take(cell)
        away_y = y[found] - row * np.float32(rocks.cell) - plan[1].take(cell)
        return found, [away_x, away_y, *(trait.take(cell) for trait in plan[2:])]

    def _rise(self, layer: int, away_x: Floats, away_y: Floats, traits: list[Floats]) -> tuple[Floats, Floats]:
        """Return how far a rock rises at a point, and how far the point is inside its outline."""
        radius, tall, tone, stretch = traits
        u: Floats = away_x / (radius * stretch)
        v: Floats = away_y / radius * stretch
        jagged = 0.30 * self._noise(u * 1.3 + 90 * tone, v * 1.3, 1.0) + 0.13 * self._noise(u, v - 70 * tone, 0.27)
        # Flat faces at slants: the farthest of some planes is nearer to broken stone than a sphere is.
        turned = tone * 6.0
        slant = np.cos(turned), np.sin(turned)
        a, b = u * slant[0] + v * slant[1], v * slant[0] - u * slant[1]
        faces = np.maximum(np.maximum(np.abs(a + 0.35 * b), np.abs(b - 0.4 * a)), 0.9 * np.abs(a - 0.8 * b))
        shape = np.clip(1 - (0.5 * np.sqrt(u * u + v * v) + 0.5 * faces + jagged), 0, 1)
        profile = np.minimum(np.sqrt(shape) * 1.3, 0.85 + 0.35 * shape)
        profile -= 0.05 * np.abs(self._noise(u + 30 * tone, v + 11, 0.16))
        return tall * np.clip(profile - 0.16, 0, None), shape

    def _stones(self, x: Floats, y: Floats, far: Floats) -> Floats:
        """Return how far rocks rise."""
        height = np.zeros_like(x)
        for layer in range(len(self.LAYERS)):
            found, (away_x, away_y, *traits) = self._near_rocks(layer, x, y, far)
            rise, _ = self._rise(layer, away_x, away_y, traits)
            height[found] = np.maximum(height[found], rise)
        return height

    def _lit_stones(self, x: Floats, y: Floats, far: Floats, near: Floats) -> tuple[Floats, ...]:
        """Return how far rocks rise at points and a little east and north, how much is rock, and its tone."""
        height, east, north, cover, tones = (np.zeros_like(x) for _ in range(5))
        for layer in range(len(self.LAYERS)):
            found, (away_x, away_y, *traits) = self._near_rocks(layer, x, y, far)
            rise, shape = self._rise(layer, away_x, away_y, traits)
            step = near[found]
            above = rise >= height[found]
            for there, value in (
                (height, rise),
                (east, self._rise(layer, away_x + step, away_y, traits)[0]),
                (north, self._rise(layer, away_x, away_y + step, traits)[0]),
                (tones, traits[2]),
            ):
                there[found] = np.where(above, value, there[found])
            cover[found] = np.maximum(cover[found], _smooth(0.015, 0.03, shape))
        return height, east, north, cover, tones

    def _shade(self, x: Floats, y: Floats, far: Floats) -> Floats:
        """Return how much sunlight rocks let through to the ground beside them."""
        east, north = self._to_sun
        light = np.ones_like(x)
        for layer, rocks in enumerate(self.LAYERS):
            for step in range(4):
                # A shadow lies straight behind its rock, so the way to the sun meets the rock's cell.
                ahead = np.float32(0.45 * step * rocks.cell)
                found, (away_x, away_y, radius, tall, *_) = self._near_rocks(
                    layer, x + ahead * east, y + ahead * north, far
                )
                away_x, away_y = away_x - ahead * east, away_y - ahead * north
                behind = -(away_x * east + away_y * north)
                beside = np.abs(away_x * north - away_y * east)
                length = radius + 0.8 * tall / np.float32(self._sun_slope)
                part = np.clip(behind / length, 0, 1)
                edge = 0.86 * radius * np.sqrt(1 - part * part)
                soft = 0.004 + 0.12 * part * radius
                dark = np.clip((edge - beside) / soft + 0.5, 0, 1) * (behind > -0.2 * radius) * (part < 1)
                dark *= _fading(far[found], 1.2 * rocks.largest)
                light[found] = np.minimum(light[found], 1 - dark)
        return light

    # The picture

    def columns(self, first: int, last: int) -> NDArray[np.uint8]:
        """Return some columns of the picture."""
        azimuth = np.radians((np.arange(first, last, dtype=np.float32) + 0.5 - WIDTH / 2) / PER_DEGREE)
        elevation = TOP - (np.arange(HEIGHT, dtype=np.float32) + 0.5) / PER_DEGREE
        sky = self._sky(azimuth, elevation)
        far = self._distances(azimuth, np.tan(np.radians(elevation)))
        ground = np.isfinite(far)
        picture = sky
        row, column = np.nonzero(ground)
        distance = far[ground]
        haze = self._haze(azimuth)[column]
        x, y = distance * np.sin(azimuth)[column], distance * np.cos(azimuth)[column]
        thick = (1 - np.exp(-distance / 17_000.0) * (1 - 0.10 * _smooth(20, 900, distance)))[:, None]
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
        height = self._land(x, y, wide, fine=False)
        near = int(np.searchsorted(far[:, 0], 260.0))  # no rock is visible behind this
        height[:near] += self._stones(x[:near].ravel(), y[:near].ravel(), wide[:near].ravel()).reshape(near, -1)
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
        stones, stone_east, stone_north, cover, tone = self._lit_stones(x, y, far, near)
        height = self._land(x, y, far)
        east = (self._land(x + near, y, far) - height + stone_east - stones) / near
        north = (self._land(x, y + near, far) - height + stone_north - stones) / near
        length = np.sqrt(east * east + north * north + 1)
        light_x, light_y, light_z = self._light
        facing = np.clip((light_z - east * light_x - north * light_y) / length, 0, 1)
        shaded = self._shade(x, y, far)
        shaded = shaded + (1 - shaded) * np.clip(stones / 0.25, 0, 0.85)
        sunlit = (facing * shaded)[:, None] * SUNLIGHT
        # Dust scatters light forwards, so ground on the way to the sun is brighter.
        toward = (x * self._to_sun[0] + y * self._to_sun[1]) / np.maximum(far, 1)
        skylit = ((0.72 + 0.28 / length) * (1.0 + 0.22 * np.clip(toward, -1, 1)))[:, None] * SKYLIGHT
        color: Floats = self._albedo(x, y, far, cover, tone, stones) * (sunlit + skylit) * 1.28
        return color

    def _albedo(self, x: Floats, y: Floats, far: Floats, cover: Floats, tone: Floats, stones: Floats) -> Floats:
        patches = 0.5 * self._noise(x, y, 61) + 0.35 * self._noise(x, y, 13) + 0.25 * self._noise(x, y, 2.9)
        patches += 0.5 * self._noise(x, y, 900) * _smooth(150, 1_200, far)
        fine = self._noise(x, y, 0.11) * _fading(far, 0.11) + self._noise(x, y, 0.035) * _fading(far, 0.04)
        dusty = _smooth(-0.55, 0.6, patches)[:, None]
        soil = (SAND * (1 - dusty) + DUST * dusty) * (1 + 0.17 * fine)[:, None]
        soil = soil * (1 - 0.34 * self._tracks(x, y, far)[1])[:, None]
        grained = 1 + 0.16 * self._noise(x, y, 0.07) * _fading(far, 0.1)
        bare = BASALT * ((0.72 + 0.75 * tone) * grained)[:, None]
        dusted = np.clip(0.30 + 0.5 * tone + 0.5 * patches, 0.1, 0.8)[:, None]
        stone = bare * (1 - 0.55 * dusted) + DUST * 0.55 * dusted
        albedo: Floats = soil * (1 - cover)[:, None] + stone * cover[:, None]
        return albedo

    # The sky

    def _sky(self, azimuth: Floats, elevation: Floats) -> Floats:
        up = np.clip(elevation, 0, None)[:, None]
        rise = (1 - np.exp(-up / 11.0))[..., None]
        sky = HORIZON * (1 - rise) + ZENITH * rise
        away = self._from_sun(azimuth[None, :], elevation[:, None])[..., None]
        sky = sky * (0.78 + 0.34 * np.exp(-away / 38.0))
        sky = sky + HALO * 0.55 * np.exp(-away / 8.5) + GLARE * 0.75 * np.exp(-away / 2.2)
        band = 0.016 * self._noise(azimuth[None, :] * 9 + elevation[:, None] * 0.05, elevation[:, None] * 0.9, 1.0)
        sky = sky * (1 + band)[..., None]
        return np.asarray(sky + GLARE * (1.4 * (1 - _smooth(SUN_RADIUS * 0.8, SUN_RADIUS * 1.2, away))), np.float32)

    def _haze(self, azimuth: Floats) -> Floats:
        """The color of much air: that of the sky above the horizon."""
        haze: Floats = self._sky(azimuth, np.array([1.2], np.float32))[0] * 0.94
        return haze

    def _from_sun(self, azimuth: Floats, elevation: Floats) -> Floats:
        up, sun_up = np.radians(elevation), np.radians(np.float32(SUN_ELEVATION))
        turned = azimuth - np.radians(np.float32(SUN_AZIMUTH))
        cosine = np.sin(up) * np.sin(sun_up) + np.cos(up) * np.cos(sun_up) * np.cos(turned)
        return np.asarray(np.degrees(np.arccos(np.clip(cosine, -1, 1))), np.float32)


def _add(height: Floats, weight: Floats, bumps: Callable[[Floats, Floats], Floats], x: Floats, y: Floats) -> None:
    """Add bumps where their weight is not 0."""
    there = weight > 0
    height[there] += weight[there] * bumps(x[there], y[there])


def _fading(far: Floats, length: float) -> Floats:
    """Return 1 where a pixel is much smaller than a length, and 0 where it is larger."""
    return 1 - _smooth(0.12, 0.7, far * np.float32(np.radians(1 / PER_DEGREE) / length))


def _developed(light: Floats) -> Floats:
    """Return light as a camera develops it: brighter shadows, and highlights that do not clip at once."""
    light = np.clip(light, 0, None)
    curved = light * (1 + light * np.float32(0.12)) / (1 + light * np.float32(0.36))
    return np.asarray(curved * np.float32(1.22), np.float32) ** np.float32(0.86)


# The rover


def _draw_deck(picture: Image.Image, start: int) -> None:
    """Draw the edge of the rover's deck into the foreground: cells of its array, a rail, and a sundial."""
    scale = 2
    left, top = WIDTH // 2 - 1_350, HEIGHT - 260
    layer = Image.new("RGBA", (2_700 * scale, 260 * scale))
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
    deck = layer.resize((2_700, 260), Image.Resampling.LANCZOS)
    picture.paste(_lit(deck), (left - start, top), deck)


def _lit(deck: Image.Image) -> Image.Image:
    """Let the light of the sun, on the right, and some dust fall on the deck."""
    colors = np.asarray(deck.convert("RGB"), np.float32) / 255
    across = np.linspace(0, 1, colors.shape[1], dtype=np.float32)[None, :, None]
    down = np.linspace(1, 0, colors.shape[0], dtype=np.float32)[:, None, None]
    dust = np.random.default_rng(SEED).standard_normal(colors.shape[:2]).astype(np.float32)[..., None]
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

"""The ground of the panorama: a height field of hills, dunes, ripples and tracks, with rocks on it.

Places are metres east (`x`) and north (`y`) of the rover. Functions also take how far away (`far`) each place is, and
leave out what is too small to be seen there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float32]

PER_DEGREE = 30.0
"""Pixels to a degree, both ways."""

ROLLING = ((520.0, 5.0, 60.0), (170.0, 2.2, 25.0), (52.0, 0.75, 8.0), (17.0, 0.26, 0.0), (5.3, 0.085, 0.0))
"""Bumps of the ground: how long they are, how high, and where they begin, so that the rover stands on level ground."""

FINE = ((1.7, 0.026), (0.5, 0.008), (0.17, 0.0042), (0.06, 0.0031), (0.021, 0.0015))

_CELLS = 256
"""The cells of a plan of rocks, each way: a power of two."""


def rgb(red: float, green: float, blue: float) -> Floats:
    return np.array([red, green, blue], np.float32)


DUST, SAND, BASALT = rgb(0.66, 0.45, 0.30), rgb(0.43, 0.285, 0.20), rgb(0.33, 0.245, 0.205)


@dataclass(frozen=True)
class Rocks:
    """Rocks of one size: at most one in each cell of a grid, and wholly inside it."""

    cell: float
    share: float
    smallest: float
    largest: float


class Terrain:
    """The ground and its rocks, all from some random numbers."""

    LAYERS = (
        Rocks(0.10, 0.58, 0.006, 0.027),
        Rocks(0.37, 0.34, 0.02, 0.08),
        Rocks(1.3, 0.26, 0.06, 0.24),
        Rocks(5.5, 0.22, 0.22, 0.75),
    )

    def __init__(self, random: np.random.Generator) -> None:
        self._lattice = random.random(512 * 512, np.float32)
        self._plans = [self._plan(rocks, random) for rocks in self.LAYERS]

    def noise(self, x: Floats, y: Floats, length: float) -> Floats:
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

    def land(self, x: Floats, y: Floats, far: Floats, *, fine: bool = True) -> Floats:
        """Return the height without rocks. Small bumps fade out where a pixel would cover several of them.

        The finest bumps only catch light. They are too low to hide anything.
        """
        height = self.tracks(x, y, far)[0]
        height += 26.0 * self.noise(x, y, 2_600) * smooth(250, 3_000, far)
        for length, rise, start in ROLLING:
            height += self._bumps(x, y, length, rise) * smooth(start, 4 * start + 6, far)
        for length, rise in FINE if fine else ():
            _add(height, _fading(far, length), partial(self._bumps, length=length, rise=rise), x, y)
        _add(height, smooth(4_500, 14_000, far), self._hills, x, y)
        _add(height, _fading(far, 0.85), self._ripples, x, y)
        return height

    def _bumps(self, x: Floats, y: Floats, length: float, rise: float) -> Floats:
        # Shifted, so that the bumps of all lengths do not begin at one point.
        return rise * self.noise(x + 31 * length, y - 17 * length, length)

    def _hills(self, x: Floats, y: Floats) -> Floats:
        """A rim of hills and table mountains on the horizon."""
        ridge = 1 - np.abs(self.noise(x, y, 7_000))
        ridge = ridge * ridge * (0.6 + 0.4 * self.noise(x, y, 21_000))
        rough = 0.16 * self.noise(x, y, 1_100) + 0.07 * self.noise(x, y, 380) + 0.03 * self.noise(x, y, 120)
        table = smooth(0.18, 0.34, self.noise(x + 9_000, y, 4_300) + 0.5 * rough)
        hills: Floats = 620 * ridge * (1 + rough) + 90 * rough + 190 * table * (1 + 0.25 * rough)
        return hills

    def _ripples(self, x: Floats, y: Floats) -> Floats:
        """Ripples of sand, in patches."""
        patch = smooth(0.02, 0.5, self.noise(x + 400, y - 900, 23))
        bent = x * 0.93 + y * 0.36 + 0.55 * self.noise(x, y, 3.1) + 0.25 * self.noise(x, y, 1.1)
        crest: Floats = 1 - np.abs(np.sin(bent * (np.pi / 0.85)))
        crest *= 0.06 * patch * crest
        return crest

    def tracks(self, x: Floats, y: Floats, far: Floats) -> tuple[Floats, Floats]:
        """The tracks of the wheels, from the rover into the distance: their depth, and how much they darken."""
        turn = np.radians(-38.0)
        along = x * np.sin(turn) + y * np.cos(turn)
        across = x * np.cos(turn) - y * np.sin(turn)
        across = across - 2.6 * np.sin(along / 15.0) * smooth(4, 40, along) - 16 * smooth(50, 160, along)
        inside = np.abs(np.abs(across) - np.float32(0.56))
        there = smooth(1.0, 2.5, along) * (1 - smooth(350, 900, along))
        floor = (1 - smooth(0.085, 0.12, inside)) * there
        crumbled = 0.55 + 0.6 * self.noise(x, y, 0.21)
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
        dense = np.clip(0.8 + 1.1 * self.noise(column, row, 8), 0.1, 1.7)
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
        jagged = 0.30 * self.noise(u * 1.3 + 90 * tone, v * 1.3, 1.0) + 0.13 * self.noise(u, v - 70 * tone, 0.27)
        # Flat faces at slants: the farthest of some planes is nearer to broken stone than a sphere is.
        turned = tone * 6.0
        slant = np.cos(turned), np.sin(turned)
        a, b = u * slant[0] + v * slant[1], v * slant[0] - u * slant[1]
        faces = np.maximum(np.maximum(np.abs(a + 0.35 * b), np.abs(b - 0.4 * a)), 0.9 * np.abs(a - 0.8 * b))
        shape = np.clip(1 - (0.5 * np.sqrt(u * u + v * v) + 0.5 * faces + jagged), 0, 1)
        profile = np.minimum(np.sqrt(shape) * 1.3, 0.85 + 0.35 * shape)
        profile -= 0.05 * np.abs(self.noise(u + 30 * tone, v + 11, 0.16))
        return tall * np.clip(profile - 0.16, 0, None), shape

    def stones(self, x: Floats, y: Floats, far: Floats) -> Floats:
        """Return how far rocks rise."""
        height = np.zeros_like(x)
        for layer in range(len(self.LAYERS)):
            found, (away_x, away_y, *traits) = self._near_rocks(layer, x, y, far)
            rise, _ = self._rise(layer, away_x, away_y, traits)
            height[found] = np.maximum(height[found], rise)
        return height

    def lit_stones(self, x: Floats, y: Floats, far: Floats, near: Floats) -> tuple[Floats, ...]:
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
            cover[found] = np.maximum(cover[found], smooth(0.015, 0.03, shape))
        return height, east, north, cover, tones

    def shade(self, x: Floats, y: Floats, far: Floats, to_sun: tuple[float, float], slope: float) -> Floats:
        """Return how much sunlight rocks let through to the ground beside them.

        `to_sun` is the way to the sun on the map, east and north, and `slope` how far its light comes down on a metre.
        """
        east, north = to_sun
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
                length = radius + 0.8 * tall / np.float32(slope)
                part = np.clip(behind / length, 0, 1)
                edge = 0.86 * radius * np.sqrt(1 - part * part)
                soft = 0.004 + 0.12 * part * radius
                dark = np.clip((edge - beside) / soft + 0.5, 0, 1) * (behind > -0.2 * radius) * (part < 1)
                dark *= _fading(far[found], 1.2 * rocks.largest)
                light[found] = np.minimum(light[found], 1 - dark)
        return light

    def albedo(self, x: Floats, y: Floats, far: Floats, cover: Floats, tone: Floats) -> Floats:
        """Return the colors that places have in white light. `cover` is how much of each is rock, of a tone."""
        patches = 0.5 * self.noise(x, y, 61) + 0.35 * self.noise(x, y, 13) + 0.25 * self.noise(x, y, 2.9)
        patches += 0.5 * self.noise(x, y, 900) * smooth(150, 1_200, far)
        fine = self.noise(x, y, 0.11) * _fading(far, 0.11) + self.noise(x, y, 0.035) * _fading(far, 0.04)
        dusty = smooth(-0.55, 0.6, patches)[:, None]
        soil = (SAND * (1 - dusty) + DUST * dusty) * (1 + 0.17 * fine)[:, None]
        soil = soil * (1 - 0.34 * self.tracks(x, y, far)[1])[:, None]
        grained = 1 + 0.16 * self.noise(x, y, 0.07) * _fading(far, 0.1)
        bare = BASALT * ((0.72 + 0.75 * tone) * grained)[:, None]
        dusted = np.clip(0.30 + 0.5 * tone + 0.5 * patches, 0.1, 0.8)[:, None]
        stone = bare * (1 - 0.55 * dusted) + DUST * 0.55 * dusted
        albedo: Floats = soil * (1 - cover)[:, None] + stone * cover[:, None]
        return albedo


def smooth(low: float, high: float, value: Floats) -> Floats:
    part: Floats = np.clip((value - low) / (high - low), 0.0, 1.0)
    return part * part * (3.0 - 2.0 * part)


def _add(height: Floats, weight: Floats, bumps: Callable[[Floats, Floats], Floats], x: Floats, y: Floats) -> None:
    """Add bumps where their weight is not 0."""
    there = weight > 0
    height[there] += weight[there] * bumps(x[there], y[there])


def _fading(far: Floats, length: float) -> Floats:
    """Return 1 where a pixel is much smaller than a length, and 0 where it is larger."""
    return 1 - smooth(0.12, 0.7, far * np.float32(np.radians(1 / PER_DEGREE) / length))

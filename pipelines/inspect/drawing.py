"""Draws what is no picture itself: features as colors, voxels as cubes, and contact sheets of frames over time.

Pictures are (row, column, 3) uint8; a list over time is (t, row, column, 3). World space is z up, the front at -y.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Picture = NDArray[np.uint8]
Floats = NDArray[np.float32]

FIT_ROWS = 16384  # more rows do not change the first components visibly
DARKEST, BRIGHTEST = 2.0, 98.0  # percentiles of a component that are shown as 0 and 1
TOP, FRONT, SIDE = 1.0, 0.78, 0.56  # light on the three faces of a voxel that are seen
PAPER = (250, 250, 250)
INK = (60, 60, 60)
EDGE = (255, 64, 160)  # color of a mask's outline
CURVE, EARLIER = (40, 110, 190), (160, 160, 160)  # of what holds, and of what was before it
GAP, TITLE_HEIGHT, TIME_HEIGHT = 6, 22, 16


class PrincipalColors:
    """Turns features (n, c) into colors by their first three principal components; equal features get equal colors.

    Args:
        feats: the rows to fit, of all frames, so that a color means the same over time.
    """

    def __init__(self, feats: Floats) -> None:
        rows = feats[:: max(1, -(-len(feats) // FIT_ROWS))].astype(np.float64)
        self._mean = rows.mean(0) if len(rows) else np.zeros(feats.shape[1])
        centered = rows - self._mean
        _, vectors = np.linalg.eigh(centered.T @ centered)
        components = vectors[:, ::-1][:, :3]
        # An eigenvector's sign is arbitrary; its largest entry is made positive, so that runs can be compared.
        largest = components[np.abs(components).argmax(0), np.arange(components.shape[1])]
        self._components = components * np.where(largest < 0, -1, 1)
        projected = centered @ self._components
        low, high = np.percentile(projected, [DARKEST, BRIGHTEST], axis=0) if len(rows) else (0.0, 1.0)
        self._low, self._range = low, np.maximum(high - low, 1e-12)

    def __call__(self, feats: Floats) -> Floats:
        """Colors (n, 3), 0 to 1, of features (n, c)."""
        shades = ((feats - self._mean) @ self._components - self._low) / self._range
        colors = np.full((len(feats), 3), 0.5, np.float32)
        colors[:, : shades.shape[1]] = shades.clip(0, 1)  # fewer than three channels leave gray
        return colors


def height_colors(cells: NDArray[np.int32], resolution: int) -> Floats:
    """Colors (n, 3) of voxels (n, 3) that tell their height, from blue below to yellow on top."""
    stops = np.array([[0.23, 0.32, 0.62], [0.18, 0.58, 0.62], [0.55, 0.76, 0.42], [0.98, 0.83, 0.35]])
    place = cells[:, 2] / max(resolution - 1, 1) * (len(stops) - 1)
    return np.stack([np.interp(place, range(len(stops)), stops[:, k]) for k in range(3)], axis=-1).astype(np.float32)


def draw_voxels(cells: NDArray[np.int32], colors: Floats, resolution: int, size: int) -> Picture:
    """Cubes seen from above the front right corner, without perspective: x goes right and down, y right and up.

    Args:
        cells: occupied cells (n, 3) = (x, y, z) of a grid of `resolution` cells along each axis.
        colors: (n, 3), 0 to 1.
        resolution: cells along each axis.
        size: least side of the picture in pixels; it becomes a multiple of the grid's.
    """
    unit = max(1, -(-size // (4 * resolution)))  # half the height of a face on top
    side = 4 * unit * resolution
    canvas = np.full((side, side, 3), PAPER, np.uint8)
    depth = np.full((side, side), -1, np.int32)
    order = np.argsort(cells @ np.array([1, -1, 1]), kind="stable")  # nearest last
    x, y, z = cells[order].T.astype(np.int64)
    near = (x - y + z + resolution).astype(np.int32)
    left, top = 2 * unit * (x + y), unit * (x - y - 2 * z + 3 * resolution - 3)
    # Cells that differ a little in brightness can be told apart without lines between them.
    painted = colors[order] * (1 - 0.07 * ((x + y + z) % 2))[:, None]
    for row, column, light in _cube(unit):
        rows, columns = top + row, left + column
        seen = near > depth[rows, columns]
        rows, columns = rows[seen], columns[seen]
        # Of several cells on one pixel, the last one is kept.
        canvas[rows, columns] = (painted[seen] * light * 255).astype(np.uint8)
        depth[rows, columns] = near[seen]
    return canvas


def _cube(unit: int) -> list[tuple[int, int, float]]:
    """The pixels (row, column) of one cube, 4 units wide and high, with the light on each."""
    pixels = []
    for column in range(4 * unit):
        slope = unit - abs(column + 0.5 - 2 * unit) / 2  # half the height of the upper face here
        upper = (unit - slope, unit + slope)
        for row in range(4 * unit):
            if upper[0] <= row + 0.5 < upper[1]:
                pixels.append((row, column, TOP))
            elif upper[1] <= row + 0.5 < upper[1] + 2 * unit:
                pixels.append((row, column, FRONT if column < 2 * unit else SIDE))
    return pixels


def outline(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The pixels just inside the edge of a mask (row, column), two wide."""
    padded = np.pad(mask, 2)
    inner = mask.copy()
    height, width = mask.shape
    for row, column in ((0, 2), (4, 2), (2, 0), (2, 4), (1, 1), (1, 3), (3, 1), (3, 3)):
        inner &= padded[row : row + height, column : column + width]
    return mask & ~inner


def outlined(pictures: Picture, masks: NDArray[np.bool_]) -> Picture:
    """Pictures (t, row, column, 3) with the outlines of masks (t, row, column) drawn over them."""
    edges = np.stack([outline(mask) for mask in masks])
    return np.where(edges[..., None], np.array(EDGE, np.uint8), pictures)


def resized(pictures: Picture, size: int) -> Picture:
    """Pictures (t, row, column, 3) with sides of `size` pixels; cells are kept sharp when they grow."""
    grows = size > pictures.shape[1]
    filter_ = Image.Resampling.NEAREST if grows else Image.Resampling.BOX
    return np.stack([np.asarray(Image.fromarray(picture).resize((size, size), filter_)) for picture in pictures])


def evenly(num_frames: int, at_most: int) -> list[int]:
    """Indices of frames spread evenly over a clip, the first and the last among them."""
    count = min(num_frames, at_most)
    return sorted({round(k * (num_frames - 1) / max(count - 1, 1)) for k in range(count)})


def draw_curves(curves: Sequence[Floats], size: int, highest: float | None = None) -> Picture:
    """Curves from left to right, the last one on top and in `CURVE`, those before it in `EARLIER`.

    Args:
        curves: numbers from 0.
        size: sides of the picture in pixels.
        highest: the number at the top; None for the largest of all.
    """
    picture = Image.new("RGB", (size, size), PAPER)
    draw = ImageDraw.Draw(picture)
    draw.line([(GAP, GAP), (GAP, size - GAP), (size - GAP, size - GAP)], fill=INK)
    span = size - 2 * GAP
    if highest is None:
        highest = max((float(values.max()) for values in curves if len(values)), default=1.0)
    for number, values in enumerate(curves, start=1):
        points = [
            (GAP + span * step / max(len(values) - 1, 1), size - GAP - span * float(value) / max(highest, 1e-12))
            for step, value in enumerate(values)
        ]
        if len(points) > 1:
            draw.line(points, fill=CURVE if number == len(curves) else EARLIER, width=2)
    return np.asarray(picture)


@dataclass(frozen=True)
class Strip:
    """A film strip: a title, how to read it, and pictures (t, row, column, 3) of the frames `times`."""

    title: str
    caption: str
    times: Sequence[int]
    pictures: Picture


def contact_sheet(strips: Sequence[Strip], size: int) -> Image.Image:
    """The strips below each other, each with its title, time from left to right."""
    columns = max(len(strip.times) for strip in strips)
    height = TITLE_HEIGHT + size + GAP
    sheet = Image.new("RGB", (columns * (size + GAP) + GAP, len(strips) * height + TIME_HEIGHT), PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(13)
    for number, strip in enumerate(strips):
        draw.text((GAP, number * height + 3), f"{strip.title}: {strip.caption}", fill=INK, font=font)
        for column, picture in enumerate(resized(strip.pictures, size)):
            place = (GAP + column * (size + GAP), number * height + TITLE_HEIGHT)
            sheet.paste(Image.fromarray(picture), place)
    for column, time in enumerate(strips[0].times):
        draw.text((GAP + column * (size + GAP), len(strips) * height), f"frame {time}", fill=INK, font=font)
    return sheet

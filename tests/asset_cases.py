"""Says of each animated asset in a folder with `cases.json` whether its import gives what is right; see `cases.py`.

A case is an entry of that list: `file`, and in `expect` what is right, in words. Of the words those are understood that
RULES knows; a case of which nothing is understood fails, and so does one that is refused where no word allows it.
"""

import json
import logging
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ss4d.pipelines.training.make_records import Sizes, import_records
from ss4d.pipelines.training.records import Records, Row, open_records
from ss4d.stages.data.clip import TrainingClip
from ss4d.stages.data.gltf import load_animated
from ss4d.stages.data.mesh import AnimatedMesh
from ss4d.stages.data.render import UNLIT, render
from ss4d.stages.ops.geometry import FRONT_YAW, orbit_camera
from ss4d.stages.types import silent

Check = tuple[str, bool]
Numbers = np.ndarray[Any, Any]
SIZES = Sizes(frames=16, size=48, views=1, resolution=24)
REFUSAL = re.compile(r"refused|sentence|invalid", re.IGNORECASE)
COLORS = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1), "yellow": (1, 1, 0)}


@dataclass
class AssetCase:
    """One file and what importing it gives."""

    path: Path
    expect: str
    row: Row
    said: str
    records: Records | None

    @cached_property
    def mesh(self) -> AnimatedMesh:
        return load_animated(self.path, SIZES.frames, 12.0)

    @cached_property
    def clip(self) -> TrainingClip:
        assert self.records is not None
        return self.records.read(self.records.ids.index(self.row.id))

    @property
    def feats(self) -> Numbers:
        return self.clip.feats.numpy()

    @property
    def coords(self) -> Numbers:
        return self.clip.coords.numpy()

    @cached_property
    def front(self) -> Numbers:
        """The first frame from the front, (h, w, 4), cut to what is seen."""
        picture = render(self.mesh, [orbit_camera(FRONT_YAW, 0.0, size=128)], UNLIT)[0, 0]
        rows, columns = (np.flatnonzero((picture[..., 3] == 255).any(axis)) for axis in (1, 0))
        return picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def close(colors: Numbers, wanted: tuple[float, ...], within: float = 0.1) -> bool:
    return bool((np.abs(colors - np.asarray(wanted)) < within).all())


def like(name: str, colors: Numbers) -> bool:
    """Whether colors (n, 3) are of the kind with this name."""
    on = np.asarray(COLORS[name], bool)
    return bool((colors[:, on].min(1, initial=1) > colors[:, ~on].max(1, initial=0) + 0.2).all())


def moves(case: AssetCase, _: Any) -> Check:
    return f"motion {case.row.motion:.3f}", (case.row.motion or 0) > 0.01


def stands_still(case: AssetCase, _: Any) -> Check:
    return f"motion {case.row.motion:.3f}, still: {case.row.still}", case.row.still is True


def is_told(case: AssetCase, _: Any) -> Check:
    return f"said: {case.said or 'nothing'}", "stands still" in case.said


def both_move(case: AssetCase, _: Any) -> Check:
    """Whether what has one color moves, and what has another."""
    kinds, which = np.unique(case.mesh.colors.round(2), axis=0, return_inverse=True)
    ways = [float(np.ptp(case.mesh.vertices[:, which.ravel() == k].mean(1), axis=0).max()) for k in range(len(kinds))]
    return f"ways {np.round(ways, 3).tolist()}", len(ways) > 1 and min(ways) > 0.05


def outward(case: AssetCase, _: Any) -> Check:
    places = (case.coords[:, 2:] + 0.5) / SIZES.resolution - 0.5
    least = float((places * case.feats[:, 3:6]).sum(1).min())
    return f"least normal . position {least:.3f}", least > 0


def normals_of_a_sphere(case: AssetCase, found: "re.Match[str]") -> Check:
    places = (case.coords[:, 2:] + 0.5 + case.feats[:, 6:]) / SIZES.resolution - 0.5
    cosines = (places * case.feats[:, 3:6]).sum(1) / np.linalg.norm(places, axis=1)
    off = float(np.degrees(np.arccos(cosines.clip(-1, 1))).max())
    return f"off by {off:.1f} degrees", off <= float(found[1])


def disc(case: AssetCase, found: "re.Match[str]") -> Check:
    side = 64 / 40 * max(np.ptp(case.mesh.vertices[0], axis=0))  # the disc is 40 of 64 pixels wide
    corners = case.mesh.vertices[0][case.mesh.faces].astype(np.float64)
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=-1).sum() / 2
    return f"area {area / side**2:.3f}", bool(abs(area / side**2 - float(found[1])) < 0.02)


def sphere(case: AssetCase, _: Any) -> Check:
    points = case.mesh.vertices[0][np.unique(case.mesh.faces)]
    reach = np.linalg.norm(points - (points.min(0) + points.max(0)) / 2, axis=1)
    return f"radii {reach.min():.3f} to {reach.max():.3f}", bool(reach.min() > 0.9 * reach.max() > 0)


def no_spikes(case: AssetCase, _: Any) -> Check:
    fills = [float(np.ptp(frame, axis=0).max()) for frame in case.mesh.vertices]
    points = case.mesh.vertices[0][np.unique(case.mesh.faces)]
    reach = np.linalg.norm(points - np.median(points, axis=0), axis=1)
    return f"reach {reach.max() / np.median(reach):.2f}, {max(fills):.2f}", bool(reach.max() < 1.5 * np.median(reach))


def one_side(case: AssetCase, _: Any) -> Check:
    normals = case.mesh.normals()[0]
    return f"{len(case.mesh.faces)} faces", len(case.mesh.faces) == 2 and bool((normals[:, 1] < -0.99).all())


def quadrants(case: AssetCase, found: "re.Match[str]") -> Check:
    names = found.groups() if any(found.groups()) else ("red", "green", "blue", "yellow")
    height, width = case.front.shape[:2]
    places = [(row, column) for row in (1, 3) for column in (1, 3)]
    middles = [(row * height // 4, column * width // 4) for row, column in places]
    seen = [case.front[row - 4 : row + 4, column - 4 : column + 4, :3].reshape(-1, 3) / 255 for row, column in middles]
    return f"{[block.mean(0).round(1).tolist() for block in seen]}", all(map(like, names, seen))


def ramp(case: AssetCase, found: "re.Match[str]") -> Check:
    mean = float(case.mesh.colors.mean())
    row = case.front[len(case.front) // 2, 4:-4, 0].astype(int)
    return f"mean {mean:.3f}", bool(abs(mean - float(found[1])) < 0.02 and (np.diff(row) >= 0).all())


def color(case: AssetCase, found: "re.Match[str]") -> Check:
    wanted = tuple(int(value) / 255 for value in found.groups())
    return f"color {case.mesh.colors.mean(0).round(3).tolist()}", close(case.mesh.colors, wanted, 0.02)


def named_color(case: AssetCase, found: "re.Match[str]") -> Check:
    return f"color {case.mesh.colors.mean(0).round(2).tolist()}", like(found[1], case.mesh.colors)


def fills(case: AssetCase, _: Any) -> Check:
    extent = np.ptp(case.mesh.vertices, axis=(0, 1))
    return f"extent {extent.round(2).tolist()}", bool(extent.max() > 0.7)


def warned_of_its_way(case: AssetCase, _: Any) -> Check:
    return f"said: {case.said}", (case.row.fill or 1) > 0.25 or "--root-motion" in case.said


def some_move(case: AssetCase, found: "re.Match[str]") -> Check:
    count = int((np.ptp(case.mesh.vertices[:, np.unique(case.mesh.faces)], axis=0).max(-1) > 0.05).sum())
    return f"{count} vertices move", count >= int(found[1])


def imported(case: AssetCase, _: Any) -> Check:
    return f"{case.row.voxels} voxels", case.row.error is None and case.row.voxels > 0


RULES: dict[str, Callable[[AssetCase, Any], Check]] = {
    r"both spheres rise": both_move,
    r"^moves|shows the motion|ball moves|sphere that turns": moves,
    r"stands still in|standing still": stands_still,
    r"told that nothing moves": is_told,
    r"outward in every voxel": outward,
    r"within (\d+) degrees": normals_of_a_sphere,
    r"disc, area \S+=([\d.]+) of the card": disc,
    r"^a sphere(?! that)|the sphere is imported|red sphere": sphere,
    r"spikes": no_spikes,
    r"2 triangles, all facing \+z": one_side,
    r"quadrants (\w+) (\w+) / (\w+) (\w+)|each quadrant": quadrants,
    r"four colours": quadrants,
    r"ramp black to white \(mean about ([\d.]+)\)": ramp,
    r"\((\d+),(\d+),(\d+)\)": color,
    r"^(?:a |the )?(red|green|blue)(?: sphere| cube|$)": named_color,
    r"fills the cube|cube$": fills,
    r"or root motion taken out": warned_of_its_way,
    r"(\d+) vertices move": some_move,
    r"imported|shows$|dropped|drawn once|is fine": imported,
}


def checks(case: AssetCase) -> Iterator[Check]:
    if case.row.error is not None:
        names = re.findall(r"that names (\w+)", case.expect)
        allowed = REFUSAL.search(case.expect) is not None
        yield f"refused: {case.row.error}", allowed and all(name in case.row.error or name == "the" for name in names)
        return
    if re.match(r"refused with", case.expect):
        yield "not refused", False
    for pattern, rule in RULES.items():
        if found := re.search(pattern, case.expect):
            yield rule(case, found)


def run(folder: Path, names: list[str]) -> int:
    """Prints a row for each case; returns how many failed, at least 1 if there is none at all."""
    entries = [held for held in json.loads((folder / "cases.json").read_text()) if not names or held["file"] in names]
    files = [(folder / entry["file"]).resolve() for entry in entries]
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("ss4d.records").addHandler(handler)
    failed = 0
    with tempfile.TemporaryDirectory() as name:
        made = import_records(Path(name), files, seed=0, sizes=SIZES, workers=None, progress=silent).rows
        rows = {row.id: row for row in made}
        records = open_records(Path(name)) if any(row.key for row in made) else None
        for entry, file in zip(entries, files, strict=True):
            about = " ".join(line for line in said if str(file) in line)
            seen = list(_judged(AssetCase(file, entry["expect"], rows[str(file)], about, records)))
            right = bool(seen) and all(good for _, good in seen)
            failed += not right
            text = "; ".join(text if good else f"{text} (!)" for text, good in seen)
            text = (text or f"nothing of {entry['expect']!r} is understood").replace(f"{folder.resolve()}/", "")
            print(f"{'ok  ' if right else 'FAIL'} {entry['file']:36} {text}", flush=True)
    print(f"{len(entries) - failed} of {len(entries)} cases are right")
    return failed if entries else 1


def _judged(case: AssetCase) -> Iterator[Check]:
    try:
        yield from checks(case)
    except Exception as error:  # one broken case must not hide the others
        yield f"{type(error).__name__}: {error}", False

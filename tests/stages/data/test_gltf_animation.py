"""Which of a file's animations a clip shows, from when to when, and how much it moves."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ss4d.stages.data.gltf import load_asset, moving
from ss4d.stages.data.gltf_choice import AnimationChoice
from ss4d.stages.data.motion import fill, motion, moves
from ss4d.stages.errors import InputError
from tests.helpers.gltf_files import QUARTER, Builder, add_mesh, sphere, tetrahedron

ZERO = [0.0, 0, 0]


def rises(node: int, height: float, begin: float = 0.0, end: float = 1.0) -> tuple[int, str, Any, Any, str]:
    return (node, "translation", [begin, end], [ZERO, [0, height, 0]], "LINEAR")


def balls(count: int) -> Builder:
    """Balls of radius 1 beside each other, 10 apart, around the origin."""
    builder = Builder()
    points, faces = sphere(6)
    for number in range(count):
        add_mesh(builder, points + np.array([10 * number, 0, 0]), faces, points)
    return builder


def heights(path: Path, frames: int = 4, fps: float = 4.0, **choice: Any) -> np.ndarray[Any, Any]:
    """How far each ball of the file rises within the clip (t, ball), in the file's units: 10 from one to the next."""
    mesh = load_asset(path, frames, fps, choice=AnimationChoice(**choice)).mesh
    count = len(mesh.colors) // len(sphere(6)[0])
    middle = mesh.vertices.reshape(frames, count, -1, 3).mean(2)
    unit = np.ptp(middle[0, :, 0]) / (10 * (count - 1)) if count > 1 else np.ptp(mesh.vertices[0, :, 0]) / 2
    return (middle[..., 2] - middle[..., 2].min(0)) / unit


def test_animations_of_different_things_play_together(tmp_path: Path) -> None:
    builder = balls(2)
    builder.animate_also("one", rises(0, 4))
    builder.animate_also("other", rises(1, 2))
    path = builder.save(tmp_path / "a.glb")
    np.testing.assert_allclose(np.ptp(heights(path), axis=0), [3, 1.5], atol=1e-4)
    assert load_asset(path, 4, 4.0).play.names == ("one", "other")
    np.testing.assert_allclose(np.ptp(heights(path, animation="other"), axis=0), [0, 1.5], atol=1e-4)
    (way,) = moving(path, together=True)
    assert (way.animation, way.begin, way.end) == (None, 0, 1)


def test_of_those_that_move_the_same_the_one_that_moves_most_plays(tmp_path: Path) -> None:
    builder = balls(2)
    builder.animate_also("little", rises(0, 0.5))
    builder.animate_also("far", rises(0, 4))
    builder.animate_also("other", rises(1, 2))
    path = builder.save(tmp_path / "a.glb")
    assert load_asset(path, 4, 4.0).play.names == ("far", "other")
    np.testing.assert_allclose(np.ptp(heights(path), axis=0), [3, 1.5], atol=1e-4)
    assert [way.name for way in moving(path)] == ["little", "far", "other"]
    for name in ("little", 0, "0"):
        np.testing.assert_allclose(np.ptp(heights(path, animation=name), axis=0), [0.375, 0], atol=1e-4)
    for name in ("run", 3, "-1"):
        with pytest.raises(InputError, match=r"no animation .*; it has 0 \(little\), 1 \(far\), 2 \(other\)"):
            heights(path, animation=name)


def test_channels_that_change_nothing_are_no_motion(tmp_path: Path) -> None:
    builder = balls(2)
    still = (0, "scale", [0, 1], [[1, 1, 1], [1, 1, 1]], "LINEAR")
    builder.animate_also("one", rises(0, 4), (1, "translation", [0, 9], [ZERO, ZERO], "LINEAR"))
    builder.animate_also("other", rises(1, 2), still, (0, "translation", [0, 9], [ZERO, ZERO], "LINEAR"))
    path = builder.save(tmp_path / "a.glb")
    np.testing.assert_allclose(np.ptp(heights(path), axis=0), [3, 1.5], atol=1e-4)
    assert load_asset(path, 4, 4.0).play.end == 1


def test_what_moves_only_a_camera_keeps_nothing_from_moving(tmp_path: Path) -> None:
    builder = balls(2)
    builder.json["nodes"].append({"camera": 0})
    builder.json["scenes"][0]["nodes"].append(2)
    builder.animate_also("camera", (2, "translation", [0, 1], [ZERO, [0, 90, 0]], "LINEAR"))
    builder.animate_also("ball", rises(1, 2), (2, "translation", [0, 1], [ZERO, [0, 9, 0]], "LINEAR"))
    path = builder.save(tmp_path / "a.glb")
    np.testing.assert_allclose(np.ptp(heights(path), axis=0), [0, 1.5], atol=1e-4)
    assert [way.name for way in moving(path)] == ["ball"]


@pytest.mark.parametrize(
    ("keys", "values", "start"),
    [
        ([40.0, 41.0], [0, 4], 40.0),  # does not begin at 0
        ([0.0, 9.0, 10.0], [0, 0, 4], None),  # begins to move late
        ([0.0, 1.0, 2.0, 60.0], [0, 3, 4, 4], 0.0),  # and this one early: the first good moment
        ([0.0, 30.0, 30.2, 30.4, 90.0], [0, 0, 4, 0, 0], None),  # jumps once in a long time
    ],
)
def test_the_clip_begins_where_something_moves(
    tmp_path: Path, keys: list[float], values: list[float], start: float | None
) -> None:
    builder = balls(1)
    builder.animate((0, "translation", keys, [[0, value, 0] for value in values], "LINEAR"))
    path = builder.save(tmp_path / "a.glb")
    asset = load_asset(path, 16, 12.0)
    assert np.ptp(heights(path, 16, 12.0)) > 1.3
    assert motion(asset.mesh.vertices) > 0.2
    if start is not None:
        assert asset.play.start == start
    (way,) = moving(path)
    assert way.end - way.begin < 7


def test_a_time_that_is_asked_for_is_kept(tmp_path: Path) -> None:
    builder = balls(1)
    builder.animate(rises(0, 8, 2, 10))  # a unit a second
    path = builder.save(tmp_path / "a.glb")

    def rows(**choice: float) -> list[float]:
        found = heights(path, 4, 1.0, **choice)[:, 0]
        return [round(float(value), 3) for value in found]

    assert rows(begin=4.0) == [0, 1, 2, 3]
    assert rows(begin=4.0, end=6.0) == [0, 1, 0, 1]
    assert rows(begin=9.0) == [7, 0, 1, 2]  # after the end it begins anew
    assert rows(begin=0.0, end=3.5) == [0, 1, 0.5, 0]
    assert rows(end=4.0) == [0, 1, 0, 1]
    for choice in ({"begin": 10.0}, {"end": 1.0}, {"begin": 5.0, "end": 5.0}):
        with pytest.raises(InputError, match=r"moves from 2 to 10 s.*--from and --to"):
            rows(**choice)


def test_the_way_through_space_can_be_taken_out(tmp_path: Path) -> None:
    builder = balls(1)
    way = [[0, 0, 0], [30, 5, -20], [60, 8, -40]]  # up 8 in the end, with a jump of 1 between
    builder.animate((0, "translation", [0, 1, 2], way, "LINEAR"))
    path = builder.save(tmp_path / "a.glb")
    assert fill(load_asset(path, 5, 2.5).mesh.vertices) < 0.05
    mesh = load_asset(path, 3, 1.0, choice=AnimationChoice(end=1.9999, in_place=True)).mesh
    middle = mesh.vertices.mean(1) / np.ptp(mesh.vertices[0, :, 0]) * 2  # in radii
    np.testing.assert_allclose(np.ptp(middle[:, :2], axis=0), 0, atol=1e-4)
    still = load_asset(path, 2, 0.5001, choice=AnimationChoice(in_place=True)).mesh
    assert motion(still.vertices) < 1e-4
    assert fill(still.vertices) == pytest.approx(1, abs=1e-4)


def test_jumps_stay_where_the_way_is_taken_out(tmp_path: Path) -> None:
    builder = balls(1)
    builder.animate((0, "translation", [0, 1, 2, 3], [ZERO, [9, 3, 0], [18, 3, 0], [27, 0, 0]], "LINEAR"))
    mesh = load_asset(builder.save(tmp_path / "a.glb"), 3, 1.0, choice=AnimationChoice(in_place=True)).mesh
    middle = mesh.vertices.mean(1) / np.ptp(mesh.vertices[0, :, 0]) * 2
    np.testing.assert_allclose(middle[:, 2] - middle[0, 2], [0, 1.5, 0], atol=1e-3)  # 3 up, less half the 3 of the end
    np.testing.assert_allclose(middle[:, 0], middle[0, 0], atol=1e-3)


def test_a_node_with_a_matrix_that_is_animated_keeps_the_rest_of_it(tmp_path: Path) -> None:
    turn = np.array([[0, -2.0, 0, 5], [2, 0, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]])  # a quarter about z, twice as large
    placed = tetrahedron()
    placed.json["nodes"][0]["matrix"] = turn.T.ravel().tolist()
    moved = tetrahedron()
    moved.json["nodes"][0]["matrix"] = turn.T.ravel().tolist()
    moved.animate((0, "translation", [0, 1], [[5, 0, 0], [5, 0, 0]], "LINEAR"))
    parts = tetrahedron()
    parts.json["nodes"][0] |= {"translation": [5, 0, 0], "rotation": QUARTER, "scale": [2, 2, 2]}
    first, second, third = (
        load_asset(builder.save(tmp_path / f"{n}.glb"), 2, 2.0).mesh.vertices
        for n, builder in enumerate((placed, moved, parts))
    )
    np.testing.assert_allclose(first, third, atol=1e-6)
    np.testing.assert_allclose(second, third, atol=1e-6)


def test_times_that_are_no_times_are_named(tmp_path: Path) -> None:
    builder = balls(1)
    builder.animate((0, "translation", [1, 0], [[0, 4, 0], ZERO], "LINEAR"))  # the wrong way round
    np.testing.assert_allclose(heights(builder.save(tmp_path / "a.glb"))[:, 0], [0, 1, 2, 3], atol=1e-4)
    for keys, values in (([0, np.nan], [ZERO, ZERO]), ([0, 1, 2], [ZERO, ZERO]), ([0, 1], [ZERO, [0, np.inf, 0]])):
        builder.animate((0, "translation", keys, values, "LINEAR"))
        with pytest.raises(InputError, match=r"b.glb: animation 0, channel 0 has .* export it again"):
            load_asset(builder.save(tmp_path / "b.glb"), 2, 1.0)


def test_motion_is_a_share_of_the_size() -> None:
    points, _ = sphere(6)
    assert motion(np.tile(points, (3, 1, 1))) == pytest.approx(0, abs=1e-12)
    half = np.stack((points, points + np.array([2, 0, 0])))  # each point comes 1 from its middle, of a box 4 long
    assert motion(half) == pytest.approx(0.25, rel=1e-6)
    assert motion(half * 1e-4) == pytest.approx(0.25, rel=1e-6)
    assert fill(half) == pytest.approx(0.5)
    assert moves(half)
    small = np.tile(points, (2, 1, 1))
    small[1, 5] += 0.1  # one of many: it is seen, though the whole hardly moves
    assert motion(small) < 0.01
    assert moves(small)
    small[1, 5] -= 0.09
    assert not moves(small)
    assert not moves(points[None, :0])
    assert motion(points[None, :0]) == fill(points[None, :0]) == 0

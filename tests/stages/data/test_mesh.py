"""Parts are closed and face outwards, normals match a slow reference, and objects keep inside their bounds."""

from collections.abc import Callable

import numpy as np
import pytest

from ss4d.stages.data.families.table import FAMILIES
from ss4d.stages.data.mesh import AnimatedMesh, Doubles, Part, assemble, rotation
from ss4d.stages.data.objects import family_of, make_object
from ss4d.stages.data.paint import gradient, random_palette, random_pattern
from ss4d.stages.data.shapes import bend, cylinder, ellipsoid, limb, loft, revolve, swell, tube
from ss4d.stages.errors import InputError

SHARE = np.linspace(0, 1, 12)
SHAPES: dict[str, Callable[[], Part]] = {
    "ellipsoid": lambda: ellipsoid(1, 2, 3),
    "rounded box": lambda: ellipsoid(1, 2, 3, squareness=8),
    "drum": lambda: cylinder(1, 2),
    "cone": lambda: cylinder(1, 2, top=0.01),
    "flat drum": lambda: cylinder(2, 0.1),
    "shell": lambda: revolve([(0, 0.9), (0.8, 0), (1, 0), (0, 1)]),
    "moving tube": lambda: tube(bend(2, curl=[0, 60, 90]), 0.2),
    "limb": lambda: limb((0, 0, 0), (1, 2, -1), 0.3, 0.1),
    "sheet": lambda: loft(np.stack((0 * SHARE, SHARE, 0 * SHARE), -1), swell(SHARE), 0.05 + 0 * SHARE),
    "mirrored": lambda: limb((0, 0, 0), (1, 2, -1), 0.3).mirrored(),
    "turned": lambda: ellipsoid(1, 2, 3).turned("x", [0, 50, 200]).stretched(1, 2, 0.5).shifted(1, 0, [0, 1, 2]),
}


def volumes(part: Part) -> Doubles:
    corners = part.vertices[:, part.faces]
    return np.asarray(np.linalg.det(corners).sum(-1) / 6)


@pytest.mark.parametrize("name", SHAPES)
def test_parts_are_closed_and_face_outwards_in_every_frame(name: str) -> None:
    part = SHAPES[name]()
    directed = [(a, b) for face in part.faces.tolist() for a, b in zip(face, face[1:] + face[:1], strict=True)]
    assert len(set(directed)) == len(directed)
    assert all((b, a) in set(directed) for a, b in directed)
    assert (volumes(part) > 0).all()
    assert part.local.shape == part.colors.shape == (len(part.along), 3) == part.vertices.shape[1:]


def test_shapes_have_the_sizes_they_are_asked_for() -> None:
    assert volumes(ellipsoid(1, 2, 3, detail=96))[0] == pytest.approx(4 / 3 * np.pi * 6, rel=0.02)
    assert volumes(cylinder(1, 2, edge=0.001, segments=96))[0] == pytest.approx(2 * np.pi, rel=0.02)
    assert volumes(limb((0, 0, 0), (0, 3, 0), 0.5, segments=64))[0] == pytest.approx(np.pi * (0.75 + 1 / 6), rel=0.02)
    np.testing.assert_allclose(np.ptp(ellipsoid(1, 2, 3, squareness=6).vertices[0], axis=0), [2, 4, 6], rtol=0.02)
    lengths = np.linalg.norm(np.diff(bend(2, curl=[0, 90, 200]), axis=1), axis=-1).sum(1)
    np.testing.assert_allclose(lengths, 2)


def test_rotations_turn_counter_clockwise() -> None:
    np.testing.assert_allclose(rotation("x", 90)[0] @ [0, 1, 0], [0, 0, 1], atol=1e-12)
    np.testing.assert_allclose(rotation("y", 90)[0] @ [0, 0, 1], [1, 0, 0], atol=1e-12)
    np.testing.assert_allclose(rotation("z", [0, 90])[1] @ [1, 0, 0], [0, 1, 0], atol=1e-12)
    part = ellipsoid(1, 1, 1).shifted(x=2)
    np.testing.assert_allclose(part.turned("z", 180, (2, 0, 0)).vertices.mean((0, 1)), [2, 0, 0], atol=1e-9)


def test_normals_match_a_slow_reference() -> None:
    rng = np.random.default_rng(0)
    mesh = AnimatedMesh(
        rng.normal(size=(2, 9, 3)).astype(np.float32),
        rng.integers(0, 9, (14, 3)).astype(np.int32),
        np.ones((9, 3), np.float32),
    )
    expected = np.zeros((2, 9, 3))
    for t in range(2):
        for a, b, c in mesh.faces:
            points = mesh.vertices[t].astype(np.float64)
            for corner in (a, b, c):
                expected[t, corner] += np.cross(points[b] - points[a], points[c] - points[a])
    length = np.linalg.norm(expected, axis=-1, keepdims=True)
    np.testing.assert_allclose(mesh.normals(), expected / np.maximum(length, 1e-20), atol=1e-4)


def test_patterns_stick_to_the_part_and_stay_between_their_colors() -> None:
    rng = np.random.default_rng(1)
    for _ in range(40):
        palette = random_palette(rng, natural=0.5)
        pattern = random_pattern(rng, palette.main, palette.second, plain=0)
        part = ellipsoid(0.3, 0.2, 0.5)
        colors = part.painted(pattern).colors
        low, high = np.minimum(palette.main, palette.second), np.maximum(palette.main, palette.second)
        assert (colors >= low - 1e-9).all()
        assert (colors <= high + 1e-9).all()
        np.testing.assert_array_equal(part.turned("x", [0, 40]).shifted(z=3).painted(pattern).colors, colors)
    two = ellipsoid(1, 1, 1).painted(gradient(np.zeros(3), np.ones(3), width=0.01)).colors[:, 0]
    assert two[0] == 0
    assert two[-1] == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_objects_fill_the_cube_and_move_smoothly(family: str) -> None:
    looks = []
    for seed in range(30):
        mesh = make_object(family, seed, 6)
        assert mesh.vertices.dtype == mesh.colors.dtype == np.float32
        assert np.isfinite(mesh.vertices).all()
        assert mesh.colors.min() >= 0
        assert mesh.colors.max() <= 1
        assert mesh.faces.min() == 0
        assert mesh.faces.max() == mesh.vertices.shape[1] - 1
        reach, radius = np.abs(mesh.vertices).max(), np.linalg.norm(mesh.vertices, axis=-1).max()
        assert reach <= 0.4801
        assert radius <= 0.6601
        assert max(reach / 0.48, radius / 0.66) > 0.999
        steps = np.linalg.norm(np.diff(mesh.vertices, axis=0), axis=-1)
        assert steps.max() > 0.003, f"seed {seed} stands still"
        assert steps.max() < 0.45, f"seed {seed} jumps"
        looks.append((mesh.vertices.shape[1], float(mesh.vertices[0].std()), *mesh.colors.mean(0).tolist()))
    assert len(set(looks)) == 30


def test_an_object_is_a_function_of_its_family_and_seed() -> None:
    for seed in range(8):
        first, again = make_object(None, seed, 5), make_object(family_of(seed), seed, 5)
        for name in ("vertices", "faces", "colors"):
            np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert len({family_of(seed) for seed in range(200)}) == len(FAMILIES)
    with pytest.raises(InputError, match=r"unicorn.*quadruped"):
        make_object("unicorn", 0, 2)


def test_walkers_face_the_front() -> None:
    """The eyes, which are the only near-white and near-black vertices up there, lie toward -y."""
    for seed in range(10):
        mesh = make_object("walker", seed, 1)
        points = mesh.vertices[0]
        eyes = points[(mesh.colors.max(1) < 0.075) & (points[:, 2] > 0)]
        assert eyes[:, 1].mean() < points[points[:, 2] > 0][:, 1].mean()


def test_parts_of_one_frame_join_parts_that_move() -> None:
    mesh = assemble([ellipsoid(1, 1, 1), ellipsoid(0.2, 0.2, 0.2).shifted(x=[2, 3, 4])], 3)
    still = mesh.vertices[:, : len(ellipsoid(1, 1, 1).local)]
    np.testing.assert_array_equal(still[0], still[2])
    assert np.ptp(mesh.vertices[:, -1, 0]) > 0.1

"""One surface for all frames: it follows the clip, it slides little, and what changes its topology is refused."""

import logging

import numpy as np
import pytest

from ss4d.stages.meshing.elastic import ElasticSurface
from ss4d.stages.meshing.registration import register
from ss4d.stages.meshing.shell import Shell
from ss4d.stages.meshing.surface_points import gap, spread_points, unit_normals
from ss4d.stages.meshing.topology import MovedShell, key_frame, moved_shell
from tests.stages.meshing.shells import ball, pair, ring, shell_of, waved, waving

SWINGS = (0.12, 0.06, 0.0, -0.06, -0.12)


@pytest.fixture(scope="module")
def swimming() -> list[Shell]:
    return [waving(swing) for swing in SWINGS]


@pytest.fixture(scope="module")
def moved(swimming: list[Shell]) -> MovedShell:
    found = moved_shell(swimming)
    assert found is not None
    return found


def test_one_surface_follows_the_clip(swimming: list[Shell], moved: MovedShell) -> None:
    assert len({len(shell.vertices) for shell in swimming}) > 1, "each frame was found by itself"
    key = key_frame(swimming)
    assert np.array_equal(moved.faces, swimming[key].faces)
    assert np.array_equal(moved.vertices[key], swimming[key].vertices)
    for t, own in enumerate(swimming):
        apart = gap(moved.frame(t), own)
        assert moved.deviation[t] == pytest.approx(apart.chamfer, abs=1e-6)
        assert apart.chamfer < 0.0015
        assert apart.far < 0.01
    assert gap(swimming[0], swimming[1]).chamfer > 0.01, "there was a way to go"


def test_every_vertex_stays_near_its_place_on_the_object(swimming: list[Shell], moved: MovedShell) -> None:
    key = key_frame(swimming)
    rest = waved(swimming[key].vertices.astype(np.float64), -SWINGS[key])
    for t, swing in enumerate(SWINGS):
        slid = np.linalg.norm(moved.vertices[t] - waved(rest, swing), axis=1)
        assert slid.mean() < 0.02
        assert np.quantile(slid, 0.95) < 0.05


def test_no_triangle_turns_over(moved: MovedShell) -> None:
    for places in moved.vertices:
        corners = places[moved.faces]
        flat = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        along = (flat * unit_normals(places, moved.faces)[moved.faces].mean(axis=1)).sum(axis=1)
        assert (along < 0).mean() < 0.004


def test_a_clip_that_ends_as_it_began_ends_with_the_same_places(swimming: list[Shell]) -> None:
    there, back = swimming[:3][::-1], swimming[:3]
    places = register([*there, *back[1:]], 0)
    assert np.linalg.norm(places[2] - places[0], axis=1).mean() > 0.05
    assert np.linalg.norm(places[-1] - places[0], axis=1).mean() < 0.006


def test_the_same_frames_give_the_same_numbers_and_progress_is_told(swimming: list[Shell]) -> None:
    told: list[tuple[int, int]] = []
    first = register(swimming[:3], 1, progress=lambda *step: told.append(step))
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert np.array_equal(first, register(swimming[:3], 1))


@pytest.mark.parametrize(
    ("name", "shells"),
    [
        ("a ball that becomes two", [lambda p, d=d: pair(p, d) for d in (0.05, 0.1, 0.15, 0.22, 0.3)]),
        ("a hole that opens", [lambda p, r=r: ring(p, r) for r in (0.06, 0.1, 0.14, 0.2, 0.26)]),
    ],
)
def test_what_changes_its_topology_is_refused(name: str, shells: list, caplog: pytest.LogCaptureFixture) -> None:
    assert moved_shell([shell_of(distance) for distance in shells]) is None
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "changes its topology, and every frame keeps its own mesh" in record.getMessage()


def test_what_only_grows_or_moves_apart_is_not(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "ss4d")
    growing = [shell_of(lambda p, r=r: ball(p, radius=r)) for r in (0.15, 0.2, 0.27)]
    leaving = [shell_of(lambda p, d=d: pair(p, d)) for d in (0.2, 0.24, 0.28)]
    for shells in (growing, leaving):
        found = moved_shell(shells)
        assert found is not None
        assert max(found.deviation) < 0.002
    assert [record.levelname for record in caplog.records] == ["INFO", "INFO"]


def test_an_empty_frame_is_another_topology(swimming: list[Shell], caplog: pytest.LogCaptureFixture) -> None:
    assert moved_shell([swimming[0], None]) is None
    assert "frame 2 is empty" in caplog.text


def test_the_key_frame_is_like_most() -> None:
    usual = [shell_of(lambda p, r=r: ring(p, r)) for r in (0.2, 0.24, 0.28)]
    closed = shell_of(lambda p: ring(p, 0.06))
    assert key_frame([*usual, closed]) == 1
    assert key_frame([closed, *usual]) == 2


def test_a_surface_that_is_only_turned_resists_nothing(swimming: list[Shell]) -> None:
    rest = swimming[2]
    elastic = ElasticSurface(rest)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    turn *= np.sign(np.linalg.det(turn))
    turned = rest.vertices.astype(np.float64) @ turn.T + (0.1, 0.2, 0.3)
    rotations = elastic.rotations(turned)
    assert np.allclose(rotations, turn, atol=1e-6)
    assert np.allclose(elastic.laplacian @ turned, elastic.pull(rotations), atol=1e-6)
    assert not np.allclose(elastic.laplacian @ (turned * (1.2, 1, 1)), elastic.pull(rotations), atol=1e-3)


def test_the_gap_of_balls_within_each_other_is_their_radii_difference() -> None:
    small, large = (shell_of(lambda p, r=r: ball(p, radius=r), faces=4000) for r in (0.2, 0.25))
    apart = gap(small, large)
    assert apart.chamfer == pytest.approx(0.05, rel=0.01)
    assert apart.far == pytest.approx(0.05, rel=0.03)
    assert gap(small, small).far < 1e-6
    beside = Shell(small.vertices + np.float32([0.6, 0, 0]), small.faces)
    assert gap(small, beside).far > 0.55


def test_points_are_spread_evenly_over_a_surface(swimming: list[Shell]) -> None:
    shell = swimming[0]
    spots = spread_points(shell, 4000)
    corners = shell.vertices[shell.faces].astype(np.float64)
    areas = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    counts = np.zeros(len(shell.faces))
    rows = {tuple(face): row for row, face in enumerate(shell.faces.tolist())}
    for face in spots.faces.tolist():
        counts[rows[tuple(face)]] += 1
    assert abs(counts - 4000 * areas / areas.sum()).max() < 1.01
    assert np.allclose(spots.weights.sum(axis=1), 1)
    assert spots.weights.min() >= 0

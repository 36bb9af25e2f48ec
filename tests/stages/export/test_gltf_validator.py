"""Gaussians and meshes in glTF by the validator of glTF's makers, where it is installed.

npm install --global gltf-validator
"""

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ss4d.stages.export.formats import write_formats
from ss4d.stages.types import silent
from tests.stages.export.clips import lopsided, scene_of

NODE = shutil.which("node")
MODULES = Path(NODE or "/none/bin/node").parents[1] / "lib" / "node_modules"  # where npm puts global packages
WARNING = 1  # errors are 0, hints above
ASK = """
const validator = require(process.argv[1] + "/gltf-validator");
const data = new Uint8Array(require("fs").readFileSync(process.argv[2]));
validator.validateBytes(data, {maxIssues: 0}).then(report => console.log(JSON.stringify(report)));
"""


pytestmark = pytest.mark.skipif(
    not (MODULES / "gltf-validator").is_dir(), reason="gltf-validator is not installed: see this file's first lines"
)


def report_of(path: Path) -> dict[str, Any]:
    """What the validator says of a file."""
    assert NODE is not None
    command = [NODE, "-e", ASK, str(MODULES), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    report: dict[str, Any] = json.loads(done.stdout)
    return report


@pytest.mark.parametrize("counts", [(1, 1, 1), (1,)])
def test_it_finds_nothing_wrong_with_meshes(counts: tuple[int, ...], tmp_path: Path) -> None:
    """The third frame is empty."""
    write_formats(["glb"], scene_of(lopsided(*counts)), tmp_path, progress=silent)
    issues = report_of(tmp_path / "mesh.glb")["issues"]
    assert (issues["numErrors"], issues["numWarnings"]) == (0, 0), issues["messages"]


def test_it_finds_nothing_wrong_with_one_mesh_that_moves(tmp_path: Path) -> None:
    scene = scene_of(lopsided(1, 1))
    assert scene.meshes is not None
    moving = replace(scene, meshes=replace(scene.meshes, one_topology=True))
    write_formats(["glb"], moving, tmp_path, progress=silent)
    report = report_of(tmp_path / "mesh.glb")
    assert (report["issues"]["numErrors"], report["issues"]["numWarnings"]) == (0, 0), report["issues"]["messages"]
    assert report["info"]["hasMorphTargets"]


@pytest.mark.parametrize("counts", [(60, 0, 50), (20,), (0, 0)])
def test_it_finds_nothing_but_an_extension_that_it_does_not_know(counts: tuple[int, ...], tmp_path: Path) -> None:
    write_formats(["gaussian_glb"], scene_of(lopsided(*counts)), tmp_path, progress=silent)
    report = report_of(tmp_path / "gaussians.glb")
    told = messages(report)
    wrong = {
        message["pointer"].rpartition("/")[2].partition(":")[0] for message in told if message["severity"] <= WARNING
    }
    assert wrong == ({"KHR_gaussian_splatting"} if any(counts) else set()), "names of the extension's attributes"
    hints = {message["code"] for message in told if message["severity"] > WARNING}
    assert hints == {"UNSUPPORTED_EXTENSION", *(["NODE_EMPTY"] if 0 in counts else [])}
    assert report["info"]["extensionsUsed"] == ["KHR_gaussian_splatting"]
    assert report["info"]["animationCount"] == (len(counts) > 1)


def messages(report: dict[str, Any]) -> list[dict[str, Any]]:
    assert not report["issues"]["truncated"]
    return list(report["issues"]["messages"])


def named(pointer: str) -> str:
    """The extension of an attribute's name."""
    return pointer.rpartition("/")[2].partition(":")[0]

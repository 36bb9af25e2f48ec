"""Networks of others: fetched by their command alone, with what they are said before; runs only look for them."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ss4d.pipelines import downloads
from ss4d.pipelines.config import load_config
from ss4d.pipelines.downloads import PUBLISHED, download, downloaded, with_weights
from ss4d.stages.errors import ModelError
from ss4d.stages.model_folder import ModelFolder
from ss4d.stages.segmentation.config import Sam2Config
from tests.helpers.places import ROOT

if TYPE_CHECKING:
    from tests.helpers.fake_hub import FakeHub

pytest_plugins = ["tests.helpers.fake_hub"]

FOLDER = ModelFolder.open(ROOT / "configs" / "models" / "tiny")
WEIGHTS = b"weights" * 500


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_a_network_is_fetched_by_its_command_and_found_by_runs(name: str, fake_hub: "FakeHub") -> None:
    known = PUBLISHED[name]
    repository = fake_hub.new(known.repository, dict.fromkeys(known.files, WEIGHTS))
    assert downloaded(name) is None
    assert fake_hub.asked == []
    said: list[str] = []
    fetched_when_said: list[set[str]] = []

    def tell(text: str) -> None:
        said.append(text)
        fetched_when_said.append(fake_hub.fetched)

    path = download(name, tell)
    assert path.read_bytes() == WEIGHTS
    assert all((path.parents[known.files[-1].count("/")] / file).exists() for file in known.files)
    text = "\n".join(said)
    for word in (known.license, known.repository, repository.main, hashlib.sha256(WEIGHTS).hexdigest()):
        assert word in text
    assert fetched_when_said == [set()] * len(said)
    fake_hub.asked.clear()
    assert downloaded(name) == path
    assert fake_hub.asked == []


def test_a_run_says_how_to_get_what_is_missing(fake_hub: "FakeHub", monkeypatch: pytest.MonkeyPatch) -> None:
    fill_in = with_weights("sam2")
    with pytest.raises(ModelError, match=r"sam2 \(Apache-2.0\) are not on this machine: `ss4d download sam2` fetches"):
        fill_in(Sam2Config(point=(1, 2)), FOLDER)
    assert fill_in(Sam2Config(point=(1, 2), weights=Path("/mine")), FOLDER).weights == Path("/mine")
    monkeypatch.setattr(downloads, "find_spec", lambda _: None)
    with pytest.raises(ModelError, match=r"needs the package transformers: pip install '\.\[sam2\]' in"):
        fill_in(Sam2Config(point=(1, 2)), FOLDER)
    assert fake_hub.asked == []


def test_what_cannot_be_downloaded(fake_hub: "FakeHub") -> None:
    with pytest.raises(ModelError, match="choose birefnet or sam2"):
        download("u2net", print)
    with pytest.raises(ModelError, match="the hub has no repository onnx-community/BiRefNet-ONNX"):
        download("birefnet", print)
    fake_hub.new(PUBLISHED["sam2"].repository, {"model.safetensors": WEIGHTS})
    with pytest.raises(ModelError, match=r"has no config\.json or no model\.safetensors any more"):
        download("sam2", print)


def test_methods_are_chosen_by_name() -> None:
    config = load_config("tiny", ["segmentation.method=sam2", "segmentation.box=[1, 2, 30, 40]"])
    assert config.section("segmentation") == Sam2Config(box=(1, 2, 30, 40))

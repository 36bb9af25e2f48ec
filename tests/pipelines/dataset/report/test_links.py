"""Links among the pictures that a stranger's dataset brings: not written through, and not taken for pictures."""

from pathlib import Path

import pytest

from ss4d.pipelines.dataset.report.pictures import Picture, draw_pictures
from ss4d.stages.types import silent
from ss4d.storage.refs import ArtifactRef

PICTURE = Picture((ArtifactRef("export", "0" * 64),), "ab/picture.webp")


@pytest.mark.parametrize(
    ("link", "words"),
    [
        ("set/pictures", "through a link on the way"),
        ("set/pictures/ab", "through a link on the way"),
        ("set/pictures/ab/picture.webp", "is missing in"),  # so it is drawn, as if no picture were there
    ],
)
def test_a_link_is_no_picture(tmp_path: Path, link: str, words: str) -> None:
    secret = tmp_path / "secret"
    (secret / "ab").mkdir(parents=True)
    (secret / "ab" / "picture.webp").write_text("mine")
    (tmp_path / link).parent.mkdir(parents=True)
    (tmp_path / link).symlink_to(secret / link.removeprefix("set/pictures").lstrip("/"))
    problems = draw_pictures(
        [PICTURE], str(tmp_path / "store"), tmp_path / "set" / "pictures", workers=1, progress=silent
    )
    assert words in problems[PICTURE.name]
    assert (secret / "ab" / "picture.webp").read_text() == "mine"

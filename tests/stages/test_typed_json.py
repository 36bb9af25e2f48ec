"""Objects of JSON files: what an annotation wants is taken, anything else is refused by its name."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from ss4d.stages.errors import ModelError
from ss4d.stages.typed_json import Bounds, Lenient, read_json


@dataclass(frozen=True, kw_only=True)
class Part(Lenient):
    share: Annotated[float, Bounds(least=0, below=1)]


@dataclass(frozen=True, kw_only=True)
class Whole:
    name: str
    kind: Literal["a", "b"] = "a"
    count: Annotated[int, Bounds(least=1)] = 1
    width: int | None = 8
    scale: float = 1.0
    on: bool = False
    sizes: tuple[int, ...] = ()
    pair: tuple[float, float] = (0.0, 1.0)
    parts: dict[str, Part] = field(default_factory=dict)
    free: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.pair[0] > self.pair[1]:
            raise ValueError(f"pair must ascend, got {self.pair}")


def read(tmp_path: Path, content: object) -> Whole:
    (tmp_path / "x.json").write_text(json.dumps(content))
    return read_json(tmp_path / "x.json", Whole)


def test_every_kind_is_read(tmp_path: Path) -> None:
    given = {
        "name": "n",
        "kind": "b",
        "count": 3,
        "width": None,
        "scale": 2,
        "on": True,
        "sizes": [1, 2],
        "pair": [0, 0.5],
        "parts": {"p": {"share": 0, "more": []}},
        "free": {"x": [None, {"y": 1}]},
    }
    read_back = read(tmp_path, given)
    assert read_back == Whole(
        name="n",
        kind="b",
        count=3,
        width=None,
        scale=2.0,
        on=True,
        sizes=(1, 2),
        pair=(0.0, 0.5),
        parts={"p": Part(share=0.0)},
        free={"x": [None, {"y": 1}]},
    )
    assert (type(read_back.scale), type(read_back.pair[0]), type(read_back.parts["p"].share)) == (float,) * 3
    assert read(tmp_path, {"name": "n"}) == Whole(name="n")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"name": 3}, "option name must be a text; got 3"),
        ({"kind": "c"}, "option kind must be one of 'a', 'b'; got 'c'"),
        ({"kind": []}, r"option kind must be one of 'a', 'b'; got \[\]"),
        ({"count": 0}, "option count must be a whole number, at least 1; got 0"),
        ({"count": True}, "option count must be a whole number, at least 1; got True"),
        ({"count": 1.0}, "option count must be a whole number, at least 1; got 1.0"),
        ({"count": None}, "option count must be a whole number, at least 1; got None"),
        ({"width": "8"}, "option width must be a whole number; got '8'"),
        ({"scale": "1"}, "option scale must be a number; got '1'"),
        ({"scale": False}, "option scale must be a number; got False"),
        ({"scale": 10**400}, "option scale must be a number; got 1000"),
        ({"on": 1}, "option on must be true or false; got 1"),
        ({"sizes": 1}, "option sizes must be a list; got 1"),
        ({"sizes": [1, "2"]}, "option sizes.1 must be a whole number; got '2'"),
        ({"pair": [1]}, r"option pair must be a list of 2 values; got \[1\]"),
        ({"pair": [1, 0]}, r"the content: pair must ascend, got \(1.0, 0.0\)"),
        ({"parts": []}, r"option parts must be an object; got \[\]"),
        ({"parts": {"p": 1}}, "option parts.p must be an object; got 1"),
        ({"parts": {"p": {}}}, "option parts.p.share is missing"),
        ({"parts": {"p": {"share": 1}}}, "option parts.p.share must be a number, at least 0 and less than 1; got 1"),
        ({"more": 1}, "option more is not supported; name, kind, count"),
    ],
)
def test_what_does_not_fit_is_named_with_its_file(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ModelError, match=rf"x\.json: {sentence}"):
        read(tmp_path, {"name": "n", **changes})


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "Invalid JSON: "),
        ('{"name": NaN}', "Invalid JSON: NaN is no number of JSON"),
        ('{"name": "n", "scale": 1e999}', "option scale must be a number; got inf"),
        ("[" * 100000, "Invalid JSON: "),
        ("\xff", "Invalid JSON: "),
        ("[]", r"the content must be an object; got \[\]"),
        ("{}", "option name is missing"),
        (None, "cannot be read: No such file"),
    ],
)
def test_what_is_no_such_file_is_named(tmp_path: Path, text: str | None, sentence: str) -> None:
    if text is not None:
        (tmp_path / "x.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ModelError, match=rf"x\.json: {sentence}"):
        read_json(tmp_path / "x.json", Whole)

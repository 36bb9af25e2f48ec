"""Configurations: the bundled ones are complete, and every mistake names the key and what is allowed."""

from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml

from ss4d.pipelines.config import bundled_configs, load_config
from ss4d.pipelines.errors import ConfigError


def yaml_keys(data: dict[str, Any], prefix: str = "") -> set[str]:
    found = set()
    for name, value in data.items():
        found |= yaml_keys(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name}
    return found


def test_bundled_names() -> None:
    assert bundled_configs() == ["ss4d", "tiny"]


@pytest.mark.parametrize("name", ["tiny", "ss4d"])
def test_bundled_configurations_name_every_key(name: str) -> None:
    data = yaml.safe_load(resources.files("ss4d.configs").joinpath(f"{name}.yaml").read_text())
    assert yaml_keys(data) == yaml_keys(load_config(name).described())


def test_numbers_are_written_as_people_write_them() -> None:
    config = load_config("tiny", ["slat.sampler.cfg_strength=1e9"])
    assert config.described()["slat"]["sampler"]["cfg_strength"] == 1e9


def test_overrides_apply_in_order() -> None:
    config = load_config("tiny", ["slat.sampler.steps=3", "slat.sampler.steps=5", "segmentation.method=alpha"])
    assert config.section("slat").sampler.steps == 5
    assert config.section("segmentation").method == "alpha"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("slat.sampler.stepz=3", ["slat.sampler.stepz", "unknown", "steps"]),
        ("slats.steps=3", ["slats", "unknown", "slat"]),
        ("slat.sampler.steps=-1", ["slat.sampler.steps", "greater than or equal to 1", "-1"]),
        ("slat.sampler.steps=many", ["slat.sampler.steps", "integer", "many"]),
        ("slat.sampler.steps=2.5", ["slat.sampler.steps", "2.5"]),
        ("slat.sampler.cfg_interval=[0.9, 0.1]", ["cfg_interval", "0.9"]),
        ("precision=float8", ["precision", "float32", "float8"]),
        ("decoding.stepz=3", ["'decoding.stepz'", "unknown", "method"]),
        ("decoding.method=magic", ["decoding", "gaussians", "inflation", "magic"]),
        ("segmentation.method=magic", ["segmentation.method", "saliency", "magic"]),
        ("model.x=1", ["model", "not a section"]),
        ("slat", ["key=value", "slat"]),
        ("=3", ["key=value"]),
        ("slat.sampler.steps=[", ["slat.sampler.steps", "YAML"]),
    ],
)
def test_mistakes_name_the_key(override: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config("tiny", [override])
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "override",
    [
        *(
            "slat.sampler.steps=1000000000000",
            "slat.sampler.rescale_t=5e-324",
            "sparse_structure.sampler.rescale_t=1e300",
        ),
        *("export.frames=1000000000000", "export.turns=1e6", "input.fps=1e-300", "input.rate=1e300"),
        *("input.memory=1e300", f"input.start={'9' * 400}s", f"input.end={'9' * 30}s"),
        *(f"segmentation.box=[0, 0, {10**30}, 1]", f"segmentation.point=[{10**30}, 1]"),
    ],
)
def test_numbers_that_no_work_needs_are_refused_before_anything_counts_to_them(override: str) -> None:
    with pytest.raises(ConfigError, match=f"'{override.partition('=')[0]}"):
        load_config("tiny", [override])


def test_a_method_brings_its_own_keys() -> None:
    inflation = ["decoding.method=inflation", "decoding.depth=0.5"]
    assert load_config("tiny", inflation).section("decoding").model_dump()["depth"] == 0.5
    with pytest.raises(ConfigError, match=r"'decoding\.depth'.*greater than 0.*-1"):
        load_config("tiny", [*inflation, "decoding.depth=-1"])
    with pytest.raises(ConfigError, match=r"unknown configuration key 'decoding\.depth'"):
        load_config("tiny", ["decoding.depth=0.5"])


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("model: bundled:tiny\nslat:\n  sampler: {steps: 2}\n")
    assert load_config(str(file)).section("slat").sampler.steps == 2


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"model: [", ["YAML"]),
        (b"- 1\n", ["keys and values"]),
        (b"slat: {}\n", ["model", "missing"]),
        (b"\xff\xfe\x00", ["text file"]),
        (b"model: 2020-01-01\n", ["plain data"]),
    ],
)
def test_unusable_files(tmp_path: Path, content: bytes, words: list[str]) -> None:
    file = tmp_path / "bad.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_config(str(file))
    for word in words:
        assert word in str(caught.value)


def test_a_file_is_read_by_the_limits_that_the_command_gives(tmp_path: Path) -> None:
    """It cannot raise them for itself, whoever wrote it."""
    file = tmp_path / "long.yaml"
    file.write_text(f"model: bundled:tiny\nrevisions: {{{', '.join(f'a/b{n}: c' for n in range(6000))}}}\n")
    with pytest.raises(ConfigError, match=r"more than 10,000 values.*\(limits\.yaml\.values\)"):
        load_config(str(file))
    assert len(load_config(str(file), ["limits.yaml.values=20000"]).revisions) == 6000
    file.write_text(file.read_text() + "limits: {yaml: {values: 20000}}\n")
    with pytest.raises(ConfigError, match="more than 10,000 values"):
        load_config(str(file))
    file.write_text("model: bundled:tiny\nlimits: {where_seconds: 5.0, yaml: {values: 20000}}\n")
    with pytest.raises(ConfigError, match=r"say them with --set limits\.yaml\.KEY=VALUE"):
        load_config(str(file))
    assert load_config(str(file), ["limits.yaml.values=20000"]).limits.where_seconds == 5
    with pytest.raises(ConfigError, match=r"'limits\.yaml\.depth'.*less than or equal to 150"):
        load_config(str(file), ["limits.yaml.depth=1000"])


def test_a_missing_file_and_an_unknown_name() -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: No such file"):
        load_config("nowhere.yaml")
    with pytest.raises(ConfigError, match="choose ss4d, tiny"):
        load_config("huge")


def test_the_section_of_a_file_is_for_the_method_it_names(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("model: bundled:tiny\ndecoding: {method: inflation, depth: 0.5}\nsegmentation: {size: 64}\n")
    assert load_config(str(file), ["decoding.method=gaussians"]).section("decoding").method == "gaussians"
    assert load_config(str(file), ["segmentation.method=alpha"]).section("segmentation").model_dump()["size"] == 64
    config = load_config(str(file), ["decoding.resolution=32", "decoding.method=inflation"])
    again = config.section("decoding").model_dump()
    assert (again["depth"], again["resolution"]) == (0.5, 32)

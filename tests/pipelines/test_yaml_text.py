"""YAML is plain data of a bounded size, with numbers as people write them."""

import time

import pytest
import yaml

from ss4d.pipelines.yaml_text import USUAL, YamlLimits, parse_yaml


@pytest.mark.parametrize(
    ("text", "value"), [("1e9", 1e9), ("-1E-3", -1e-3), (".5e1", 5.0), ("1.0e+2", 100.0), ("e9", "e9"), ("12", 12)]
)
def test_numbers(text: str, value: object) -> None:
    found = parse_yaml(text)
    assert (found, type(found)) == (value, type(value))


def test_aliases_that_repeat_little_are_read() -> None:
    assert parse_yaml("a: &a {x: 1}\nb: {<<: *a, y: 2}\nc: [*a, *a]")["c"] == [{"x": 1}, {"x": 1}]


BOMB = "\n".join(f"l{i}: &l{i} [{', '.join([f'*l{i - 1}' if i else 'x'] * 9)}]" for i in range(9))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BOMB, f"more than {USUAL.values:,} values.*limits.yaml.values"),
        ("a: &a [1, *a]", "an alias stands in what it is an alias of"),
        ("[" * (USUAL.depth + 1) + "]" * (USUAL.depth + 1), f"more than {USUAL.depth} deep .limits.yaml.depth"),
        ("[" * 100_000, f"more than {USUAL.depth} deep"),
        ("#" * (USUAL.characters + 1), f"more than {USUAL.characters:,} characters .limits.yaml.characters"),
        ("9" * 5000, "4300"),
        ("!!timestamp z", "not what it says"),
        ("!!bool q", "not what it says"),
        ("!!python/object/apply:os.getcwd []", "python"),
        ("\x00", "unacceptable"),
    ],
)
def test_what_no_configuration_holds_is_refused_at_once(text: str, words: str) -> None:
    began = time.process_time()
    with pytest.raises(yaml.YAMLError, match=words):
        parse_yaml(text)
    assert time.process_time() - began < 5


def test_limits_are_settings() -> None:
    deep = YamlLimits(depth=150)
    assert parse_yaml("[" * 150 + "]" * 150, deep)
    with pytest.raises(yaml.YAMLError, match="more than 150 deep"):
        parse_yaml("[" * 151 + "]" * 151, deep)
    assert len(parse_yaml(f"[{'x, ' * 20}]", YamlLimits(values=21))) == 20
    with pytest.raises(yaml.YAMLError, match="more than 20 values"):
        parse_yaml(f"[{'x, ' * 20}]", YamlLimits(values=20))
    assert parse_yaml("#" * (USUAL.characters + 1), YamlLimits(characters=USUAL.characters + 1)) is None

"""Reads JSON into frozen dataclasses: types and ranges are checked, and an error names the option at fault.

A field's annotation says what the option may be: int, float, str, bool, `X | None`, a tuple for a list, a dictionary or
another such dataclass for an object, a Literal for a choice, Any; `Annotated[int, Bounds(least=1)]` adds a range.
"""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

from ss4d.stages.errors import ModelError

Object = TypeVar("Object")
PLAIN = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
MOST_WHOLE = 1 << 63  # what a tensor can count with


class Lenient:
    """Base of a dataclass whose object may have keys that are no field of it: they, and their values, do not matter."""


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """The range of a number.

    Attributes:
        least: it may be that small; None for no such bound, as below.
        most: it may be that large.
        above: it must be greater.
        below: it must be less.
    """

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None

    def hold(self, number: float) -> bool:
        """Whether a number lies within."""
        return (
            (self.least is None or number >= self.least)
            and (self.most is None or number <= self.most)
            and (self.above is None or number > self.above)
            and (self.below is None or number < self.below)
        )

    def __str__(self) -> str:
        said = {"at least": self.least, "greater than": self.above, "at most": self.most, "less than": self.below}
        return " and ".join(f"{words} {bound:g}" for words, bound in said.items() if bound is not None)


def read_json(file: Path, kind: type[Object]) -> Object:
    """The content of a JSON file as the dataclass `kind`.

    Raises:
        ModelError: naming the file and the option at fault.
    """
    with naming(file):
        try:
            content = json.loads(file.read_bytes(), parse_constant=_no_number)
        except OSError as error:
            raise ModelError(f"cannot be read: {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            raise ModelError(f"Invalid JSON: {error}") from error
        return parse(content, kind)


def parse(content: object, kind: type[Object], *option: str) -> Object:
    """An object of a JSON file, which stands there under the keys `option`, as the dataclass `kind`.

    Raises:
        ModelError: naming the option at fault.
    """
    if not isinstance(content, Mapping):
        _refuse(kind, content, option)
    hints = get_type_hints(kind, include_extras=True)
    unknown = sorted(content.keys() - hints.keys())
    if unknown and not issubclass(kind, Lenient):
        raise ModelError(f"{_subject((*option, unknown[0]))} is not supported; {', '.join(hints)} are")
    for field in fields(kind):  # type: ignore[arg-type]  # a type variable cannot say that it is a dataclass
        if field.default is MISSING and field.default_factory is MISSING and field.name not in content:
            raise ModelError(f"{_subject((*option, field.name))} is missing")
    values = {name: _value(content[name], hints[name], (*option, name)) for name in hints if name in content}
    try:
        return kind(**values)
    except ValueError as error:  # what the dataclass itself demands of its fields
        raise ModelError(f"{_subject(option)}: {error}") from error


@contextmanager
def naming(file: Path | None) -> Iterator[None]:
    """Puts the name of `file` before the sentence of a ModelError in the block.

    Raises:
        ModelError: with the longer sentence.
    """
    try:
        yield
    except ModelError as error:
        raise ModelError(f"{file}: {error}") from error


def _value(value: object, kind: Any, option: tuple[str, ...]) -> Any:
    """`value` as its annotation `kind` wants it."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        given, nothing = inner
        assert nothing is NoneType, "the one union that is read is that with None"
        return None if value is None else _value(value, given, option)
    if origin is tuple:
        return _items(value, kind, option)
    if origin is dict and isinstance(value, Mapping):
        return {name: _value(item, inner[1], (*option, name)) for name, item in value.items()}
    if is_dataclass(kind):
        return parse(value, kind, *option)  # type: ignore[arg-type]  # is_dataclass also takes instances
    if not _fits(value, kind):
        _refuse(kind, value, option)
    return float(value) if kind is float or inner[:1] == (float,) else value  # type: ignore[arg-type]  # it is a number


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value that holds no others is what its annotation wants."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _fits(value, inner[0]) and inner[1].hold(value)
    if origin is Literal:
        return value in inner
    if kind is float:
        return type(value) in (int, float) and _is_finite(value)
    if kind is int:
        return type(value) is int and abs(value) < MOST_WHOLE
    return kind is Any or type(value) is kind


def _items(value: object, kind: Any, option: tuple[str, ...]) -> tuple[Any, ...]:
    """A list as the tuple that `kind` describes."""
    if not isinstance(value, list | tuple):
        _refuse(kind, value, option)
    inner = get_args(kind)
    kinds = inner[:1] * len(value) if inner[-1] is ... else inner
    if len(kinds) != len(value):
        _refuse(kind, value, option)
    return tuple(_value(item, kinds[i], (*option, str(i))) for i, item in enumerate(value))


def _is_finite(number: Any) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:  # a whole number beyond what a float holds
        return False


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number of JSON")


def _refuse(kind: Any, value: object, option: tuple[str, ...]) -> NoReturn:
    raise ModelError(f"{_subject(option)} must be {_wanted(kind)}; got {value!r}")


def _wanted(kind: Any) -> str:
    """What an annotation wants, in words."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return f"{_wanted(inner[0])}, {inner[1]}"
    if origin is Literal:
        return f"one of {', '.join(map(repr, inner))}"
    if origin is tuple:
        return "a list" if inner[-1] is ... else f"a list of {len(inner)} values"
    return PLAIN.get(kind, "an object")


def _subject(option: tuple[str, ...]) -> str:
    return f"option {'.'.join(option)}" if option else "the content"

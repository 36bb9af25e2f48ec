"""What the configurations of all stages have in common."""

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict


@dataclass(frozen=True)
class AsBefore:
    """Marks an option that came after results had been stored: at `value` all is as it was before there was the option.

    A recipe leaves the option out at that value, so the keys of older results stay. For example
    `solver: Annotated[Literal["euler", "adams"], AsBefore("euler")] = "euler"`.
    """

    value: Any


@dataclass(frozen=True)
class Limit:
    """Marks an option that only says what is refused: it changes no result, so no key."""


class StageConfig(BaseModel):
    """Base of a stage's configuration: frozen, of exact types, without unknown keys.

    A subclass declares `method` as a Literal of the names that choose it, with a default. A field of type
    `pathlib.Path` names a file that the stage reads: the file's content, not its name, decides the result.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    method: str

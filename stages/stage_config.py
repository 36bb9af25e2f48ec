"""What the configurations of all stages have in common."""

from pydantic import BaseModel, ConfigDict


class StageConfig(BaseModel):
    """Base of a stage's configuration: frozen, of exact types, without unknown keys.

    A subclass declares `method` as a Literal of the names that choose it, with a default. A field of type
    `pathlib.Path` names a file that the stage reads: the file's content, not its name, decides the result.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    method: str

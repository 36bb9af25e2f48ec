"""What an examination finds: a line for each check, and all of it as JSON."""

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

LOG = logging.getLogger("ss4d")
State = Literal["ok", "failed", "broken", "skipped"]


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked at.

    Attributes:
        group: what it belongs to.
        name: of the thing.
        state: ok; failed, where a run would meet it; broken, where it is there and does not work, so that a run takes
            something else; skipped.
        says: the finding in a line, or why there is none.
        numbers: what was measured.
    """

    group: str
    name: str
    state: State
    says: str
    numbers: Mapping[str, Any] = field(default_factory=dict)

    def line(self) -> str:
        """The check as one line, without its group."""
        return f"{self.state:<8} {self.name:<36} {self.says}"


@dataclass(frozen=True, kw_only=True)
class Findings:
    """All checks so far, and what they were made on.

    Attributes:
        facts: of the machine.
        checks: in their order.
        finished: whether no more are to come; false in the file of an examination that was ended from outside.
    """

    facts: Mapping[str, Any]
    checks: tuple[Check, ...]
    finished: bool

    @property
    def failed(self) -> list[Check]:
        """Those that a run would meet."""
        return [check for check in self.checks if check.state == "failed"]

    def plain(self) -> dict[str, Any]:
        """The same as plain data."""
        checks = [asdict(check) for check in self.checks]
        content = {"schema": 1, "finished": self.finished, "facts": dict(self.facts), "checks": checks}
        plain: dict[str, Any] = json.loads(json.dumps(content), parse_constant=str)  # JSON has no infinity
        return plain


def guarded(group: str, name: str, checks: Callable[[], Iterator[Check]]) -> Iterator[Check]:
    """The checks, and whatever ends them early as one that failed: what comes after them is still examined."""
    try:
        yield from checks()
    except Exception as error:  # whatever a driver or a package can think of
        LOG.debug("%s", name, exc_info=True)
        text = " ".join(str(error).split())
        yield Check(group=group, name=name, state="failed", says=f"{type(error).__name__}: {text[:300]}")

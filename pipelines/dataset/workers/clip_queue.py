"""The clips of a run that are in no worker, and which of them comes next."""

import heapq
import itertools
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterable

from ss4d.pipelines.dataset.workers.todo import Todo


class ClipQueue:
    """Gives out clips in order, and holds some of them back.

    A clip to be tried again waits for some time first. A clip that may have ended its worker gets a worker for itself.
    Of several clips with the same content, one is in the workers at a time; the others then reuse its artifacts.

    Args:
        clips: in order.
    """

    def __init__(self, clips: Iterable[Todo]) -> None:
        self._waiting = deque(clips)
        # A heap: when to try again, a number that keeps clips of the same time in order, the clip.
        self._delayed: list[tuple[float, int, Todo]] = []
        self._numbers = itertools.count()
        self._isolated: deque[Todo] = deque()
        self._duplicates: dict[str, deque[Todo]] = defaultdict(deque)  # by goal
        self._at_work: Counter[str] = Counter()  # goals of the clips that are in workers

    def __bool__(self) -> bool:
        """Whether any clip is left, be it held back or not."""
        return bool(self._waiting or self._delayed or self._isolated or self._duplicates)

    def take(self) -> Todo | None:
        """The next clip for a worker that may have others; None if there is none now."""
        if self._delayed and self._delayed[0][0] <= time.monotonic():
            return self._taken(heapq.heappop(self._delayed)[2])
        while self._waiting:
            todo = self._waiting.popleft()
            if not self._at_work[todo.goal]:
                return self._taken(todo)
            self._duplicates[todo.goal].append(todo)
        return None

    def take_isolated(self) -> Todo | None:
        """The next clip that has to get a worker for itself; None if there is none."""
        return self._taken(self._isolated.popleft()) if self._isolated else None

    def release(self, todo: Todo) -> None:
        """A clip that was taken has left its worker: another one with the same content may follow."""
        self._at_work[todo.goal] -= 1
        if not self._at_work[todo.goal]:
            del self._at_work[todo.goal]
        if duplicates := self._duplicates.get(todo.goal):
            self._waiting.appendleft(duplicates.popleft())
            if not duplicates:
                del self._duplicates[todo.goal]

    def put_back(self, todo: Todo) -> None:
        """Queues a clip again as the next one, as if it had not been taken."""
        self._waiting.appendleft(todo)

    def delay(self, todo: Todo, seconds: float) -> None:
        """Queues a clip again, for after some seconds."""
        heapq.heappush(self._delayed, (time.monotonic() + seconds, next(self._numbers), todo))

    def isolate(self, todo: Todo) -> None:
        """Queues a clip again, for a worker for itself."""
        self._isolated.append(todo)

    def _taken(self, todo: Todo) -> Todo:
        self._at_work[todo.goal] += 1
        return todo

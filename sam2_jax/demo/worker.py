"""`Worker`: the one thread that uses the device, shared fairly among those who ask."""

import asyncio
import threading
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Callable, Hashable, Iterator
from contextlib import aclosing, suppress
from typing import Any, TypeVar

Result = TypeVar("Result")

MOST_WAITING = 32
"""So many pieces of work of one client may wait; a page asks for one or two at a time."""


class BusyError(Exception):
    """Says that a client asks for more than it can be given."""


class _Job:
    """Work in steps. tell: takes what each step gave, or the error that ended the work, in any thread."""

    def __init__(self, client: Hashable, steps: Iterator[Any], tell: Callable[[Any], None]) -> None:
        self.client = client
        self.steps = steps
        self.tell = tell
        self.is_dropped = False
        self.is_running = False


class _End:
    """Told when there are no more steps, or with the error that ended them."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


class Worker:
    """Does work step by step, a step for one client and then one for the next, never two at a time.

    Each client's own work is done in the order it came. A step is asked for when the result of the one before
    has been taken, so that nothing piles up for a client who reads slowly, and work whose client is gone is
    dropped: before its first step, or after the one that runs.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: OrderedDict[Hashable, deque[_Job]] = OrderedDict()
        self._dropped: list[_Job] = []
        self._is_closed = False
        self._thread = threading.Thread(target=self._work, daemon=True, name="device")
        self._thread.start()

    async def run(self, client: Hashable, work: Callable[[], Result]) -> Result:
        """Do work of one step. Raises what it raises, and BusyError."""

        def once() -> Iterator[Result]:
            yield work()

        async with aclosing(self.stream(client, once())) as results:
            async for result in results:
                return result
        raise RuntimeError("a step that gives nothing")

    async def stream(self, client: Hashable, steps: Iterator[Result]) -> AsyncGenerator[Result]:
        """Yield what each step gives; in the end, or when it is closed, the steps are closed too.

        Raises what a step raises, and BusyError.
        """
        loop = asyncio.get_running_loop()
        told: asyncio.Queue[Any] = asyncio.Queue()

        def tell(outcome: Any) -> None:
            with suppress(RuntimeError):  # the server has ended meanwhile
                loop.call_soon_threadsafe(told.put_nowait, outcome)

        job = _Job(client, steps, tell)
        try:
            while True:
                self._add(job)
                outcome = await told.get()
                if isinstance(outcome, _End):
                    if outcome.error is not None:
                        raise outcome.error
                    return
                yield outcome
        finally:
            self._drop(job)

    def close(self) -> None:
        """Let the thread end, after the step that runs; what waits is dropped."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()

    def join(self) -> None:
        """Wait for the end of the thread."""
        self._thread.join()

    def _add(self, job: _Job) -> None:
        with self._changed:
            own = self._waiting.setdefault(job.client, deque())
            if len(own) >= MOST_WAITING:
                raise BusyError(
                    f"{MOST_WAITING} requests of this page wait already: let some be answered, then ask again"
                )
            own.append(job)
            self._changed.notify()

    def _drop(self, job: _Job) -> None:
        with self._changed:
            job.is_dropped = True
            if job.is_running:
                return
            own = self._waiting.get(job.client, deque())
            if job in own:
                own.remove(job)
            if not own:
                self._waiting.pop(job.client, None)
            self._dropped.append(job)  # the thread closes its steps, which are not to be shared
            self._changed.notify()

    def _next(self) -> _Job | None:
        """The job whose turn it is, None at the end."""
        with self._changed:
            while not (self._waiting or self._dropped or self._is_closed):
                self._changed.wait()
            if self._is_closed:
                return None
            if self._dropped:
                return self._dropped.pop()
            client, own = self._waiting.popitem(last=False)
            job = own.popleft()
            if own:
                self._waiting[client] = own  # behind all others
            job.is_running = True
            return job

    def _work(self) -> None:
        while (job := self._next()) is not None:
            outcome: Any
            if not job.is_dropped:
                try:
                    outcome = next(job.steps)
                except StopIteration:
                    outcome = _End()
                except Exception as error:
                    outcome = _End(error)
                with self._changed:
                    job.is_running = False
                if not job.is_dropped:
                    job.tell(outcome)
            if job.is_dropped:
                _close(job.steps)
            del job


def _close(steps: Any) -> None:
    with suppress(Exception):
        steps.close()

"""The worker that shares the device: whose turn it is, and what becomes of work that nobody waits for."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import aclosing
from typing import Any

import pytest

from sam2_jax.demo.caches import Bounded
from sam2_jax.demo.worker import MOST_WAITING, BusyError, Worker


@pytest.fixture
def worker() -> Iterator[Worker]:
    """A worker that ends with the test."""
    started = Worker()
    yield started
    started.close()


async def _busy(worker: Worker) -> Any:
    """Let the worker be at something until what is returned is set."""
    begun, end = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        end.wait(10)

    task = asyncio.create_task(worker.run("busy", work))
    while not begun.is_set():
        await asyncio.sleep(0.001)
    return end, task


def test_clients_take_turns_and_each_keeps_its_order(worker: Worker) -> None:
    done: list[str] = []

    async def ask() -> None:
        end, first = await _busy(worker)
        names = ["a1", "a2", "a3", "b1", "c1", "b2"]
        asked = []
        for name in names:
            asked.append(asyncio.create_task(worker.run(name[0], lambda name=name: done.append(name))))
            await asyncio.sleep(0)
        end.set()
        await asyncio.gather(first, *asked)

    asyncio.run(ask())
    assert done == ["a1", "b1", "c1", "a2", "b2", "a3"]


def test_a_click_does_not_wait_for_the_end_of_a_track(worker: Worker) -> None:
    done: list[str] = []

    def track() -> Iterator[int]:
        for frame in range(50):
            done.append("frame")
            time.sleep(0.002)
            yield frame

    async def ask() -> list[int]:
        frames = []
        async with aclosing(worker.stream("tracks", track())) as results:
            async for frame in results:
                frames.append(frame)
                if frame == 3:
                    click = asyncio.create_task(worker.run("clicks", lambda: done.append("click")))
        await click
        return frames

    assert asyncio.run(ask()) == list(range(50))
    assert done.index("click") <= 6


def test_the_loop_goes_on_while_the_device_works(worker: Worker) -> None:
    async def ask() -> int:
        end, first = await _busy(worker)
        beats = 0
        for _ in range(20):
            await asyncio.sleep(0.001)
            beats += 1
        assert not first.done()
        end.set()
        await first
        return beats

    assert asyncio.run(ask()) == 20


def test_work_whose_client_is_gone_is_not_done(worker: Worker) -> None:
    done: list[str] = []

    async def ask() -> None:
        end, first = await _busy(worker)
        gone = asyncio.create_task(worker.run("a", lambda: done.append("gone")))
        there = asyncio.create_task(worker.run("a", lambda: done.append("there")))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        end.set()
        await asyncio.gather(first, there)

    asyncio.run(ask())
    assert done == ["there"]


def test_a_stream_that_is_left_is_closed_in_the_thread_that_runs_it(worker: Worker) -> None:
    closed_in: list[str] = []

    def steps() -> Iterator[int]:
        try:
            yield from range(100)
        finally:
            closed_in.append(threading.current_thread().name)

    async def ask() -> None:
        async with aclosing(worker.stream("a", steps())) as results:
            async for _ in results:
                break
        await worker.run("a", lambda: None)

    asyncio.run(ask())
    assert closed_in == ["device"]


def test_errors_reach_who_asked_and_the_worker_goes_on(worker: Worker) -> None:
    def fail() -> None:
        raise ValueError("not so")

    async def ask() -> str:
        with pytest.raises(ValueError, match="not so"):
            await worker.run("a", fail)
        return await worker.run("a", lambda: "still there")

    assert asyncio.run(ask()) == "still there"


def test_a_client_cannot_fill_the_queue(worker: Worker) -> None:
    async def ask() -> list[Any]:
        end, first = await _busy(worker)
        asked = [asyncio.create_task(worker.run("a", lambda: 1)) for _ in range(MOST_WAITING + 3)]
        other = asyncio.create_task(worker.run("b", lambda: 2))
        await asyncio.sleep(0.01)
        end.set()
        results = await asyncio.gather(*asked, return_exceptions=True)
        assert await other == 2
        await first
        return results

    results = asyncio.run(ask())
    assert results[:MOST_WAITING] == [1] * MOST_WAITING
    assert all(isinstance(result, BusyError) for result in results[MOST_WAITING:])


def test_what_is_kept_is_bounded_and_the_latest_used_stays() -> None:
    gone: list[str] = []
    kept: Bounded[str] = Bounded(10, gone.append)
    for name in "abc":
        kept.put(name, name, 3)
    assert kept.get("a") == "a"
    kept.put("d", "d", 3)
    assert gone == ["b"]
    assert kept.total == 9
    kept.put("e", "e", 100)
    assert gone == ["b", "c", "a", "d"]
    assert kept.get("e") == "e"
    kept.drop_idle(60)
    assert len(kept) == 1
    kept.drop_idle(-1)
    assert (len(kept), kept.total, gone[-1]) == (0, 0, "e")

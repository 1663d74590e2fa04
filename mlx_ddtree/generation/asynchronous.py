"""Read a stream from asyncio code without holding up its loop.

>>> async for response in asynchronous(stream_generate(pair, messages)):
...     print(response.text, end="")
"""

from __future__ import annotations

from asyncio import get_running_loop, wrap_future
from collections.abc import AsyncIterator, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, cast

T = TypeVar("T")


async def asynchronous(stream: Iterator[T]) -> AsyncIterator[T]:
    """The responses of `stream_generate`, `stream_branches` or `Session.stream`, each made in a thread of its own.

    However it ends (cancelled, an error, a loop that is left), the round that is being made is finished and the stream
    closed before control comes back, so that its session or prompt cache is whole.  An async generator that is not
    read to its end is closed by `aclose()`, as always in Python.
    """
    steps = cast("Generator[T, None, None]", iter(stream))
    loop = get_running_loop()
    with ThreadPoolExecutor(1, "mlx_ddtree") as worker:
        try:
            while True:
                response = await loop.run_in_executor(worker, next, steps, None)
                if response is None:
                    return
                yield response
        finally:
            await wrap_future(worker.submit(steps.close))  # in turn, behind a round that is being made

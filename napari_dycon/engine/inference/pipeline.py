"""Three-stage pipeline: items are read, computed and written concurrently.

While an item is computed in the caller's thread, the next one is read and the previous one is
written in background threads. Each stage holds one item at a time, which bounds memory.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from napari_dycon.engine.device import is_out_of_memory

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")
Result = TypeVar("Result")


@dataclass(frozen=True)
class ComputingItem(Generic[Item]):
    """An item was read and is computed next."""

    item: Item


@dataclass(frozen=True)
class WrittenItem(Generic[Item, Result]):
    """An item was computed and its result is written."""

    item: Item
    result: Result


@dataclass(frozen=True)
class FailedItem(Generic[Item]):
    """An item could not be read, computed or written; ``stage`` is "read", "compute" or "write"."""

    item: Item
    error: Exception
    stage: str


def run_pipeline(
    items: Sequence[Item],
    read: Callable[[Item], Loaded],
    compute: Callable[[Item, Loaded], Result],
    write: Callable[[Item, Result], None],
    *,
    can_read_ahead: Callable[[Loaded], bool] = lambda _: True,
) -> Generator[ComputingItem[Item] | WrittenItem[Item, Result] | FailedItem[Item]]:
    """Take items through all stages.

    Each item yields one ``WrittenItem`` or ``FailedItem``, in the order of the items. The
    ``ComputingItem`` of an item may precede the ``WrittenItem`` of the previous one. When the
    iterator is closed or interrupted, running stages are awaited and no further ones are started.

    Parameters
    ----------
    items : inputs of the first stage
    read, write : run in a thread each, one item at a time
    compute : runs in the caller's thread
    can_read_ahead : whether the next item may be read while this one is computed
    """
    reader, writer = ThreadPoolExecutor(1, "read"), ThreadPoolExecutor(1, "write")
    pending_write: tuple[Item, Result, Future[None]] | None = None
    next_read: Future[Loaded] | None = None
    try:
        for number, item in enumerate(items):
            was_read_ahead = next_read is not None
            current_read, next_read = next_read or reader.submit(read, item), None
            loaded = result = None
            error: Exception | None = None
            stage = "read"
            try:
                loaded = current_read.result()
            except Exception as caught:  # noqa: BLE001 - yielded as a failure
                error = caught
            del current_read  # which holds what was read
            if was_read_ahead and error is not None and is_out_of_memory(error):
                # The item computed meanwhile may have taken the memory: read it alone.
                error = None
                if pending_write is not None:
                    yield _await_write(*pending_write)
                    pending_write = None
                try:
                    loaded = reader.submit(read, item).result()
                except Exception as caught:  # noqa: BLE001 - yielded as a failure
                    error = caught
            if pending_write is not None and (error is not None or pending_write[2].done()):
                yield _await_write(*pending_write)
                pending_write = None
            if error is None:
                assert loaded is not None
                if number + 1 < len(items) and can_read_ahead(loaded):
                    next_read = reader.submit(read, items[number + 1])
                yield ComputingItem(item)
                stage = "compute"
                try:
                    result = compute(item, loaded)
                except Exception as caught:  # noqa: BLE001 - yielded as a failure
                    error = caught
                del loaded
            if pending_write is not None:
                yield _await_write(*pending_write)
                pending_write = None
            if error is not None:
                yield FailedItem(item, error, stage)
            else:
                assert result is not None
                pending_write = item, result, writer.submit(write, item, result)
            del error, result
        if pending_write is not None:
            yield _await_write(*pending_write)
    finally:
        for pool in (reader, writer):
            pool.shutdown(wait=True, cancel_futures=True)


def _await_write(
    item: Item, result: Result, write_future: Future[None]
) -> WrittenItem[Item, Result] | FailedItem[Item]:
    try:
        write_future.result()
    except Exception as error:  # noqa: BLE001 - yielded as a failure
        return FailedItem(item, error, "write")
    return WrittenItem(item, result)

"""Reading, computing and writing of successive items."""

from __future__ import annotations

import threading
import time

import pytest

from napari_dycon.engine.inference.pipeline import (
    ComputingItem,
    FailedItem,
    WrittenItem,
    run_pipeline,
)


def test_results_are_in_order_and_errors_belong_to_their_items() -> None:
    def read(item: int) -> int:
        if item == 1:
            raise ValueError("read")
        return item

    def compute(item: int, loaded: int) -> int:
        if item == 3:
            raise ValueError("compute")
        return 10 * loaded

    def write(item: int, result: int) -> None:
        if item == 5:
            raise ValueError("write")
        written.append(result)

    written: list[int] = []
    steps = list(run_pipeline(range(7), read, compute, write))
    found = [step for step in steps if not isinstance(step, ComputingItem)]
    assert [step.item for step in found] == list(range(7))
    assert [s.item for s in steps if isinstance(s, ComputingItem)] == [0, 2, 3, 4, 5, 6]
    failed = {s.item: (s.stage, str(s.error)) for s in found if isinstance(s, FailedItem)}
    assert failed == {1: ("read",) * 2, 3: ("compute",) * 2, 5: ("write",) * 2}
    assert [s.result for s in found if isinstance(s, WrittenItem)] == written == [0, 20, 40, 60]


@pytest.mark.parametrize("ahead", [True, False])
def test_each_stage_holds_one_item(ahead: bool) -> None:
    lock, caller = threading.Lock(), threading.get_ident()
    at_work: dict[str, int] = {"read": 0, "write": 0, "loaded": 0}
    most = dict(at_work)

    def change(name: str, by: int) -> None:
        with lock:
            at_work[name] += by
            most[name] = max(most[name], at_work[name])

    def read(item: int) -> int:
        assert threading.get_ident() != caller
        change("read", 1)
        change("loaded", 1)
        time.sleep(0.01)
        change("read", -1)
        return item

    def compute(item: int, _: int) -> int:
        assert threading.get_ident() == caller
        time.sleep(0.02)
        change("loaded", -1)
        return item

    def write(_: int, __: int) -> None:
        assert threading.get_ident() != caller
        change("write", 1)
        time.sleep(0.01)
        change("write", -1)

    list(run_pipeline(range(6), read, compute, write, can_read_ahead=lambda _: ahead))
    assert most == {"read": 1, "write": 1, "loaded": 2 if ahead else 1}


def test_stages_overlap() -> None:
    def stage(*_: object) -> int:
        time.sleep(0.05)
        return 0

    begin = time.monotonic()
    list(run_pipeline(range(8), stage, stage, lambda *_: time.sleep(0.05)))
    assert time.monotonic() - begin < 0.8 * 3 * 8 * 0.05


@pytest.mark.parametrize("error", [KeyboardInterrupt, GeneratorExit])
def test_an_interrupted_pipeline_leaves_no_thread(error: type[BaseException]) -> None:
    def compute(item: int, _: int) -> int:
        if item == 2 and error is KeyboardInterrupt:
            raise KeyboardInterrupt
        return item

    read: list[int] = []
    written: list[int] = []

    def load(item: int) -> int:
        read.append(item)
        return item

    before = threading.active_count()
    steps = run_pipeline(range(100), load, compute, lambda item, _: written.append(item))
    if error is KeyboardInterrupt:
        with pytest.raises(KeyboardInterrupt):
            list(steps)
    else:
        for step in steps:
            if isinstance(step, WrittenItem) and step.item == 1:
                break
        steps.close()
    assert threading.active_count() == before
    assert written[:2] == [0, 1]
    assert len(written) <= 3
    assert max(read) <= 4


def test_items_that_run_out_of_memory_are_retried_alone() -> None:
    """While one item is computed there may be no memory to read the next one."""
    computing = threading.Event()
    read: list[int] = []

    def load(item: int) -> int:
        read.append(item)
        if item == 1 and computing.wait(0.5):
            raise MemoryError("out of memory")
        return item

    def compute(item: int, _: int) -> int:
        computing.set()
        while len(read) < 2:  # until the next one is being read
            time.sleep(0.01)
        time.sleep(0.1)
        computing.clear()
        return item

    steps = list(run_pipeline(range(2), load, compute, lambda *_: None))
    assert [type(s).__name__ for s in steps] == ["ComputingItem", "WrittenItem"] * 2
    assert read == [0, 1, 1]


def test_items_that_never_fit_into_memory_fail() -> None:
    def load(item: int) -> int:
        if item == 1:
            raise MemoryError("out of memory")
        return item

    *_, last = run_pipeline(range(2), load, lambda item, _: item, lambda *_: None)
    assert isinstance(last, FailedItem)
    assert (last.item, last.stage) == (1, "read")

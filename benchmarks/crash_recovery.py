"""Hundreds of kills: what a killed window, training, prediction or export leaves, and exact resume.

``python benchmarks/crash_recovery.py --work DIR [--kills 60] [--kinds paint train predict export change]``
``python benchmarks/crash_recovery.py --work DIR --exact [--steps 200] [--kills 5]``

Processes at real work are sent SIGKILL at random moments; after each kill the project is opened
again and everything in it is read and compared to what was written (see
``tests/fault_injection``). Started again with the same ``--work``, it continues where it was.
``--exact`` trains the default preset of DyCON once at a stretch and once killed and resumed, and
compares the weights bit by bit.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import shutil
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
os.environ["PYTHONPATH"] = str(ROOT)

from helpers.kill_loops import Kills, make_project  # noqa: E402
from helpers.kill_runs import RunKills, exact  # noqa: E402

from napari_dycon.engine.config import make_config  # noqa: E402

KINDS = ("paint", "train", "predict", "export", "change")
SIZE = 64  # voxels of a side


def main() -> None:
    """Print a table; exit with 1 when anything was lost, torn or different."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--kills", type=int)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--exact", action="store_true")
    parser.add_argument("--steps", type=int, default=200)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    if arguments.exact:
        raise SystemExit(compare(arguments.work, arguments.steps, arguments.kills or 5))
    wanted = 60 if arguments.kills is None else arguments.kills
    for kind in arguments.kinds:
        kill(kind, arguments.work, wanted, arguments.seed)
    raise SystemExit(table(arguments.work))


def kill(kind: str, work: Path, wanted: int, seed: int) -> None:
    """Kill one kind of work until there are ``wanted`` results of it."""
    done = sum(row["kind"] == kind for row in results(work))
    if done >= wanted:
        return
    # Another seed after each start, so that what follows is not the same again.
    once = killer(kind, work / f"{kind}-{SIZE}", seed + done)
    for number in range(done, wanted):
        begin = time.monotonic()
        row: dict[str, Any] = {"kind": kind, "number": number}
        try:
            row |= {"ok": True, **once()}
        except Exception as error:
            traceback.print_exc()
            row |= {"ok": False, "error": f"{type(error).__name__}: {error}"}
        row["seconds"] = round(time.monotonic() - begin, 1)
        with (work / "results.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(row, flush=True)


def killer(kind: str, folder: Path, seed: int) -> Callable[[], dict[str, Any]]:
    """What kills one kind of work once and checks what is left."""
    if kind != "train":
        once: Callable[[], dict[str, Any]] = getattr(Kills(folder, seed, SIZE), kind)
        return once
    shutil.rmtree(folder, ignore_errors=True)
    return RunKills(make_project(folder), seed).kill


def results(work: Path) -> list[dict[str, Any]]:
    """All kills so far."""
    path = work / "results.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


def table(work: Path) -> int:
    """Print one row a kind; returns how many kills did harm."""
    rows = results(work)
    print("\n| work | kills | harmed | notes |\n|---|---|---|---|")
    for kind in KINDS:
        own = [row for row in rows if row["kind"] == kind]
        if not own:
            continue
        notes = ""
        if kind == "paint":
            notes = f"most strokes lost: {max(row.get('lost', 0) for row in own):.2f} s"
        elif kind == "train":
            steps = [row.get("step", 0) for row in own]
            notes = f"{sum(s > 0 for s in steps)} after a checkpoint, up to step {max(steps)}"
        elif kind == "predict":
            notes = f"{sum(row.get('mixed', False) for row in own)} with files of two versions"
        elif kind == "export":
            notes = f"{sum(row.get('checked', 0) for row in own)} files and folders read"
        print(f"| {kind} | {len(own)} | {sum(not row['ok'] for row in own)} | {notes} |")
    bad = collections.Counter(row["error"] for row in rows if not row["ok"])
    for error, count in bad.items():
        print(f"\n{count} × {error}")
    return int(bool(bad))


def compare(work: Path, steps: int, kills: int) -> int:
    """Train at a stretch and in pieces; returns 1 where the two differ."""
    folder = work / f"exact-{steps}-{kills}"
    shutil.rmtree(folder, ignore_errors=True)
    config = make_config(
        "dycon", device="cpu", precision="float32", steps=steps,
        **{"intervals.checkpoint_s": 2.0, "batch.patch_size": [32, 32, 32]},
    )  # fmt: skip
    begin = time.monotonic()
    found = exact(make_project(folder, 40, 8), config, kills)
    print("| steps | kills | made again | warped scans | tensors | weights | losses | s |")
    print("|---|---|---|---|---|---|---|---|")
    same = {True: "same to the bit", False: "DIFFERENT"}
    cells = [found[name] for name in ("steps", "kills", "again", "warps", "tensors")]
    cells += [same[found["weights"]], same[found["losses"]], round(time.monotonic() - begin)]
    print(f"| {' | '.join(map(str, cells))} |")
    return int(not (found["weights"] and found["losses"]))


if __name__ == "__main__":
    main()

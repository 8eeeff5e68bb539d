"""Kill the program hundreds of times and check that nothing is lost, and that runs resume exactly.

``python benchmarks/crash_recovery.py --work DIR [--kills 60] [--kinds paint train ...]``
``python benchmarks/crash_recovery.py --work DIR --exact [--steps 200] [--kills 5]``

Processes that paint, train, predict, export or change a project receive SIGKILL at random moments.
After each kill the project is opened again, and every file in it is read and compared with what was
written (see ``tests/fault_injection``). Results are appended to ``DIR/results.jsonl``; the same
command continues there. Prints a table; the exit status is 1 if anything was lost or damaged.
``--exact`` trains the default preset of DyCON once without interruption and once killed and
resumed, and compares the weights bit by bit.
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
from helpers.kill_runs import RunKills, check_exact_resume  # noqa: E402

from napari_dycon.engine.config import make_config  # noqa: E402

KINDS = ("paint", "train", "predict", "export", "change")
SIDE_VOXELS = 64


def main() -> None:
    """Print a table; exit with status 1 if anything was lost, damaged or different."""
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
        raise SystemExit(compare_resumed_run(arguments.work, arguments.steps, arguments.kills or 5))
    count = 60 if arguments.kills is None else arguments.kills
    for kind in arguments.kinds:
        kill_repeatedly(kind, arguments.work, count, arguments.seed)
    raise SystemExit(print_table(arguments.work))


def kill_repeatedly(kind: str, work: Path, count: int, seed: int) -> None:
    """Kill one kind of process until there are ``count`` results of it."""
    done = sum(row["kind"] == kind for row in read_results(work))
    if done >= count:
        return
    # Another seed in each call, so that the kills differ from those of the last call.
    kill_once = make_killer(kind, work / f"{kind}-{SIDE_VOXELS}", seed + done)
    for number in range(done, count):
        begin = time.monotonic()
        row: dict[str, Any] = {"kind": kind, "number": number}
        try:
            row |= {"ok": True, **kill_once()}
        except Exception as error:
            traceback.print_exc()
            row |= {"ok": False, "error": f"{type(error).__name__}: {error}"}
        row["seconds"] = round(time.monotonic() - begin, 1)
        with (work / "results.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(row, flush=True)


def make_killer(kind: str, folder: Path, seed: int) -> Callable[[], dict[str, Any]]:
    """Return a function that kills one process and checks the files that are left."""
    if kind != "train":
        kill_once: Callable[[], dict[str, Any]] = getattr(Kills(folder, seed, SIDE_VOXELS), kind)
        return kill_once
    shutil.rmtree(folder, ignore_errors=True)
    return RunKills(make_project(folder), seed).kill


def read_results(work: Path) -> list[dict[str, Any]]:
    """Return the results of all kills so far."""
    path = work / "results.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


def print_table(work: Path) -> int:
    """Print one row for each kind; return 1 if a kill did damage, otherwise 0."""
    rows = read_results(work)
    print("\n| work | kills | damaged | notes |\n|---|---|---|---|")
    for kind in KINDS:
        of_kind = [row for row in rows if row["kind"] == kind]
        if not of_kind:
            continue
        notes = ""
        if kind == "paint":
            notes = f"longest loss of strokes: {max(row.get('lost', 0) for row in of_kind):.2f} s"
        elif kind == "train":
            steps = [row.get("step", 0) for row in of_kind]
            notes = f"{sum(s > 0 for s in steps)} after a checkpoint, up to step {max(steps)}"
        elif kind == "predict":
            notes = f"{sum(row.get('mixed', False) for row in of_kind)} with files of two versions"
        elif kind == "export":
            notes = f"{sum(row.get('checked', 0) for row in of_kind)} files and folders read"
        print(f"| {kind} | {len(of_kind)} | {sum(not row['ok'] for row in of_kind)} | {notes} |")
    errors = collections.Counter(row["error"] for row in rows if not row["ok"])
    for error, count in errors.items():
        print(f"\n{count} × {error}")
    return int(bool(errors))


def compare_resumed_run(work: Path, steps: int, kills: int) -> int:
    """Train without and with kills; return 1 if the results differ, otherwise 0."""
    folder = work / f"exact-{steps}-{kills}"
    shutil.rmtree(folder, ignore_errors=True)
    config = make_config(
        "dycon", device="cpu", precision="float32", steps=steps,
        **{"intervals.checkpoint_s": 2.0, "batch.patch_size": [32, 32, 32]},
    )  # fmt: skip
    begin = time.monotonic()
    found = check_exact_resume(make_project(folder, 40, 8), config, kills)
    print("| steps | kills | repeated steps | registered scans | tensors | weights | losses | s |")
    print("|---|---|---|---|---|---|---|---|")
    same = {True: "bit-identical", False: "DIFFERENT"}
    cells = [found[name] for name in ("steps", "kills", "again", "registrations", "tensors")]
    cells += [same[found["weights"]], same[found["losses"]], round(time.monotonic() - begin)]
    print(f"| {' | '.join(map(str, cells))} |")
    return int(not (found["weights"] and found["losses"]))


if __name__ == "__main__":
    main()

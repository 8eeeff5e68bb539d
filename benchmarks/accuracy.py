"""Accuracy on scans never seen: data set, labeled count, methods, seeds and budget to one table.

``python benchmarks/accuracy.py --data FOLDER --labeled 4 --methods supervised dycon --seeds 0 1 2
--time-limit 10m --work DIR [--order listed] [--set spacing=[1.25,1.25,1.25]] [--record]``

``FOLDER`` holds ``images/`` and ``labels/``. In random order the first ``--labeled`` cases of
``numpy.random.default_rng(seed).permutation`` are labeled; listed order takes the first by name
for every seed. The last ``--test`` cases are held out: they are no part of the project. All others
are unlabeled. Everything goes through the command line alone, every method has the same budget,
the last checkpoint counts.

The gain of a method is that over ``supervised`` of the same seed, held-out case by held-out case:
both see the same hard cases, so that the standard error of the difference is much smaller than that
of either mean. It is that of these two networks: what another initialization would change comes on
top, and shows between seeds.

Restartable: finished rows are kept in ``DIR/rows.jsonl`` and not run again; a run that was
interrupted goes on where it was. ``OMP_NUM_THREADS=1`` keeps a run to one core, so that two methods
can be compared side by side under the same conditions.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from napari_dycon.core.types import UNANNOTATED

COMMAND = [sys.executable, "-m", "napari_dycon"]
QUALITIES = ("auroc", "auroc_foreground", "ece", "rank_correlation")
RESULTS = Path(__file__).with_name("results")
Row = dict[str, Any]
BASELINE = "supervised"


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--labeled", type=int, default=4)
    parser.add_argument("--test", type=int, default=40)
    parser.add_argument("--order", choices=("random", "listed"), default="random")
    parser.add_argument("--methods", nargs="+", default=["supervised", "dycon"])
    parser.add_argument("--preset", default="default")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--time-limit")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--every", type=int, default=1, help="only every Nth slice is annotated")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--record", action="store_true", help="also write results/accuracy-*.json")
    arguments = parser.parse_args()
    if arguments.every < 1:
        parser.error("--every takes 1 or more")
    if arguments.test < 1 or arguments.labeled < 1:
        parser.error("--test and --labeled take 1 or more")
    if not 0 < (cases := len(names_in(arguments.data))) >= arguments.labeled + arguments.test:
        parser.error(
            f"{arguments.data} has {cases} scan(s) NAME.nii.gz in images/; expected at least "
            f"--labeled {arguments.labeled} and --test {arguments.test} together"
        )
    arguments.work.mkdir(parents=True, exist_ok=True)
    store = arguments.work / "rows.jsonl"
    done = finished_rows(store)
    rows = []
    for seed in arguments.seeds:  # seed by seed, so that methods can be compared early
        for method in arguments.methods:
            key = key_of(arguments, method, seed)
            if key not in done:
                done[key] = {"key": key, **measure(arguments, method, seed)}
                keep(store, done[key])
                shutil.rmtree(arguments.work / key)  # the row is safe, and nothing goes on there
            rows.append(done[key])
            print(line_of(done[key]), flush=True)
    done = finished_rows(store)  # of a call beside this one too
    beside = [done.get(key_of(arguments, BASELINE, seed)) for seed in arguments.seeds]
    table = summary(arguments, rows, [row for row in beside if row is not None])
    print("\n" + table)
    if arguments.record:
        record(arguments, rows)


def record(arguments: argparse.Namespace, rows: list[Row]) -> None:
    """Write the rows and the arguments to a file of their own in ``results/``."""
    RESULTS.mkdir(exist_ok=True)
    options = {name: str(value) for name, value in vars(arguments).items() if name != "work"}
    options["data"] = arguments.data.name
    result = {"benchmark": "accuracy", "commit": commit(), "arguments": options, "rows": rows}
    budget = arguments.time_limit or f"{arguments.steps}steps"
    name = f"accuracy-{arguments.data.name}-{arguments.labeled}-{arguments.preset}-{budget}.json"
    (RESULTS / name).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def finished_rows(store: Path) -> dict[str, Row]:
    """Rows of earlier calls by key; a line that was cut off as it was written is no row."""
    rows = {}
    for line in store.read_text(encoding="utf-8").splitlines() if store.exists() else ():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        rows[row["key"]] = row
    return rows


def keep(store: Path, row: Row) -> None:
    """Append a row, on a line of its own and safely on the disk."""
    with store.open("a+b") as file:
        file.seek(0)
        text = file.read()
        file.write(b"\n" * bool(text and not text.endswith(b"\n")))
        file.write(json.dumps(row).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def commit() -> str:
    """Return the commit that is checked out here, and whether the code differs from it."""
    git = ["git", "-C", str(Path(__file__).parent)]
    code = ("../napari_dycon", "accuracy.py")  # not the results: --record writes there itself
    name, changed = (
        subprocess.run([*git, *rest], capture_output=True, text=True, check=False).stdout.strip()
        for rest in (("rev-parse", "--short", "HEAD"), ("status", "--porcelain", "--", *code))
    )
    return f"{name}, changed" if changed else name


def names_in(data: Path) -> list[str]:
    """File names of all scans, in order."""
    return sorted(path.name for path in (data / "images").glob("*.nii.gz"))


def key_of(arguments: argparse.Namespace, method: str, seed: int) -> str:
    """Name of one run, the same whenever it would be the same run."""
    settings = "_".join(sorted(arguments.set))
    parts = [arguments.data.name, f"{arguments.labeled}of", f"{arguments.test}test"]
    parts += [arguments.order, method, arguments.preset, f"seed{seed}"]
    parts += [str(arguments.time_limit), str(arguments.steps), arguments.device, settings]
    parts += [f"every{arguments.every}"] if arguments.every > 1 else []
    return "-".join(parts).replace("/", "_")


def measure(arguments: argparse.Namespace, method: str, seed: int) -> Row:
    """Train, predict and evaluate one run."""
    names = names_in(arguments.data)
    order = np.arange(len(names))
    if arguments.order == "random":
        order = np.random.default_rng(seed).permutation(len(names))
    folder = arguments.work / key_of(arguments, method, seed)
    project, made = folder / "project", folder / "made"
    if not made.exists():
        shutil.rmtree(folder, ignore_errors=True)  # what an interrupted preparation left
        groups = {
            "images": order[: -arguments.test],
            "labels": order[: arguments.labeled],
            "test": order[-arguments.test :],
            "truth": order[-arguments.test :],
        }
        for group, indices in groups.items():
            source = arguments.data / ("images" if group in ("images", "test") else "labels")
            (folder / group).mkdir(parents=True, exist_ok=True)
            for index in indices:
                shutil.copyfile(source / names[index], folder / group / names[index])
                if group == "labels" and arguments.every > 1:
                    keep_slices(folder / group / names[index], arguments.every)
        call("new", project, "--images", folder / "images", "--labels", folder / "labels")
        made.write_text(commit(), encoding="utf-8")  # as it was when the run began
    runs = sorted((project / "runs").glob("*/state/state.safetensors"))
    if runs:
        events = call("train", project, "--resume", runs[-1].parents[1].name, "--json")
    else:
        budget = ["--time-limit", arguments.time_limit] if arguments.time_limit else []
        budget += ["--steps", arguments.steps] if arguments.steps else []
        events = call(
            "train", project, "--method", method, "--preset", arguments.preset, *budget,
            "--device", arguments.device, "--seed", seed,
            *(f"--set={pair}" for pair in arguments.set), "--json",
        )  # fmt: skip
    started, finished = (json.loads(events.splitlines()[i]) for i in (0, -1))
    call("predict", project, "--images", folder / "test", "--out", folder / "out")
    found = json.loads(call("evaluate", folder / "out", folder / "truth", "--json"))
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": made.read_text(encoding="utf-8"),
        "machine": f"{os.environ.get('OMP_NUM_THREADS', os.cpu_count())} of {os.cpu_count()} cores "
        f"{platform.machine()}, torch {version('torch')}, "
        f"{started['device']} {started['precision']}",
        "method": method,
        "seed": seed,
        "steps": finished["step"],
        "seconds": round(finished["elapsed_s"]),
        "scores": found["summary"],
        "dice": {case: scores["mean_dice"] for case, scores in found["cases"].items()},
    }


def keep_slices(path: Path, every: int) -> None:
    """Make a label sparse: all but every Nth slice of its last axis become 255, not annotated."""
    label = nib.load(path)
    array = np.asarray(label.dataobj).astype(np.uint8)
    sparse = np.full_like(array, UNANNOTATED)
    sparse[..., every // 2 :: every] = array[..., every // 2 :: every]
    nib.save(nib.Nifti1Image(sparse, label.affine), path)


def line_of(row: Row) -> str:
    """One run as a row of a table."""
    scores, quality = row["scores"], row["scores"].get("uncertainty") or {}
    classes = scores["classes"].values()

    def over_cases(measure: str) -> str:
        mean, sd = (np.mean([c[measure][of] for c in classes]) for of in ("mean", "sd"))
        return f"{mean:.2f} ± {sd:.2f}"

    cells = [
        row["date"],
        row["commit"],
        row["method"],
        str(row["seed"]),
        f"{row['steps']} in {row['seconds']} s, {row['machine'].split()[-1]}",
        f"**{scores['mean_dice']:.4f}** ± {scores['sd_dice']:.4f}",
        " / ".join(f"{c['dice']['mean']:.4f}" for c in classes),
        over_cases("hd95_mm"),
        over_cases("asd_mm"),
        *(_number(quality.get(name)) for name in QUALITIES),
    ]
    return "| " + " | ".join(cells) + " |"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def summary(arguments: argparse.Namespace, rows: list[Row], supervised: list[Row]) -> str:
    """Return all runs, then mean and spread over seeds of each method, and its gain."""
    budget = arguments.time_limit or f"{arguments.steps or rows[0]['steps']} steps"
    settings = f", {', '.join(arguments.set)}" if arguments.set else ""
    if arguments.every > 1:
        settings += f", every {arguments.every}th slice annotated"
    head = (
        "date", "commit", "method", "seed", "steps", "Dice ± sd over cases", "per class",
        "HD95 mm", "ASD mm", "AUROC scan", "AUROC band", "ECE", "rank corr.",
    )  # fmt: skip
    lines = [
        f"### {arguments.data.name}, {arguments.labeled} labeled, {arguments.test} held out, "
        f"{budget}, preset {arguments.preset}{settings}",
        "",
        f"{', '.join(sorted({row['machine'] for row in rows}))}; `{command(arguments)}`",
        "",
        "| " + " | ".join(head) + " |",
        "|" + "---|" * len(head),
        *map(line_of, rows),
        "",
    ]
    for method in arguments.methods:
        scores = [row["scores"] for row in rows if row["method"] == method]
        distances = {
            name: [np.mean([c[key]["mean"] for c in s["classes"].values()]) for s in scores]
            for name, key in (("HD95", "hd95_mm"), ("ASD", "asd_mm"))
        }
        errors = [(s.get("uncertainty") or {}).get("ece") for s in scores]
        lines.append(
            f"- {method}, over {len(scores)} seed(s): Dice "
            f"{_over_seeds([s['mean_dice'] for s in scores], 4)}, "
            + ", ".join(f"{name} {_over_seeds(v, 2)} mm" for name, v in distances.items())
            + ("" if None in errors else f", ECE {_over_seeds(errors, 3)}")
        )
        if line := gain([*supervised, *rows], method):
            lines.append(line)
    return "\n".join(lines)


def gain(rows: list[Row], method: str) -> str | None:
    """How far a method is above supervised, over the seeds that both have."""
    dice = {(row["method"], row["seed"]): row.get("dice") for row in rows}
    means, seeds = [], []
    for (name, seed), ours in dice.items():
        theirs = dice.get((BASELINE, seed))
        if name != method or method == BASELINE or not ours or not theirs:
            continue
        if ours.keys() != theirs.keys():  # of other held-out cases
            continue
        gained = [ours[case] - theirs[case] for case in ours]
        means.append(float(np.mean(gained)))
        error = f" ± {np.std(gained, ddof=1) / len(gained) ** 0.5:.4f}" if len(gained) > 1 else ""
        higher = f"higher in {np.sum(np.array(gained) > 0)} of {len(gained)} cases"
        seeds.append(f"{means[-1]:+.4f}{error} (seed {seed}, {higher})")
    if not means:
        return None
    over = f", mean ± sd over seeds {_over_seeds(means, 4, sign='+')}" if len(means) > 1 else ""
    return f"- {method} above {BASELINE}, ± standard error over cases: {', '.join(seeds)}{over}"


def _over_seeds(values: list[float], digits: int, sign: str = "") -> str:
    spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):{sign}.{digits}f}{spread}"


def command(arguments: argparse.Namespace) -> str:
    """Return the command that gives a table again, without the folders of this machine."""
    parts = ["python benchmarks/accuracy.py --data FOLDER --work DIR"]
    for name in ("labeled", "test", "order", "preset", "time_limit", "steps", "device", "every"):
        if (value := getattr(arguments, name)) is not None:
            parts.append(f"--{name.replace('_', '-')} {value}")
    parts.append(f"--methods {' '.join(arguments.methods)}")
    parts.append(f"--seeds {' '.join(map(str, arguments.seeds))}")
    return " ".join([*parts, *(f"--set {pair}" for pair in arguments.set)])


def call(*arguments: object) -> str:
    """Run a command and return its standard output; what it says went wrong ends this one too."""
    process = subprocess.Popen([*COMMAND, *map(str, arguments)], stdout=subprocess.PIPE, text=True)
    try:
        output, _ = process.communicate()
    except KeyboardInterrupt:  # the command got it too, saves what it has and ends by itself
        process.communicate()
        sys.exit("Interrupted. The same command goes on from here.")
    if process.returncode:
        sys.exit(process.returncode)
    return output


if __name__ == "__main__":
    main()

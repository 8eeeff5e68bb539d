"""Measure accuracy on held-out scans by method and seed, with the gain over supervised training.

``python benchmarks/accuracy.py --data FOLDER --labeled 4 --methods supervised dycon --seeds 0 1 2
--time-limit 10m --work DIR [--order listed] [--set preprocessing.spacing=[1.25,1.25,1.25]]
[--record]``

``FOLDER`` holds ``images/`` and ``labels/``. In random order the first ``--labeled`` cases of
``numpy.random.default_rng(seed).permutation`` are labeled; in listed order the first by name, for
every seed. The last ``--test`` cases are held out and are not part of the project. All others are
unlabeled. Projects are created, trained, predicted and evaluated with the command line program;
every method has the same budget, and the last checkpoint is evaluated.

The gain of a method is the mean difference to ``supervised`` with the same seed over held-out
cases. The differences are paired, so that their standard error is much smaller than that of either
mean. It describes these two networks; the variation between initializations shows in the spread
over seeds.

Prints a Markdown table. Finished rows are stored in ``DIR/rows.jsonl`` and not computed again, and
an interrupted run is resumed. ``--record`` also writes the rows to a file in
``benchmarks/results/``, whose name is unique to the arguments. ``OMP_NUM_THREADS=1`` limits a run
to one core, so that two methods can be compared side by side under the same conditions.
"""

from __future__ import annotations

import argparse
import hashlib
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
UNCERTAINTY_METRICS = ("auroc", "auroc_foreground", "ece", "rank_correlation")
RESULTS = Path(__file__).with_name("results")
Row = dict[str, Any]
BASELINE = "supervised"


def main() -> None:
    """Compute missing rows and print the table."""
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
    parser.add_argument("--every", type=int, default=1, help="annotate only every Nth slice")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--record", action="store_true", help="also write results/accuracy-*.json")
    arguments = parser.parse_args()
    if arguments.every < 1:
        parser.error("--every takes 1 or more")
    if arguments.test < 1 or arguments.labeled < 1:
        parser.error("--test and --labeled take 1 or more")
    if (
        not 0
        < (cases := len(list_scan_names(arguments.data)))
        >= arguments.labeled + arguments.test
    ):
        parser.error(
            f"{arguments.data} has {cases} scan(s) NAME.nii.gz in images/; expected at least "
            f"--labeled {arguments.labeled} and --test {arguments.test} together"
        )
    arguments.work.mkdir(parents=True, exist_ok=True)
    store = arguments.work / "rows.jsonl"
    done = read_rows(store)
    rows = []
    for seed in arguments.seeds:  # seed by seed, so that methods can be compared early
        for method in arguments.methods:
            key = make_key(arguments, method, seed)
            if key not in done:
                done[key] = {"key": key, **measure(arguments, method, seed)}
                append_row(store, done[key])
                shutil.rmtree(arguments.work / key)  # the row is stored
            rows.append(done[key])
            print(format_row(done[key]), flush=True)
    done = read_rows(store)  # including rows of a concurrent call
    baseline = [done.get(make_key(arguments, BASELINE, seed)) for seed in arguments.seeds]
    table = summarize(arguments, rows, [row for row in baseline if row is not None])
    print("\n" + table)
    if arguments.record:
        record(arguments, rows)


def record(arguments: argparse.Namespace, rows: list[Row]) -> None:
    """Write the rows and the arguments to a new file in ``results/``."""
    RESULTS.mkdir(exist_ok=True)
    options = describe_arguments(arguments)
    result = {"benchmark": "accuracy", "commit": read_commit(), "arguments": options, "rows": rows}
    path = RESULTS / make_record_name(arguments)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def describe_arguments(arguments: argparse.Namespace) -> dict[str, str]:
    """Return the arguments that determine the result, without folders of this machine."""
    options = {
        name: str(value)
        for name, value in vars(arguments).items()
        if name not in ("work", "record")
    }
    return options | {"data": arguments.data.name}


def make_record_name(arguments: argparse.Namespace) -> str:
    """Return a file name that differs whenever an argument does.

    The main arguments are readable, a checksum covers all of them.
    """
    budget = arguments.time_limit or f"{arguments.steps}steps"
    seeds = "-".join(map(str, arguments.seeds))
    options = json.dumps(describe_arguments(arguments), sort_keys=True)
    checksum = hashlib.sha256(options.encode()).hexdigest()[:8]
    return (
        f"accuracy-{arguments.data.name}-{arguments.labeled}labeled-{'-'.join(arguments.methods)}-"
        f"{arguments.preset}-{budget}-seeds{seeds}-{checksum}.json"
    )


def read_rows(store: Path) -> dict[str, Row]:
    """Return the rows of earlier calls by key; ignore lines that are cut off."""
    rows = {}
    for line in store.read_text(encoding="utf-8").splitlines() if store.exists() else ():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        rows[row["key"]] = row
    return rows


def append_row(store: Path, row: Row) -> None:
    """Append a row on its own line, and flush it to disk."""
    with store.open("a+b") as file:
        file.seek(0)
        text = file.read()
        file.write(b"\n" * bool(text and not text.endswith(b"\n")))
        file.write(json.dumps(row).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def read_commit() -> str:
    """Return the checked-out commit, and whether the code differs from it."""
    git = ["git", "-C", str(Path(__file__).parent)]
    code = ("../napari_dycon", "accuracy.py")  # without results/, to which --record writes
    name, changed = (
        subprocess.run([*git, *rest], capture_output=True, text=True, check=False).stdout.strip()
        for rest in (("rev-parse", "--short", "HEAD"), ("status", "--porcelain", "--", *code))
    )
    return f"{name}, changed" if changed else name


def list_scan_names(data: Path) -> list[str]:
    """Return the sorted file names of all scans."""
    return sorted(path.name for path in (data / "images").glob("*.nii.gz"))


def make_key(arguments: argparse.Namespace, method: str, seed: int) -> str:
    """Return a name that is unique to the arguments of one run."""
    settings = "_".join(sorted(arguments.set))
    parts = [arguments.data.name, f"{arguments.labeled}of", f"{arguments.test}test"]
    parts += [arguments.order, method, arguments.preset, f"seed{seed}"]
    parts += [str(arguments.time_limit), str(arguments.steps), arguments.device, settings]
    parts += [f"every{arguments.every}"] if arguments.every > 1 else []
    return "-".join(parts).replace("/", "_")


def measure(arguments: argparse.Namespace, method: str, seed: int) -> Row:
    """Train, predict and evaluate one run."""
    names = list_scan_names(arguments.data)
    order = np.arange(len(names))
    if arguments.order == "random":
        order = np.random.default_rng(seed).permutation(len(names))
    folder = arguments.work / make_key(arguments, method, seed)
    project, commit_file = folder / "project", folder / "commit"
    if not commit_file.exists():
        shutil.rmtree(folder, ignore_errors=True)  # of an interrupted preparation
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
                    remove_annotations(folder / group / names[index], arguments.every)
        run_command("new", project, "--images", folder / "images", "--labels", folder / "labels")
        commit_file.write_text(read_commit(), encoding="utf-8")  # at the start of the run
    runs = sorted((project / "runs").glob("*/state/state.safetensors"))
    if runs:
        events = run_command("train", project, "--resume", runs[-1].parents[1].name, "--json")
    else:
        budget = ["--time-limit", arguments.time_limit] if arguments.time_limit else []
        budget += ["--steps", arguments.steps] if arguments.steps else []
        events = run_command(
            "train", project, "--method", method, "--preset", arguments.preset, *budget,
            "--device", arguments.device, "--seed", seed,
            *(f"--set={pair}" for pair in arguments.set), "--json",
        )  # fmt: skip
    started, finished = (json.loads(events.splitlines()[i]) for i in (0, -1))
    run_command("predict", project, "--images", folder / "test", "--out", folder / "out")
    evaluation = json.loads(run_command("evaluate", folder / "out", folder / "truth", "--json"))
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": commit_file.read_text(encoding="utf-8"),
        "machine": f"{os.environ.get('OMP_NUM_THREADS', os.cpu_count())} of {os.cpu_count()} cores "
        f"{platform.machine()}, torch {version('torch')}, "
        f"{started['device']} {started['precision']}",
        "method": method,
        "seed": seed,
        "steps": finished["step"],
        "seconds": round(finished["elapsed_s"]),
        "scores": evaluation["summary"],
        "dice": {case: scores["mean_dice"] for case, scores in evaluation["cases"].items()},
    }


def remove_annotations(path: Path, every: int) -> None:
    """Set all but every Nth slice along the last axis of a label to 255, unannotated."""
    label = nib.load(path)
    array = np.asarray(label.dataobj).astype(np.uint8)
    sparse = np.full_like(array, UNANNOTATED)
    sparse[..., every // 2 :: every] = array[..., every // 2 :: every]
    nib.save(nib.Nifti1Image(sparse, label.affine), path)


def format_row(row: Row) -> str:
    """Format one run as a row of the table."""
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
        *(_format_number(quality.get(name)) for name in UNCERTAINTY_METRICS),
    ]
    return "| " + " | ".join(cells) + " |"


def _format_number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def summarize(arguments: argparse.Namespace, rows: list[Row], supervised: list[Row]) -> str:
    """Return a table of all runs, then mean and spread over seeds and the gain of each method."""
    budget = arguments.time_limit or f"{arguments.steps or rows[0]['steps']} steps"
    settings = f", {', '.join(arguments.set)}" if arguments.set else ""
    if arguments.every > 1:
        settings += f", every {arguments.every}th slice annotated"
    head = (
        "date", "commit", "method", "seed", "steps", "Dice ± sd over cases", "per class",
        "HD95 mm", "ASD mm", "AUROC scan", "AUROC foreground", "ECE", "rank corr.",
    )  # fmt: skip
    lines = [
        f"### {arguments.data.name}, {arguments.labeled} labeled, {arguments.test} held out, "
        f"{budget}, preset {arguments.preset}{settings}",
        "",
        f"{', '.join(sorted({row['machine'] for row in rows}))}; `{format_command(arguments)}`",
        "",
        "| " + " | ".join(head) + " |",
        "|" + "---|" * len(head),
        *map(format_row, rows),
        "",
    ]
    for method in arguments.methods:
        scores = [row["scores"] for row in rows if row["method"] == method]
        distances = {
            name: [np.mean([c[key]["mean"] for c in s["classes"].values()]) for s in scores]
            for name, key in (("HD95", "hd95_mm"), ("ASD", "asd_mm"))
        }
        errors: list[Any] = [(s.get("uncertainty") or {}).get("ece") for s in scores]
        lines.append(
            f"- {method}, over {len(scores)} seed(s): Dice "
            f"{_format_mean([s['mean_dice'] for s in scores], 4)}, "
            + ", ".join(f"{name} {_format_mean(v, 2)} mm" for name, v in distances.items())
            + ("" if None in errors else f", ECE {_format_mean(errors, 3)}")
        )
        if line := describe_gain([*supervised, *rows], method):
            lines.append(line)
    return "\n".join(lines)


def describe_gain(rows: list[Row], method: str) -> str | None:
    """Describe the gain over supervised training for the seeds of both."""
    dice = {(row["method"], row["seed"]): row.get("dice") for row in rows}
    means, seeds = [], []
    for (name, seed), method_dice in dice.items():
        baseline_dice = dice.get((BASELINE, seed))
        if name != method or method == BASELINE or not method_dice or not baseline_dice:
            continue
        if method_dice.keys() != baseline_dice.keys():  # other held-out cases
            continue
        gains = [method_dice[case] - baseline_dice[case] for case in method_dice]
        means.append(float(np.mean(gains)))
        error = f" ± {np.std(gains, ddof=1) / len(gains) ** 0.5:.4f}" if len(gains) > 1 else ""
        higher = f"higher in {np.sum(np.array(gains) > 0)} of {len(gains)} cases"
        seeds.append(f"{means[-1]:+.4f}{error} (seed {seed}, {higher})")
    if not means:
        return None
    over = f", mean ± sd over seeds {_format_mean(means, 4, sign='+')}" if len(means) > 1 else ""
    return f"- {method} above {BASELINE}, ± standard error over cases: {', '.join(seeds)}{over}"


def _format_mean(values: list[float], digits: int, sign: str = "") -> str:
    spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):{sign}.{digits}f}{spread}"


def format_command(arguments: argparse.Namespace) -> str:
    """Return the command that reproduces a table, without folders of this machine."""
    parts = ["python benchmarks/accuracy.py --data FOLDER --work DIR"]
    for name in ("labeled", "test", "order", "preset", "time_limit", "steps", "device", "every"):
        if (value := getattr(arguments, name)) is not None:
            parts.append(f"--{name.replace('_', '-')} {value}")
    parts.append(f"--methods {' '.join(arguments.methods)}")
    parts.append(f"--seeds {' '.join(map(str, arguments.seeds))}")
    return " ".join([*parts, *(f"--set {pair}" for pair in arguments.set)])


def run_command(*arguments: object) -> str:
    """Run a command and return its standard output; exit with its status if it fails."""
    process = subprocess.Popen([*COMMAND, *map(str, arguments)], stdout=subprocess.PIPE, text=True)
    try:
        output, _ = process.communicate()
    except KeyboardInterrupt:  # the command receives it too, and ends after a checkpoint
        process.communicate()
        sys.exit("Interrupted. Run the same command to continue.")
    if process.returncode:
        sys.exit(process.returncode)
    return output


if __name__ == "__main__":
    main()

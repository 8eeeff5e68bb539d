"""Check and measure the engine on a CUDA GPU, in one command of at most eight minutes.

``python benchmarks/gpu.py --out FOLDER [--data DIR] [--budget-s 460] [--record NAME]``

The machine needs a CUDA build of torch, with numpy, scipy, scikit-image and safetensors. The other
dependencies of the engine are wheels of a few megabytes: monai, nibabel, filelock, pydantic and
their dependencies. On a machine with a package index, for the GPU machine's version of Python:

    python -m pip download --dest wheels --no-deps --only-binary :all: --python-version 3.12 \\
        --constraint constraints.txt monai nibabel filelock pydantic pydantic_core \\
        annotated-types typing-inspection typing_extensions importlib_resources

and on the GPU machine, from the root of the repository:

    python -m pip install --no-index --no-deps --target wheels/site wheels/*.whl
    PYTHONPATH=$PWD:$PWD/wheels/site python benchmarks/gpu.py --out gpu-results

Every section runs in its own process, so that neither an unrecoverable CUDA error nor a hang
affects the others. A failure is a row with its traceback. Results are written to ``gpu.json`` and,
one line per row, to ``SECTION.jsonl`` in FOLDER after each row, so that an interrupted command
leaves them too. ``--device cpu --quick`` runs all sections in less than two minutes with tiny
settings in one process; measurements that need CUDA are skipped. ``--record`` also writes
``results/gpu-NAME.json``.

Sections: environment, correctness (losses and gradients against float64 on the CPU), training
(speed, memory, idle GPU, waits), memory (half of the required memory), resume, prediction,
learning. The exit status is 1 where a check failed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Row = dict[str, Any]

# Seconds of each section in order of execution, for a budget of 460 s. Unused time is passed on.
SECTIONS = {
    "environment": 60,  # creates the scans
    "correctness": 55,
    "training": 130,
    "memory": 40,
    "resume": 35,
    "prediction": 55,
    "learning": 85,
}
FULL_BUDGET_S = 460.0
START_S = 15.0  # part of a section's time for the start and end of its process
RESULTS = Path(__file__).with_name("results")


def main() -> int:
    """Run the sections, print the table and one line of JSON."""
    arguments = parse_arguments()
    if arguments.section:
        return run_child(arguments)
    begin = time.monotonic()
    out: Path = arguments.out or Path(tempfile.mkdtemp(prefix="gpu-"))
    out.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="gpu-work-"))
    result: dict[str, Any] = {
        "format": "napari-dycon gpu benchmark",
        "version": 1,
        "device": arguments.device,
        "quick": arguments.quick,
        "commit": arguments.commit or read_commit(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "finished": False,
        "rows": [],
    }
    for row in run_sections(arguments, out, work, begin):
        result["rows"].append(row)
        print(describe(row), file=sys.stderr, flush=True)
        write_result(out, result)
    result["finished"] = True
    result["seconds"] = round(time.monotonic() - begin, 1)
    write_result(out, result)
    if arguments.record:
        RESULTS.mkdir(exist_ok=True)
        write_json(RESULTS / f"gpu-{arguments.record}.json", result)
    print(make_table(result["rows"]))
    print(json.dumps(result, separators=(",", ":")))
    return int(any(row["ok"] is False for row in result["rows"]))


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="folder of the results (default: a temporary one)")
    parser.add_argument("--data", type=Path, help="folder with images/ and labels/ (NIfTI)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="tiny settings, one process")
    parser.add_argument("--budget-s", type=float, default=FULL_BUDGET_S)
    parser.add_argument("--only", nargs="+", choices=tuple(SECTIONS), default=list(SECTIONS))
    parser.add_argument("--commit", default="", help="commit of the code, if git is not available")
    parser.add_argument("--isolate", action="store_true", help="use processes also with --quick")
    parser.add_argument("--record", metavar="NAME", help="also write results/gpu-NAME.json")
    parser.add_argument("--section", choices=tuple(SECTIONS), help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def run_sections(
    arguments: argparse.Namespace, out: Path, work: Path, begin: float
) -> Iterator[Row]:
    """Run every chosen section within its own time and the unused time of earlier ones."""
    isolated = arguments.isolate or not arguments.quick
    chosen = [name for name in SECTIONS if name in arguments.only]
    planned = 0.0
    for name in chosen:
        planned += SECTIONS[name] * arguments.budget_s / FULL_BUDGET_S
        seconds = planned - (time.monotonic() - begin)
        path = out / f"{name}.jsonl"
        path.unlink(missing_ok=True)
        if seconds <= (START_S if isolated else 0.0):
            yield make_row(name, "section", None, note="no time left")
        elif isolated:
            yield from run_process(arguments, name, seconds, path, work)
        else:
            yield from run_section(arguments, name, seconds, path, work)


def run_process(
    arguments: argparse.Namespace, name: str, seconds: float, path: Path, work: Path
) -> Iterator[Row]:
    """Run a section in a process, terminate it when its time is over, and read its rows."""
    command = [sys.executable, __file__, "--section", name, "--work", str(work)]
    command += ["--out", str(path.parent), "--device", arguments.device]
    command += ["--budget-s", str(seconds - START_S)]
    command += ["--quick"] if arguments.quick else []
    command += ["--data", str(arguments.data.absolute())] if arguments.data else []
    failed = None
    with (path.parent / f"{name}.log").open("w") as log:
        try:
            status = subprocess.run(command, timeout=seconds, stdout=log, stderr=log).returncode
            failed = f"the process ended with status {status}" if status else None
        except subprocess.TimeoutExpired:
            failed = f"terminated after {seconds:.0f} s"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    for line in lines:
        try:
            yield json.loads(line)
        except ValueError:  # incomplete line
            continue
    if failed:
        tail = (path.parent / f"{name}.log").read_text(errors="replace")[-4000:]
        yield make_row(name, "process", False, error=failed, traceback=tail)


def run_child(arguments: argparse.Namespace) -> int:
    """Run one section in this process."""
    path = arguments.out / f"{arguments.section}.jsonl"
    for row in run_section(arguments, arguments.section, arguments.budget_s, path, arguments.work):
        print(describe(row), flush=True)
    return 0


def run_section(
    arguments: argparse.Namespace, name: str, seconds: float, path: Path, work: Path
) -> Iterator[Row]:
    """Run the tasks of a section; yield a row for each, including failures."""
    deadline = time.monotonic() + seconds
    try:
        for task, compute in start_section(arguments, name, work, deadline):
            row = run_task(name, task, compute, deadline)
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            yield row
    except Exception as error:
        yield save_failure(path, make_failure(name, "section", error, 0.0))


def start_section(
    arguments: argparse.Namespace, name: str, work: Path, deadline: float
) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Import the engine, prepare a section, and return its tasks."""
    import gpu_context
    import gpu_prediction
    import gpu_runs
    import gpu_steps

    context = gpu_context.SectionContext.make(
        arguments.device, arguments.quick, arguments.data, work, deadline
    )
    sections: dict[str, Callable[[gpu_context.SectionContext], Iterator[gpu_context.Task]]] = {
        "environment": gpu_context.yield_environment_tasks,
        "correctness": gpu_steps.yield_correctness_tasks,
        "training": gpu_steps.yield_training_tasks,
        "memory": gpu_runs.yield_memory_tasks,
        "resume": gpu_runs.yield_resume_tasks,
        "prediction": gpu_prediction.yield_prediction_tasks,
        "learning": gpu_runs.yield_learning_tasks,
    }
    return sections[name](context)


def run_task(
    section: str, task: str, compute: Callable[[], dict[str, Any]], deadline: float
) -> Row:
    """Run one task; ``ok`` among its measures is the result of its check."""
    begin = time.monotonic()
    if begin >= deadline:
        return make_row(section, task, None, note="no time left")
    try:
        measures = compute()
    except Exception as error:
        return make_failure(section, task, error, time.monotonic() - begin)
    ok, note = measures.pop("ok", None), measures.pop("note", "")
    seconds = round(time.monotonic() - begin, 2)
    return make_row(section, task, ok, measures=measures, note=note, seconds=seconds)


def make_row(section: str, task: str, ok: bool | None, **values: Any) -> Row:
    """Make a row; ``ok`` is None without a check."""
    return {"section": section, "task": task, "ok": ok, "measures": {}, "note": "", **values}


def make_failure(section: str, task: str, error: Exception, seconds: float) -> Row:
    """Make the row of a task that raised an error."""
    first = (str(error).splitlines() or [""])[0]
    return make_row(
        section,
        task,
        False,
        error=f"{type(error).__name__}: {first}"[:300],
        traceback=traceback.format_exc()[-4000:],
        seconds=round(seconds, 2),
    )


def save_failure(path: Path, row: Row) -> Row:
    """Append the row of a section that could not run."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    return row


def write_result(out: Path, result: dict[str, Any]) -> None:
    """Write the rows so far."""
    write_json(out / "gpu.json", result)


def write_json(path: Path, value: object) -> None:
    """Write a file atomically."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def read_commit() -> str:
    """Return the commit of the code, or an empty text if it is unknown."""
    try:
        command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def describe(row: Row) -> str:
    """Format a row in one line."""
    word = {True: "ok", False: "FAILED", None: "-"}[row["ok"]]
    measures = ", ".join(f"{name} {format_value(v)}" for name, v in row["measures"].items())
    text = "; ".join(part for part in (measures, row["note"], row.get("error", "")) if part)
    return f"{row['section']:12} {row['task']:38} {word:7} {text}"


def make_table(rows: list[Row]) -> str:
    """Make a Markdown table of all rows."""
    lines = ["| section | task | check | result |", "|---|---|---|---|"]
    for row in rows:
        word = {True: "passed", False: "**failed**", None: ""}[row["ok"]]
        measures = ", ".join(f"{name} {format_value(v)}" for name, v in row["measures"].items())
        text = "; ".join(part for part in (measures, row["note"], row.get("error", "")) if part)
        lines.append(f"| {row['section']} | {row['task']} | {word} | {text.replace('|', '/')} |")
    return "\n".join(lines)


def format_value(value: object) -> str:
    """Format a value with rounded numbers."""
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
    if isinstance(value, dict):
        return "(" + ", ".join(f"{k} {format_value(v)}" for k, v in value.items()) + ")"
    if isinstance(value, list):
        return "[" + ", ".join(format_value(v) for v in value) + "]"
    return str(value)


if __name__ == "__main__":
    sys.exit(main())

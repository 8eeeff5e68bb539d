"""The complete workflow on the built-in dataset: create scans, train, predict, evaluate.

Four of sixteen synthetic scans are labeled and two are used for validation. The rest are unlabeled;
only the report reads their reference labels, to evaluate the predictions.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from napari_dycon.core.atomic import ensure_dir, write_json, write_text
from napari_dycon.demo.synthetic import CLASSES, write_cohort
from napari_dycon.engine.config import TrainConfig, make_config
from napari_dycon.errors import UserError
from napari_dycon.project.importing.create_project import create_project
from napari_dycon.project.runs.events import DemoEvent, Event
from napari_dycon.project.store import Project

OnEvent = Callable[[Event], None]
DEMO_MARKER = ".napari-dycon-demo"
N_CASES, N_LABELED, N_VALIDATION = 16, 4, 2
TIME_LIMIT_S = 240.0  # if no number of steps is given


def run_headless(out: Path, *, steps: int | None, on_event: OnEvent) -> None:
    """Create everything below ``out``, in this process and without a display.

    Parameters
    ----------
    out : folder of the demo
    steps : of training; without it, it ends after ``TIME_LIMIT_S``
    on_event : called with every event of the engine, and with ``demo`` events that hold a message
    """
    project = create_demo_project(out, on_event)
    _train_and_predict(project, make_demo_config(steps), on_event)
    write_demo_report(project, out, on_event)


def make_demo_config(steps: int | None) -> TrainConfig:
    """Create the configuration of the demo run, limited by steps or else by time."""
    if steps is not None:
        return make_config("dycon", steps=steps)
    return make_config("dycon", time_limit=TIME_LIMIT_S)


def create_demo_project(out: Path, on_event: OnEvent) -> Project:
    """Write the cohort and create a project in which only some cases have labels."""
    out = Path(out)
    if (out / "project").exists():
        raise UserError(
            f"{out} already contains a demo. Open it with `napari-dycon gui {out / 'project'}`, "
            "or choose another folder with --out."
        )
    ensure_dir(out)
    write_text(out / DEMO_MARKER, "Made by the demo; `make demo` regenerates it.\n")
    on_event(DemoEvent(message=f"Creating {N_CASES} synthetic scans in {out / 'cohort'}"))
    write_cohort(out / "cohort", cases=N_CASES)
    truth = sorted((out / "cohort" / "truth").iterdir())
    label_folder = out / "cohort" / "labels"
    label_folder.mkdir(exist_ok=True)
    for file in truth[: N_LABELED + N_VALIDATION]:
        shutil.copyfile(file, label_folder / file.name)
    project = create_project(
        out / "project", out / "cohort" / "images", label_folder, list(CLASSES)
    )
    for case in project.cases[N_LABELED : N_LABELED + N_VALIDATION]:
        project.set_split(case.id, "validation")
    return project


def _train_and_predict(project: Project, config: TrainConfig, on_event: OnEvent) -> None:
    from napari_dycon.engine.atlas.templates import attach_atlases
    from napari_dycon.engine.checkpoints.model_file import load_model
    from napari_dycon.engine.device import choose_device, choose_precision
    from napari_dycon.engine.inference.predict_scans import predict_cases
    from napari_dycon.engine.inference.progress import PredictionProgress
    from napari_dycon.engine.training.run import train

    for event in train(project, config):
        on_event(event)
    run = project.runs.get()
    device = choose_device(config.device).device
    dtype = choose_precision("auto", device)
    model = load_model(run.weights_path, device)
    cases = [case.id for case in project.unlabeled_cases()]
    progress = PredictionProgress(len(cases))
    model = attach_atlases(project, run, model, device, dtype, on_event, progress=progress)
    arguments = (project, run.id, model, cases, device, dtype)
    for event in predict_cases(*arguments, progress=progress):
        on_event(event)


def write_demo_report(project: Project, out: Path, on_event: OnEvent) -> Path:
    """Compare the predictions of the unlabeled cases with the truth; write ``report.md``."""
    from napari_dycon.demo.summary import write_markdown_report
    from napari_dycon.engine.evaluation.folders import evaluate_folders

    run = project.runs.get()
    prediction_folder = project.path / "predictions" / run.id
    # Cases that were only previewed belong to other splits.
    unlabeled_ids = {case.id for case in project.unlabeled_cases()}
    results_folder = out / "results"
    results_folder.mkdir(exist_ok=True)
    for file in sorted(prediction_folder.iterdir()):
        name = file.name.removesuffix(".nii.gz").removesuffix("_uncertainty")
        if name.removesuffix("_disagreement") in unlabeled_ids:
            shutil.copyfile(file, results_folder / file.name)
    result = evaluate_folders(results_folder, out / "cohort" / "truth")
    write_json(out / "report.json", result)
    metrics = run.read_metrics()
    introduction = [
        f"Of {N_CASES} synthetic scans, {N_LABELED} were labeled for training, {N_VALIDATION} for "
        f"validation, and {N_CASES - N_LABELED - N_VALIDATION} were unlabeled. Run {run.id} was "
        f"trained for {metrics.step} steps in {metrics.elapsed_s or 0:.0f} s. All results are for "
        "the unlabeled scans.",
        "",
        f"Masks, uncertainty and disagreement maps: `{results_folder.name}/`; project: `project/`.",
    ]
    path = out / "report.md"
    names = {c.value: c.name for c in project.classes}
    write_markdown_report(path, "DyCON on the synthetic dataset", introduction, result, names)
    dice = result["summary"]["mean_dice"]
    on_event(
        DemoEvent(
            message=f"Mean Dice {dice:.3f} on unlabeled scans; report in {path}",
            mean_dice=dice,
            report=str(path),
        )
    )
    return path

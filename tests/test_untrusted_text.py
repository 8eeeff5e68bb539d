"""Untrusted names are shown as plain text in pages, tables, terminals, windows and files."""

from __future__ import annotations

import ast
import csv
import io
import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from helpers.dicom_files import save_series
from helpers.nifti_files import save_nifti
from helpers.tiny_runs import TINY
from rich.console import Console

from napari_dycon import io as image_io
from napari_dycon.cli import console as terminal
from napari_dycon.cli.demo import show_demo
from napari_dycon.cli.tables import build_evaluation_table
from napari_dycon.cli.training_display import show_training
from napari_dycon.core import text as plain_text
from napari_dycon.core.text import escape_control_characters, escape_json, escape_rich_text
from napari_dycon.exports.options import ExportOptions
from napari_dycon.exports.registry import FORMATS, export
from napari_dycon.exports.report.html import render_page
from napari_dycon.project.importing.create_project import create_project
from napari_dycon.project.runs.events import DemoEvent, FinishedEvent, StartedEvent, WarningEvent
from napari_dycon.project.store import Project

Command = Callable[..., tuple[int, str, str]]
PACKAGE = Path(plain_text.__file__).parents[1]
NAMES = (
    "<img src=x onerror=1>",
    "<script>alert(1)</script>",
    "[bold]x[/bold][link=http://a.b]y[/link]",
    "%s%n%(name)s",
    "{0.__class__} {} ${name} $name",
    "two\nlines\r\n",
    "\x1b[31mred\x1b]0;title\x07\x9b2J",
    "=1+1|'&amp;\"`",
    ":smile: \\ \u202egnp.exe",
)


def rename_with_markup(project: Project) -> Project:
    """The project with all of these names, whoever wrote its file."""
    path = project.path / "project.json"
    values = json.loads(path.read_text("utf-8"))
    values["name"] = NAMES[0] + NAMES[6]
    values["classes"] = [
        {"value": n, "name": name[:60], "color": "#56b4e9"} for n, name in enumerate(NAMES, start=1)
    ]
    values["channels"] = [NAMES[1]]
    path.write_text(json.dumps(values), "utf-8")
    return Project.open(project.path)


class Page(HTMLParser):
    """Collects what a browser would act on."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.names: set[str] = set()
        self.targets: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.names |= {name for name, _ in attrs}
        self.targets += [v or "" for n, v in attrs if n in ("href", "src", "xlink:href", "action")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_report_contains_names_as_text(project: Project, tmp_path: Path) -> None:
    project = rename_with_markup(project)
    run = project.runs.create("dycon", {"method": NAMES[1]})
    run.metrics_path.write_text(json.dumps({"step": NAMES[0]}), "utf-8")
    run.config_path.write_text(json.dumps({"method": NAMES[1], "init_from": NAMES[0]}), "utf-8")
    out = export(project, "report", tmp_path / "out", ExportOptions(run=run.id)).document
    assert out is not None
    text = out.read_text("utf-8")
    found = Page()
    found.feed(text)
    assert not found.tags & {"script", "iframe", "object", "embed", "form", "base", "link"}
    assert not [name for name in found.names if name.startswith("on")]
    assert all(target.startswith(("#", "data:image/png")) for target in found.targets)
    for name in (*NAMES[:5], NAMES[7]):
        assert name in found.text
    assert "default-src 'none'" in text
    rows = list(csv.reader(io.StringIO((out.parent / "cases.csv").read_text("utf-8-sig"))))
    assert not [cell for row in rows for cell in row if cell[:1] in ("=", "@")]


def test_a_report_of_an_untrusted_project_is_escaped_as_well(project: Project) -> None:
    assert "<script" not in render_page(rename_with_markup(project), [], [], {}, {})


@pytest.mark.parametrize("as_json", [False, True])
def test_terminal_control_sequences_are_escaped(
    as_json: bool, project: Project, run: Command, state_folder: Path
) -> None:
    project = rename_with_markup(project)
    code, out, err = run("cases", project.path, *(["--json"] if as_json else []))
    assert code == 0
    for character in "\x1b\x9b\x07\r\u202e":
        assert character not in out + err
    if as_json:
        assert [c["name"] for c in json.loads(out)["classes"]] == [name[:60] for name in NAMES]
    else:
        flat = out.replace("\n", "")
        for name in ("[bold]x[/bold]", "%s%n%(name)s", "{0.__class__}", ":smile:", r"\x1b[31m"):
            assert name in flat
    for name in NAMES:
        code, out, err = run("predict", project.path, "--cases", name)
        assert code == 2
        assert len(err.splitlines()) == 1
        assert "\x1b" not in err
        code, out, err = run("cases", project.path / name.replace("/", "_").strip())
        assert code == 2
        assert "\x1b" not in err


def test_progress_and_tables_show_names_as_plain_text(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    console = Console(file=written, width=400, force_terminal=False)
    monkeypatch.setattr(terminal, "stderr_console", console)
    bar = terminal.make_progress_bar(False)
    column = bar.columns[0]
    for name in NAMES:
        task = bar.add_task(name)
        console.print(column(bar.tasks[task]))
        terminal.print_status(name)
        with show_demo(as_json=False) as show:
            show(DemoEvent(message=name))
    events = [
        StartedEvent(
            run=NAMES[2],
            labeled=1,
            unlabeled=1,
            device_reason=NAMES[6],
            precision=NAMES[2],
        ),
        WarningEvent(message=NAMES[2]),
        FinishedEvent(step=1, elapsed_s=1.0, dice=None),
    ]
    show_training(iter(events), False)
    scores = {"dice": 1.0, "jaccard": 1.0, "hd95_mm": 0.0, "asd_mm": 0.0, "volume_ml": 1.0,
              "reference_volume_ml": 1.0, "missed": 0}  # fmt: skip
    summary = {"cases": 1, "mean_dice": 1.0, "sd_dice": 0.0,
               "classes": {"1": {k: {"mean": v} for k, v in scores.items()}}}  # fmt: skip
    for name in NAMES:
        console.print(
            build_evaluation_table(
                {"summary": summary, "cases": {name: {"classes": {"1": scores}}}}
            )
        )
    err = written.getvalue()
    assert "\x1b" not in err
    assert err.count("[bold]x[/bold]") >= 6
    assert ":smile:" in err
    assert "\U0001f604" not in err


def test_control_characters_are_escaped() -> None:
    assert (
        escape_control_characters("a\x1b[0m\x9b\x07\r\u202e\ud800")
        == r"a\x1b[0m\x9b\x07\r\u202e\ud800"
    )
    assert escape_control_characters("Übung 中文\tα\n") == "Übung 中文\tα\n"
    text = escape_json(json.dumps("\x9b\u202e\x7f", ensure_ascii=False))
    assert text == r'"\u009b\u202e\u007f"'
    assert json.loads(text) == "\x9b\u202e\x7f"


@pytest.mark.parametrize(
    "text", [*NAMES, "<a href='file:///etc'>x</a>", "<!-- -->", "<?xml ?>", "&lt;b>", "</b>", "<b>"]
)
def test_qt_does_not_interpret_names_as_html(text: str) -> None:
    from qtpy.QtCore import Qt

    assert not Qt.mightBeRichText(escape_rich_text(text))
    assert escape_rich_text("a < b & c > d") == "a < b & c > d"


@pytest.mark.parametrize("format_", ["nifti", "nrrd", "nnunet", "monai-bundle", "dicom-seg"])
def test_exports_survive_any_name(format_: str, project: Project, tmp_path: Path) -> None:
    from napari_dycon.engine.checkpoints.model_file import TrainedModel, save_weights
    from napari_dycon.engine.config import make_config
    from napari_dycon.engine.network import build_network

    assert format_ in FORMATS
    if format_ == "dicom-seg":
        voxels = np.random.default_rng(0).integers(0, 99, (8, 9, 10)).astype(np.int16)
        save_series(tmp_path / "dicom" / "one", voxels, description=NAMES[6])
        project = create_project(tmp_path / "p", tmp_path / "dicom")
        (case,) = project.cases
        label = np.zeros(project.read_grid(case.id).shape, np.uint8)
        label[2:5] = 1
        project.labels.save(case.id, label)
    project = rename_with_markup(project)
    run = project.runs.create("dycon", {"method": "dycon"})
    planned = {
        "preprocessing.spacing": [1, 1, 1],
        "network.half_resolution": False,
        "preprocessing.normalization": "zscore",
    }
    config = make_config("dycon", **(TINY | planned))
    network = build_network(config, 1, len(NAMES) + 1)
    values = tuple(range(1, len(NAMES) + 1))
    save_weights(run.weights_path, TrainedModel(network, network, config, values, 1), 1)
    written = export(project, format_, tmp_path / "out", ExportOptions()).written
    assert written
    assert all(path.resolve().is_relative_to((tmp_path / "out").resolve()) for path in written)
    for path in (tmp_path / "out").rglob("*"):
        assert path.name.isprintable()
        assert not set(path.name) & set('<>:"|?*\\')
        if path.suffix == ".json":
            json.loads(path.read_text("utf-8"))
    if format_ == "monai-bundle":  # MONAI runs texts that begin with $ or look like a call
        about = tmp_path / "out" / "configs" / "metadata.json"
        for line in about.read_text("utf-8").splitlines():
            assert '": "$' not in line
            assert '": "@' not in line


def test_series_with_any_description_open(tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).integers(0, 99, (5, 9, 10)).astype(np.int16)
    for number, name in enumerate(NAMES):
        text = name[:60].replace("\u202e", "")  # which the character set of these files lacks
        save_series(tmp_path / str(number), voxels, description=text)
        assert image_io.read_volume(tmp_path / str(number)).shape
    path = save_nifti(tmp_path / "a.nii.gz", voxels)
    import nibabel as nib

    image = nib.load(path)
    image.header["descrip"], image.header["intent_name"] = NAMES[0].encode(), b"%s%n\x1b[31m"
    nib.save(image, tmp_path / "b.nii")
    volume = image_io.read_volume(tmp_path / "b.nii")
    assert volume.notes == image_io.read_volume(path).notes
    image_io.write_mask(np.zeros(volume.shape, np.uint8), reference=volume, path=tmp_path / "m.nii")
    assert NAMES[0].encode() not in (tmp_path / "m.nii").read_bytes()


# ---- The package itself --------------------------------------------------------------------------


def find_calls(name: str, path: Path) -> list[ast.Call]:
    tree = ast.parse(path.read_text("utf-8"))
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == name
    ]


def is_constant_text(node: ast.expr | None) -> bool:
    """Whether a text stands in the code and holds nothing from elsewhere."""
    return node is None or isinstance(node, ast.Constant)


def test_qt_labels_are_plain_text_unless_their_text_is_constant() -> None:
    """A ``QLabel`` guesses whether its text is HTML; ``make_plain_label`` does not."""
    # Bold titles and colored squares, from tables in the same file.
    known = {"shortcuts.py", "overlay_controls.py"}
    for path in sorted((PACKAGE / "widgets").rglob("*.py")):
        if path.name in known:
            continue
        tree = path.read_text("utf-8")
        for call in find_calls("QLabel", path):
            argument = call.args[0] if call.args else None
            assert is_constant_text(argument), f"{path.name}:{call.lineno}"
        for name in ("show_error", "show_warning", "show_info"):
            for call in find_calls(name, path):
                assert "escape_rich_text(" in ast.unparse(call), f"{path.name}:{call.lineno}"
        for call in find_calls("QMessageBox", path):
            assert "PlainText" in tree, f"{path.name}:{call.lineno}"


def test_consoles_print_only_plain_text() -> None:
    for path in sorted(PACKAGE.rglob("*.py")):
        if "bundle" in path.parts:
            continue
        for call in find_calls("print", path):
            assert path.name == "console.py", f"{path}:{call.lineno}"
        for call in find_calls("add_row", path):
            assert "cell" in ast.unparse(call), f"{path}:{call.lineno}"
        for call in find_calls("echo", path):
            assert "escape_control_characters" in ast.unparse(call) or "__version__" in ast.unparse(
                call
            )
        for name in ("debug", "info", "warning", "exception"):  # of loggers
            for call in find_calls(name, path):
                assert not call.args or isinstance(call.args[0], ast.Constant), f"{path}"

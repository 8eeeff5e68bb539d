"""Parts of pages that are generated from the code and the benchmark files.

What is between ``<!-- generated: NAME -->`` and ``<!-- end of NAME -->`` is the Markdown that
``GENERATORS[NAME]`` returns, so that the reference cannot drift from the program. It is stored in
the pages, which can be read without building the site: ``python docs/hooks.py`` updates it, and
a test checks that it is current. A marker without an end, of a file at the top of the repository,
is replaced when MkDocs builds the site.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
MARKER = re.compile(r"^<!-- generated: ([a-z-]+) -->$", re.MULTILINE)
BLOCK = re.compile(
    r"^<!-- generated: ([a-z-]+) -->\n(?:.*?\n)?<!-- end of \1 -->$", re.MULTILINE | re.DOTALL
)

# Links of the files at the top of the repository, as the site's pages name their targets.
LINKS = {
    "ARCHITECTURE.md": "architecture.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "concepts/data-safety.md",
    "docs/": "",
}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the markers of a page; called by MkDocs."""
    return MARKER.sub(lambda match: GENERATORS[match[1]](), _replace_blocks(markdown, "{text}"))


def update_page(markdown: str) -> str:
    """Return a page with its generated parts as they should be now."""
    return _replace_blocks(
        markdown, "<!-- generated: {name} -->\n\n{text}\n\n<!-- end of {name} -->"
    )


def _replace_blocks(markdown: str, template: str) -> str:
    def replace(match: re.Match[str]) -> str:
        text = GENERATORS[match[1]]().strip()
        return template.replace("{name}", match[1]).replace("{text}", text)

    return BLOCK.sub(replace, markdown)


def list_pages() -> list[Path]:
    """List the pages of the documentation."""
    return sorted((ROOT / "docs").rglob("*.md"))


def update_pages() -> list[Path]:
    """Update the generated parts of all pages; returns the pages that changed."""
    changed = []
    for page in list_pages():
        before = page.read_text(encoding="utf-8")
        if (after := update_page(before)) != before:
            page.write_text(after, encoding="utf-8", newline="\n")
            changed.append(page)
    return changed


def make_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for row in rows:
        cells = [str(cell).replace("|", "\\|").replace("\n", " ") for cell in row]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def document_commands() -> str:
    """Return every command with its arguments and options."""
    import typer

    from napari_dycon.cli.app import app

    root: Any = typer.main.get_command(app)
    parts = []
    for name, command in root.commands.items():
        if command.hidden:
            continue
        arguments = [p for p in command.params if p.param_type_name == "argument"]
        options = [p for p in command.params if p.param_type_name == "option" and not p.hidden]
        usage = [f"napari-dycon {name}"]
        usage += [p.name.upper() if p.required else f"[{p.name.upper()}]" for p in arguments]
        usage += [f"{p.opts[-1]} {p.metavar or p.name.upper()}" for p in options if p.required]
        text, _, example = inspect.cleandoc(command.help or "").partition("Example: ")
        parts += [f"## {name}", "", text.strip(), ""]
        parts += ["```text", " ".join([*usage, "[OPTIONS]"]), "```", ""]
        parts += ["Example:", "", "```bash", example.strip(), "```", ""] if example else []
        if arguments:
            meanings = [(f"`{p.name.upper()}`", getattr(p, "help", "") or "") for p in arguments]
            parts += [make_table(["argument", "meaning"], meanings), ""]
        rows = [
            (
                ", ".join(f"`{word}`" for word in p.opts),
                _describe_option_type(p),
                _describe_option_default(p),
                p.help or "",
            )
            for p in options
        ]
        if rows:
            parts += [make_table(["option", "value", "default", "meaning"], rows), ""]
    return "\n".join(parts)


def _describe_option_type(option: Any) -> str:
    if option.is_flag:
        return "flag"
    if option.metavar:
        return f"{option.metavar}, repeatable" if option.multiple else str(option.metavar)
    annotation = option.type_descriptor.annotation
    text = str(getattr(annotation, "__name__", annotation))
    words = {"str": "text", "int": "integer", "float": "number", "path": "path"}
    found = re.search(r"[a-z]+$|(str|int|float|Path)", text.replace("list", ""), re.IGNORECASE)
    name = words.get(found[0].lower(), "value") if found else "value"
    return f"{name}, repeatable" if option.multiple else name


def _describe_option_default(option: Any) -> str:
    if option.required:
        return "required"
    if option.is_flag or option.default is None or callable(option.default):
        return ""
    return f"`{option.default}`" if str(option.default) not in ("()", "[]", "") else ""


def document_settings() -> str:
    """Return every setting of a run, by group."""
    from napari_dycon.engine import config, config_errors

    titles = {
        name: inspect.cleandoc(field.annotation.__doc__ or "")
        for name, field in config.TrainConfig.model_fields.items()
        if inspect.isclass(field.annotation) and hasattr(field.annotation, "model_fields")
    }
    groups: dict[str, list[tuple[str, ...]]] = {}
    for name, field in config.iterate_settings():
        group = name.partition(".")[0] if "." in name else ""
        default = json.dumps(field.default, ensure_ascii=False)
        groups.setdefault(group, []).append(
            (
                f"`{name}`",
                f"`{default}`",
                config_errors.describe_type(field),
                config_errors.describe_range(field),
                field.description or "",
            )
        )
    parts = []
    for group, rows in groups.items():
        parts += [f"## {group or 'Run'}", titles.get(group, "The run itself."), ""]
        parts += [make_table(["setting", "default", "value", "range", "meaning"], rows), ""]
    return "\n".join(parts)


def document_presets() -> str:
    """Return every preset with the settings it changes."""
    from napari_dycon.engine import config, presets

    defaults = {name: field.default for name, field in config.iterate_settings()}
    parts = []
    for name in presets.list_presets():
        values = presets.load_preset(name)
        methods = values.pop("methods", {})
        parts += [f"## {name}", presets.describe_preset(name).rstrip(".") + ".", ""]
        rows = [
            (f"`{key}`", f"`{json.dumps(value)}`", f"`{json.dumps(defaults.get(key))}`", "all")
            for key, value in _flatten(values)
        ]
        for method, settings in methods.items():
            rows += [
                (
                    f"`{key}`",
                    f"`{json.dumps(value)}`",
                    f"`{json.dumps(defaults.get(key))}`",
                    f"`{method}`",
                )
                for key, value in _flatten(settings)
            ]
        parts += [make_table(["setting", "value", "built-in default", "methods"], rows), ""]
    return "\n".join(parts)


def _flatten(values: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    flat: list[tuple[str, Any]] = []
    for key, value in values.items():
        if isinstance(value, dict):
            flat += _flatten(value, f"{prefix}{key}.")
        else:
            flat.append((f"{prefix}{key}", value))
    return flat


def document_shortcuts() -> str:
    """Return the keyboard shortcuts; the module is parsed, since importing it needs a display."""
    source = (ROOT / "napari_dycon/widgets/window/shortcuts.py").read_text(encoding="utf-8")
    tree = ast.parse(source)
    ours = [
        (f"`{_format_key(str(node.args[0].value))}`", str(node.args[1].value))
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and getattr(node.func, "id", "") == "Shortcut"
        and len(node.args) > 1
        and isinstance(node.args[0], ast.Constant)
        and isinstance(node.args[1], ast.Constant)
    ]
    ours.append(("`Ctrl+1`, `Ctrl+2`, …", "select a structure by its number in the list"))
    theirs = next(
        ast.literal_eval(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "NAPARI_SHORTCUTS"
    )
    return "\n".join(
        [
            "## napari-dycon",
            "",
            make_table(["key", "action"], ours),
            "",
            "## napari",
            "",
            make_table(["key", "action"], [(f"`{key}`", text) for key, text in theirs]),
        ]
    )


def _format_key(key: str) -> str:
    return key.replace("Control", "Ctrl").replace("-", "+")


def document_events() -> str:
    """Return the events of runs and predictions, each with a table of its fields."""
    from napari_dycon.project.runs import events

    parts = []
    for model in events.EVENT_TYPES:
        parts += [f"## {model.model_fields['event'].default}", ""]
        parts += [inspect.cleandoc(model.__doc__ or ""), ""]
        rows = [
            (f"`{name}`", _describe_json_type(field.annotation), field.description or "")
            for name, field in model.model_fields.items()
            if name not in ("event", "time")
        ]
        if rows:
            parts += [make_table(["key", "type", "meaning"], rows), ""]
    return "\n".join(parts)


def _describe_json_type(annotation: Any) -> str:
    """Return the JSON type of a field in words."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _describe_json_type(arguments[0])
    if origin in (Union, UnionType):
        return " or ".join(map(_describe_json_type, arguments))
    if origin is Literal:
        return "text"
    if origin is dict:
        return f"object of {_describe_json_type(arguments[1])}"
    words = {
        str: "text",
        bool: "true or false",
        int: "integer",
        float: "number",
        type(None): "null",
    }
    return words[annotation]


def include_file(name: str) -> Callable[[], str]:
    """Return a generator of a file at the top of the repository, with links of the site."""

    def read() -> str:
        text = (ROOT / name).read_text(encoding="utf-8")
        for old, new in LINKS.items():
            text = text.replace(f"]({old}", f"]({new}")
        return text

    return read


def document_prediction_results() -> str:
    """Return the comparison of ways to predict, a table for each dataset."""
    parts = []
    for file in sorted(RESULTS.glob("predict-*.json")):
        result = json.loads(file.read_text(encoding="utf-8"))
        parts += [f"**{file.stem.removeprefix('predict-')}** ({_describe_origin(result)})", ""]
        parts += [_table_of_rows(result), ""]
    return "\n".join(parts)


def document_speed_results() -> str:
    """Return the time and memory of training steps."""
    result = json.loads((RESULTS / "speed.json").read_text(encoding="utf-8"))
    return f"{_describe_origin(result)}\n\n{_table_of_rows(result)}"


def document_training_time_results() -> str:
    """Return whether runs keep the chosen time, and what previews and validation cost."""
    result = json.loads((RESULTS / "training-time.json").read_text(encoding="utf-8"))
    return f"{_describe_origin(result)}\n\n{_table_of_rows(result)}"


FIGURES = ("median_ms", "worst_ms")  # of an interaction


def document_window_results() -> str:
    """Return how long the window is blocked by common actions."""
    result = json.loads((RESULTS / "window.json").read_text(encoding="utf-8"))
    figures = _flatten({key: result.get(key, {}) for key in ("no_window", "many_cases")})
    rows = [
        (key.replace("_", " "), _format_figure(value))
        for key, value in figures
        if not isinstance(value, list)
    ]
    parts = [
        _describe_origin({**result, **result.get("machine", {}), "machine": result["machine"]}),
        *_tabulate_interactions(result),
        "From the click on a case until its scan, and until all layers are shown:",
        _table_of_rows({"rows": result["show_case"]}),
        "A project of 2,000 cases:",
        make_table(["measure", "value"], rows),
    ]
    return "\n\n".join(parts)


def _tabulate_interactions(result: dict[str, Any]) -> list[str]:
    """Return a title and the table of interactions, if both kinds of scans were measured."""
    both = result.get("interactions_atrium", []), result.get("interactions_large", [])
    if not all(both):
        return []
    rows = [
        [row["interaction"], *(_format_figure(r[k]) for r in (row, large) for k in FIGURES)]
        for row, large in zip(*both, strict=True)
    ]
    header = ["interaction", "left atrium, ms (median)", "worst", "512 x 512 x 300", "worst"]
    return [
        "Longest blocking of the event loop by an interaction, with three views:",
        make_table(header, rows),
    ]


def _describe_origin(result: dict[str, Any]) -> str:
    machine = result.get("machine", "")
    if isinstance(machine, dict):
        machine = f"{machine.get('processor', '')}, {machine.get('cores', '?')} cores"
    command = str(result.get("command", "")).removeprefix("python ")
    return f"`python {command}`, commit {result.get('commit', 'unknown')}, {machine}"


def _table_of_rows(result: dict[str, Any]) -> str:
    rows = [dict(_flatten(row)) for row in result.get("rows", []) if isinstance(row, dict)]
    keys = list(dict.fromkeys(key for row in rows for key, _ in row.items()))
    if not rows or not keys:
        return ""
    return make_table(
        [key.replace("_", " ") for key in keys],
        [[_format_figure(row.get(key, "")) for key in keys] for row in rows],
    )


def _format_figure(value: object) -> str:
    if isinstance(value, list) and len(value) == 3:  # Dice, gain and its standard error
        return f"{value[0]:.4f} ({value[1]:+.4f} ± {value[2]:.4f})"
    if isinstance(value, list):
        return ", ".join(map(_format_figure, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


GENERATORS: dict[str, Callable[[], str]] = {
    "commands": document_commands,
    "settings": document_settings,
    "presets": document_presets,
    "shortcuts": document_shortcuts,
    "events": document_events,
    "contributing": include_file("CONTRIBUTING.md"),
    "architecture": include_file("ARCHITECTURE.md"),
    "changelog": include_file("CHANGELOG.md"),
    "predict": document_prediction_results,
    "speed": document_speed_results,
    "training-time": document_training_time_results,
    "window": document_window_results,
}


if __name__ == "__main__":
    for path in update_pages():
        sys.stdout.write(f"Updated {path.relative_to(ROOT)}\n")

"""Names shown for cases, which can be changed without renaming files.

The id of a case is part of the names of its label and predictions, of the records of its runs, and
of messages between sessions and engine processes. A run that is active, or another session, would
keep using the old id and write the label under it. Therefore only the name that is shown changes.
"""

from __future__ import annotations

from typing import Any

from napari_dycon.errors import UserError
from napari_dycon.project.case_ids import normalize_name
from napari_dycon.project.manifest import ManifestStore
from napari_dycon.project.models import MAX_NAME_LENGTH, Case


def describe_name_error(name: str, case_id: str, cases: list[Case]) -> str:
    """Describe why a case cannot have a name; empty if it can.

    Parameters
    ----------
    name : new name, without spaces at its ends
    case_id : id of the case to rename
    cases : all cases of the project
    """
    if not name:  # the id is shown again
        return ""
    if len(name) > MAX_NAME_LENGTH:
        return f"The name is too long; expected at most {MAX_NAME_LENGTH} characters."
    if not name.isprintable():
        return "The name contains characters that cannot be shown."
    key = normalize_name(name)
    for case in cases:
        if case.id != case_id and key in (normalize_name(case.id), normalize_name(case.name)):
            return f'There is already a case called "{case.display_name}".'
    return ""


def rename_case(manifest: ManifestStore, case_id: str, name: str) -> None:
    """Set the name that is shown for a case; see ``Project.rename_case``."""
    name = name.strip()
    case = manifest.get_case(case_id)
    if name == case.id:
        name = ""

    def change(values: dict[str, Any]) -> None:
        cases = [Case.model_validate(item) for item in values["cases"]]
        if error := describe_name_error(name, case_id, cases):
            raise UserError(error)
        for item in values["cases"]:
            if item["id"] == case_id:
                item["name"] = name

    manifest.edit(change)

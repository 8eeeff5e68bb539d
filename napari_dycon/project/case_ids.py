"""Case ids, which are valid file names on every system."""

from __future__ import annotations

import re
import unicodedata

# Ids become file names: no separators, hidden files, "..", or characters that Windows rejects.
_ID = re.compile(r"\w(?:[\w.+\- ]*[\w+\-])?")
_DIGITS = "0123456789\u00b9\u00b2\u00b3"  # Windows treats superscript digits as digits
_RESERVED = {"con", "prn", "aux", "nul", *(f"{d}{i}" for d in ("com", "lpt") for i in _DIGITS)}
MAX_ID_LENGTH = 150
MAX_ID_BYTES = 220  # file systems allow 255 with prefix and suffix


def is_case_id(text: object) -> bool:
    """Check that a value can be the id of a case (and therefore the name of its files)."""
    return bool(
        isinstance(text, str)
        and len(text) <= MAX_ID_LENGTH
        and _ID.fullmatch(text)
        and len(text.encode("utf-8")) <= MAX_ID_BYTES
        and ".." not in text
        and text.split(".")[0].strip().lower() not in _RESERVED
    )


def normalize_name(text: str) -> str:
    """Normalize a name so that names which some file system considers equal become equal.

    Case and Unicode composition are ignored.
    """
    folded = unicodedata.normalize("NFD", text).casefold()
    return unicodedata.normalize("NFC", folded)


def unique_case_id(name: str, taken_ids: set[str]) -> str:
    """Build a case id from a file name that is not among ``taken_ids``."""
    name = unicodedata.normalize("NFC", name)
    clean = "".join(c if c.isalnum() or c in "_-.+ " else "_" for c in name).strip(" .") or "case"
    while ".." in clean:
        clean = clean.replace("..", ".")
    clean = clean[:120].encode("utf-8")[: MAX_ID_BYTES - 20].decode("utf-8", "ignore").rstrip(" .")
    if not is_case_id(clean):
        clean = f"case_{clean}".rstrip(" .")
    result, number = clean, 2
    while result.lower() in taken_ids:
        result, number = f"{clean}-{number}", number + 1
    return result

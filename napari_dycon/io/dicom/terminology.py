"""Coded terms for the structures of DICOM segmentations, from a short searchable list.

DICOM requires a terminology code for every segment, so that programs understand it independently of
its name. The list contains terms common in MR and CT, with the spelling of the standard's code
dictionary; unknown classes are coded as "Tissue".
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

_ABNORMAL_STRUCTURE_CODE = "49755003"  # SNOMED CT's morphologically abnormal structure
_STOP_WORDS = frozenset({"of", "the", "and", "in"})


@dataclass(frozen=True)
class Code:
    """A term of a terminology and its category.

    ``scheme`` and ``category_scheme`` are DICOM's designators of terminologies, such as ``SCT`` for
    SNOMED CT. ``synonyms`` are other names for searching, which are not written to files.
    """

    value: str
    scheme: str
    meaning: str
    category_value: str
    category_scheme: str
    category_meaning: str
    synonyms: tuple[str, ...] = ()


def list_codes() -> tuple[Code, ...]:
    """List all terms, grouped by body part."""
    return _load()[0]


def search(text: str) -> list[Code]:
    """Find terms that contain every word of a text, in any order and case; the best first.

    The code of a term finds it as well.
    Matches of whole names come first, then of beginnings of names, of beginnings of words, and of
    other positions; an empty text matches all terms.
    """
    if by_code := [code for code in list_codes() if code.value == text.strip()]:
        return by_code
    query = " ".join(_split_words(text))
    ranked = [(_rank(code, query), code) for code in list_codes()]
    matches = [(rank, code) for rank, code in ranked if rank is not None]
    return [code for _, code in sorted(matches, key=lambda pair: pair[0])]


def suggest(class_name: str) -> Code:
    """Suggest the best term for a class name, "Tissue" if none matches.

    A term matches if all words of one of its names occur in the class name. Lesions are preferred
    to organs ("liver tumor"), then terms with more matching words, then those that match the last
    word of the class name, which is the head noun in English.
    """
    words = [_stem(word) for word in _split_words(class_name)]
    codes, generic = _load()
    best: tuple[tuple[bool, int, int], Code] | None = None
    for code in codes:
        for name in (code.meaning, *code.synonyms):
            name_words = {_stem(word) for word in _split_words(name)} - _STOP_WORDS
            if not name_words or not name_words <= set(words):
                continue
            last = max(words.index(part) for part in name_words)
            score = (code.category_value == _ABNORMAL_STRUCTURE_CODE, len(name_words), last)
            if best is None or score > best[0]:
                best = (score, code)
    return best[1] if best else generic


def _rank(code: Code, query: str) -> tuple[int, int] | None:
    """Rank a term for a query, smaller is better; ``None`` if a word is missing."""
    names = [" ".join(_split_words(name)) for name in (code.meaning, *code.synonyms)]
    words = query.split()
    text = " ".join(names)
    if not all(word in text for word in words):
        return None
    if query in names:
        return 0, names.index(query)
    if any(name.startswith(query) for name in names):
        return 1, 0
    return (2 if all(f" {word}" in f" {text}" for word in words) else 3), 0


def _split_words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.casefold())


def _stem(word: str) -> str:
    """Strip the plural s of a word."""
    return word[:-1] if len(word) > 3 and word.endswith("s") else word


@cache
def _load() -> tuple[tuple[Code, ...], Code]:
    """Load the list of terms and its generic term."""
    file = resources.files("napari_dycon") / "resources" / "terminology.json"
    values: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    codes = []
    for entry in values["codes"]:
        category = values["categories"][entry["category"]]
        codes.append(
            Code(
                value=entry["value"],
                scheme=entry["scheme"],
                meaning=entry["meaning"],
                category_value=category["value"],
                category_scheme=category["scheme"],
                category_meaning=category["meaning"],
                synonyms=tuple(entry["also"]),
            )
        )
    generic = next(code for code in codes if code.value == values["generic"])
    return tuple(codes), generic

"""Coded terms for what a segment shows, from a short list that can be searched.

DICOM wants every segment to carry a code of a terminology, so that programs understand it whatever
its class is called here. The list holds the terms that are common in MR and CT, as the standard's
own code dictionary spells them; a class that it does not know is a "Tissue".
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
    """A term of a terminology, and the kind of property it is.

    ``scheme`` and ``category_scheme`` are the designators that DICOM gives a terminology, such as
    ``SCT`` for SNOMED CT. ``synonyms`` are other names that the term is found by; no file holds
    them.
    """

    value: str
    scheme: str
    meaning: str
    category_value: str
    category_scheme: str
    category_meaning: str
    synonyms: tuple[str, ...] = ()


def list_codes() -> tuple[Code, ...]:
    """Every term, those of one part of the body beside each other."""
    return _load()[0]


def search(text: str) -> list[Code]:
    """Terms that hold every word of a text, in any order and case; the best first.

    Whole names come before beginnings of names, those before beginnings of words, and those before
    any other place; an empty text gives all.
    """
    query = " ".join(_split_words(text))
    ranked = [(_rank(code, query), code) for code in list_codes()]
    matches = [(rank, code) for rank, code in ranked if rank is not None]
    return [code for _, code in sorted(matches, key=lambda pair: pair[0])]


def suggest(class_name: str) -> Code:
    """Best term for a class of this name, "Tissue" where none fits.

    A term fits when all words of one of its names occur in the class name. A lesion comes before
    the organ that it lies in ("liver tumor"), then more words come before fewer, then the last
    word of the class name counts, which in English says what the thing is.
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
    """How well a term fits, smaller is better; ``None`` where a word is missing."""
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
    """Without the plural's s."""
    return word[:-1] if len(word) > 3 and word.endswith("s") else word


@cache
def _load() -> tuple[tuple[Code, ...], Code]:
    """Read the list and its generic term."""
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

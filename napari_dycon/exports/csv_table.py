"""CSV tables that spreadsheet programs open with the right characters and without formulas."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

BYTE_ORDER_MARK = "\ufeff"  # by which spreadsheet programs recognize UTF-8


def format_csv(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Format a table as CSV; the cells of ``rows`` are written as they are."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def encode_csv(text: str) -> bytes:
    """Encode a table as UTF-8 with a byte order mark."""
    return (BYTE_ORDER_MARK + text).encode("utf-8")


def escape_formula(text: str) -> str:
    """Escape text that a spreadsheet program would interpret as a formula."""
    is_formula = text.lstrip().startswith(("=", "+", "-", "@")) or text.startswith(
        ("\t", "\r", "\n")
    )
    return f"'{text}" if is_formula else text

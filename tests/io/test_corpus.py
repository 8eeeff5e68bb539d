"""Inputs that once caused a failure are handled; see ``benchmarks/fuzz_coverage.py``."""

from __future__ import annotations

import contextlib
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from napari_dycon.errors import DyconError

ROOT = Path(__file__).parents[2]
CORPUS = Path(__file__).parent / "corpus"


def fuzzing() -> ModuleType:
    """The benchmark as a module; what it searches with is only imported when it searches."""
    path = ROOT / "benchmarks" / "fuzz_coverage.py"
    spec = importlib.util.spec_from_file_location("fuzz_coverage", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "path", sorted(CORPUS.glob("*/*")), ids=lambda p: f"{p.parent.name}-{p.name}"
)
@pytest.mark.timeout(60)
def test_inputs_that_once_crashed_give_a_clear_error(path: Path, tmp_path: Path) -> None:
    attempt = fuzzing().make_targets(tmp_path)[path.parent.name]
    with pytest.raises(DyconError):
        attempt(path.read_bytes())


@pytest.mark.parametrize("target", ["project", "weights", "nifti", "nrrd", "events"])
def test_every_target_accepts_its_valid_inputs(target: str, tmp_path: Path) -> None:
    module = fuzzing()
    assert target in module.WORDS
    attempt = module.make_targets(tmp_path)[target]
    found = [path.read_bytes() for path in CORPUS.glob(f"{target}/*")]
    for seed in module.make_seeds(target, tmp_path):
        # Of scans and tensors that are not there, or what was found once.
        if target in ("project", "weights") or seed in found:
            with contextlib.suppress(DyconError):
                attempt(seed)
        else:
            attempt(seed)

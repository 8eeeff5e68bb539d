"""Compare labeling of suggested cases with labeling of random cases, by replay with true labels.

``python benchmarks/active_learning.py --data FOLDER --work DIR [--seeds 0 1 2] [--steps 800]``

The first four cases of ``numpy.random.default_rng(seed).permutation`` are labeled, the last
``--test`` are held out, and ``--pool`` others may be chosen. Twice, two cases of the pool receive
their true labels: the first two suggested ones, or two random ones (``--draws`` times). A new
network is trained in each round for the same number of steps with the same seed, so that only the
cases differ. Prints a Markdown table of the Dice of the last checkpoint on the held-out cases.

Finished rounds are stored in ``DIR/rounds.jsonl`` and not computed again.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from accuracy import run_command

from napari_dycon.application.active_learning import suggest_cases
from napari_dycon.project.store import Project

N_INITIAL, N_ADDED = 4, 2


def main() -> None:
    """Compute missing rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--pool", type=int, default=56)
    parser.add_argument("--test", type=int, default=40)
    parser.add_argument("--draws", type=int, default=2)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    print("| seed | chosen | cases | Dice with 4 | with 6 | with 8 |\n|---|---|---|---|---|---|")
    last: dict[bool, list[float]] = {True: [], False: []}
    for seed in arguments.seeds:
        replay = Replay(arguments, seed)
        for draw in (None, *range(arguments.draws)):
            chosen, dice = replay.run(draw)
            last[draw is None].append(dice[-1])
            name = "suggested" if draw is None else f"random {draw}"
            figures = " | ".join([*["–"] * (3 - len(dice)), *(f"{value:.4f}" for value in dice)])
            print(f"| {seed} | {name} | {', '.join(chosen)} | {figures} |", flush=True)
    for suggested, values in last.items():
        name = "suggested" if suggested else "random"
        print(f"- {name}: mean Dice with 8 labeled {np.mean(values):.4f} of {len(values)} runs")


class Replay:
    """Rounds of one seed; finished rounds are not trained again."""

    def __init__(self, arguments: argparse.Namespace, seed: int) -> None:
        self._arguments, self._seed = arguments, seed
        self._names = sorted(p.name for p in (arguments.data / "images").glob("*.nii.gz"))
        self._order = np.random.default_rng(seed).permutation(len(self._names)).tolist()
        self._store = arguments.work / "rounds.jsonl"
        self._known: dict[str, tuple[float, list[str]]] = {}
        if self._store.exists():
            for line in self._store.read_text(encoding="utf-8").splitlines():
                row = json.loads(line)
                self._known[row["key"]] = row["dice"], row["suggested"]

    def run(self, draw: int | None) -> tuple[list[str], list[float]]:
        """Return the names of the chosen cases and Dice with 4, 6 and 8 labels, or with 8 only.

        Random cases need no network in between.
        """
        labeled = self._order[:N_INITIAL]
        figures = []
        if draw is not None:
            rng = np.random.default_rng((self._seed, draw))
            drawn = rng.choice(self._pool(), 2 * N_ADDED, replace=False).tolist()
            labeled = labeled + drawn
        else:
            for _ in range(2):
                dice, suggested = self._round(labeled, suggest=True)
                figures.append(dice)
                labeled = labeled + [self._names.index(name) for name in suggested]
        figures.append(self._round(labeled, suggest=False)[0])
        return [self._names[i].split(".")[0] for i in labeled[N_INITIAL:]], figures

    def _pool(self) -> list[int]:
        pool: list[int] = self._order[N_INITIAL : N_INITIAL + self._arguments.pool]
        return pool

    def _round(self, labeled: Sequence[int], *, suggest: bool) -> tuple[float, list[str]]:
        """Train with these labels; return Dice on held-out cases and the two suggested cases."""
        key = f"{self._seed}-{self._arguments.steps}-{'-'.join(map(str, sorted(labeled)))}"
        known = self._known.get(key)
        if known is not None and (known[1] or not suggest):
            return known
        data, folder = self._arguments.data, self._arguments.work / key
        shutil.rmtree(folder, ignore_errors=True)
        held_out = self._order[-self._arguments.test :]
        groups = {
            ("images", "images"): [*self._order[:N_INITIAL], *self._pool()],
            ("labels", "labels"): labeled,
            ("images", "test"): held_out,
            ("labels", "truth"): held_out,
        }
        for (source, group), indices in groups.items():
            (folder / group).mkdir(parents=True)
            for index in indices:
                shutil.copyfile(
                    data / source / self._names[index], folder / group / self._names[index]
                )
        project = folder / "project"
        run_command("new", project, "--images", folder / "images", "--labels", folder / "labels")
        run_command(
            "train", project, "--steps", self._arguments.steps, "--device", "cpu",
            "--seed", self._seed, "--json",
        )  # fmt: skip
        run_command("predict", project, "--images", folder / "test", "--out", folder / "out")
        scores = json.loads(run_command("evaluate", folder / "out", folder / "truth", "--json"))
        suggested: list[str] = []
        if suggest:
            run_command("predict", project)
            opened = Project.open(project)
            names = {case.id: opened.image_paths(case.id)[0].name for case in opened.cases}
            suggested = [names[s.case] for s in suggest_cases(opened)[:N_ADDED]]
        self._known[key] = dice, _ = scores["summary"]["mean_dice"], suggested
        with self._store.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"key": key, "dice": dice, "suggested": suggested}) + "\n")
        shutil.rmtree(folder)
        return dice, suggested


if __name__ == "__main__":
    main()

"""Both sales as curves, second by second."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path


def waiting(paid: Sequence[int], delivered: Sequence[int]) -> list[int]:
    """Orders that are paid and have no key yet, at the end of each second."""
    both = itertools.zip_longest(paid, delivered, fillvalue=0)
    return list(itertools.accumulate(some - others for some, others in both))


def draw(path: Path, delivered: Mapping[str, Sequence[int]], waiting: Mapping[str, Sequence[int]]) -> None:
    """Write a PNG: orders delivered in each second, and below it those paid without a key, by design.

    Raises:
        ImportError: matplotlib is not installed: pip install 'tidegate[bench]'.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (upper, lower) = plt.subplots(2, 1, figsize=(9, 7), sharex=True, layout="constrained")
    for axes, curves, title in (
        (upper, delivered, "orders delivered in each second"),
        (lower, waiting, "orders paid, and no key yet"),
    ):
        for name, values in curves.items():
            axes.plot(range(len(values)), values, label=name)
        axes.set_title(title)
        axes.set_ylim(bottom=0)
        axes.grid(visible=True, alpha=0.3)
        axes.legend()
    lower.set_xlabel("seconds from the beginning of the sale")
    figure.savefig(path, dpi=110)
    plt.close(figure)

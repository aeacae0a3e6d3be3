"""Counters of somebody else's page of metrics, which go on where they were when their process starts anew."""

from __future__ import annotations

from gateway.admin import shapes

MOST_COUNTERS = 1000  # of a page that are remembered; of more, those no longer told are forgotten
Key = tuple[object, ...]


class Counters:
    """Those of one page. Like Prometheus, a counter that is less than before is taken to have begun at 0."""

    def __init__(self) -> None:
        self._last: dict[Key, shapes.Sample] = {}  # as the page told it
        self._before: dict[Key, float] = {}  # counted by processes that are gone

    def carried(
        self, told: dict[str, list[shapes.Sample]], names: set[str]
    ) -> dict[str, list[shapes.Sample]]:
        """A page's samples by metric, with what was counted before.

        Args:
            told: the samples; a counter that is not there any more is one that is at 0 again.
            names: of the metrics that were looked for.
        """
        samples = {sample_key(one): one for name in told for one in told[name] if _counts(name)}
        if len(samples.keys() | self._last.keys()) > MOST_COUNTERS:
            self._last = {key: one for key, one in self._last.items() if key in samples}
            self._before = {key: count for key, count in self._before.items() if key in samples}
        for key, last in self._last.items():
            if last["metric"] not in names:
                self._before.pop(key, None)
            elif key not in samples or samples[key]["value"] < last["value"]:
                self._before[key] = self._before.get(key, 0.0) + last["value"]
                samples.setdefault(key, {**last, "value": 0.0})
        self._last = samples
        carried = {name: ones for name, ones in told.items() if not _counts(name)}
        for key, one in samples.items():
            total: shapes.Sample = {**one, "value": one["value"] + self._before.get(key, 0.0)}
            carried.setdefault(one["metric"], []).append(total)
        return carried


def sample_key(sample: shapes.Sample) -> Key:
    """What tells it from others: its metric and labels."""
    return (sample["metric"], *sorted(sample["labels"].items()))


def _counts(metric: str) -> bool:
    return metric.endswith("_total")

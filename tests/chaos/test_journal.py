"""A client's journal: what it wrote is what is read, also after a crash."""

from __future__ import annotations

from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.chaos.journal import Journal, Operation, read

ENDS = st.sampled_from(["ok", "fail", "unknown", None])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=50)
@given(ends=st.lists(ENDS, max_size=10))
def test_what_has_no_end_is_unknown(tmp_path: Path, ends: list[str | None]) -> None:
    """Each try once, in the order of asking, however their answers came; no answer is unknown."""
    file = tmp_path / "client.jsonl"
    file.unlink(missing_ok=True)
    journal = Journal(file)
    numbers = [journal.invoke("order", key=str(n)) for n, _ in enumerate(ends)]
    for number, end in reversed(list(zip(numbers, ends, strict=True))):
        if end is not None:
            journal.end(number, end, status=number)  # type: ignore[arg-type]  # one of the three
    # Not closed: a client that is killed has written all the same.
    found = list(read([file]))
    journal.close()

    assert [each.asked["key"] for each in found] == [str(number) for number in numbers]
    assert [each.end for each in found] == [end or "unknown" for end in ends]
    assert all(isinstance(each, Operation) and each.op == "order" for each in found)

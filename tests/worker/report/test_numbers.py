"""Numbers and lists as the report writes them."""

from worker.report.numbers import count, duration, listed, points


def test_numbers() -> None:
    assert [duration(s) for s in (0, 9.94, 45, 60, 725, 3600, 12000, 187200)] == [
        "0.0 s", "9.9 s", "45 s", "1 min", "12 min 5 s", "1 h", "3 h 20 min", "2 d 4 h",
    ]  # fmt: skip
    assert [count(n) for n in (0, 12, 12.5, 1634, 4357.3)] == ["0", "12", "12.5", "1,634", "4,357"]
    assert [points(d) for d in (0.067, -0.012, 0.0)] == ["+6.7", "−1.2", "+0.0"]
    assert [listed(n) for n in ((), ("a",), ("a", "b"), ("a", "b", "c"))] == [
        "", "a", "a and b", "a, b and c",
    ]  # fmt: skip

"""Problems refuse together; notes do not."""

import pytest

from models.data.intake.findings import DomainRefused, Findings, listed


def test_all_problems_are_named_at_once() -> None:
    findings = Findings()
    findings.note("a", "code", "A note.")
    findings.refuse()
    findings.problem("a", "is wrong")
    findings.problem("b", "is wrong too")
    with pytest.raises(DomainRefused, match="2 problem") as refused:
        findings.refuse()
    assert [problem.where for problem in refused.value.problems] == ["a", "b"]


def test_long_lists_are_cut() -> None:
    names = [str(n) for n in range(12)]
    assert listed(names[:10]).count(",") == 9
    assert listed(names).endswith("9 and 2 more")

"""What each row took."""

import re

from tests.worker.report.reports import full
from worker.report import markdown


def test_every_part_is_told() -> None:
    text = markdown.render(full())
    assert "| CUT | −1.2 (−5.0 to +3.0) | – |" in text
    assert "| StyleFilter | – | **+20.0 (+5.0 to +30.0)** |" in text
    assert "| 128 px | 1,634 | 60.0 ± 10.0 | 55.0 ± 5.0 | +5.0 (+1.0 to +8.0) | 327 |" in text
    assert "| StyleFilter | 40 | 0 | 60.0 | +30.0 |" in text
    assert "| Target-only | 0 | 12.5 | 90.0 | +60.0 |" in text
    assert "| StyleFilter | 1 h 6 min | 6 min 40 s | 1.50 GB |" in text
    assert " 2 h 1 min;" in text
    assert "| pretrain | 1 and 2 | 2 min | CUT and Paul et al. |" in text
    assert re.search(r"\| StyleFilter \| .*validation masks \| 100 and 200 \| .*labels", text)
    assert re.search(r"\| Target-only \| .*validation masks \| 100 and 200 \| – \|", text)
    assert "- **Note**: fold 1, paul: half the crop" in text
    assert "| Paul et al. | 2 | 64 px | out of memory |" in text
    assert "- **torch**: 2.13.0" in text
    assert "| 1 | 80.0 (step 500) | 60.0 (step 750) | 60.0 (step 750) |" in text

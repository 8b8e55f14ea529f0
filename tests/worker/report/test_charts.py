"""Charts of a report."""

from pathlib import Path
from xml.etree import ElementTree

from tests.worker.report.reports import CHARTS, full
from worker.report.charts import draw, write_charts


def test_charts_are_the_same_each_time_and_stand_alone(tmp_path: Path) -> None:
    paths = write_charts(full(), tmp_path)
    assert [path.stem for path in paths] == list(CHARTS)
    first = [path.read_bytes() for path in paths]
    assert [path.read_bytes() for path in write_charts(full(), tmp_path)] == first
    for path in paths:
        root = ElementTree.parse(path).getroot()
        assert root.get("role") == "img"
        assert root.find("{*}metadata") is None
        assert root[0].get("fill") == "#ffffff"
    drawn = "".join(ElementTree.fromstring(draw("classes", full())).itertext())
    assert "mito" in drawn
    assert "nucleus" in drawn

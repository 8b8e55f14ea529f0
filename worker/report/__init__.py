"""A benchmark's report. No FastAPI and no torch here: the worker writes reports too.

``sections.py`` says what it holds, ``scores.py`` and ``effort.py`` its parts; ``markdown.py`` and
``html.py`` render it, ``charts.py`` and ``figure.py`` draw, ``files.py`` writes the folder.
"""

from worker.report.files import write

__all__ = ["write"]

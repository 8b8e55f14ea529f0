"""Write a benchmark's report, from the results of its jobs: a page, Markdown, JSON, pictures.

``parts.py`` reads the results, ``cells.py`` makes a cell of each part, and ``collect.py`` the
report of cells; ``__main__.py`` takes cells of several benchmarks. ``sections.py`` says what the
report shows, in the words of ``terms.py``, ``sentences.py``, ``score_sections.py``,
``verdict_section.py``, ``annotation_section.py`` and ``cost_sections.py``; ``markdown.py`` and
``html.py`` render that, ``charts.py`` and ``figure.py`` draw, and ``files.py`` writes the folder.
"""

"""Write a benchmark's report: from what its jobs left to a page, Markdown, JSON and pictures.

``parts.py`` reads what the jobs left and ``collect.py`` makes the report of it. ``sections.py``
says what the report shows, in the words of ``terms.py``, ``sentences.py``, ``score_sections.py``
and ``cost_sections.py``; ``markdown.py`` and ``html.py`` render that, ``charts.py`` and
``figure.py`` draw, and ``files.py`` writes the folder.
"""

"""Write a benchmark's report, from the results of its jobs: a page, Markdown, JSON, pictures.

``parts.py`` reads the results, and ``collect.py`` makes the report of them. ``sections.py``
says what the report shows, in the words of ``terms.py``, ``sentences.py``, ``score_sections.py``
and ``cost_sections.py``; ``markdown.py`` and ``html.py`` render that, ``charts.py`` and
``figure.py`` draw, and ``files.py`` writes the folder.
"""

"""The figures of ``stylefilter measure streams``, and their table."""

from statistics import median

from pydantic import BaseModel, Field
from rich.table import Table


class Plan(BaseModel):
    """The plan of a measurement: ``pairs`` of windows of time, one without and one with streams.

    ``jobs`` jobs are measured one after the other, each in so many pairs of windows.
    """

    streams: int
    jobs: int
    pairs: int
    seconds: float


class Start(BaseModel):
    """The seconds until a client hears of the first stage of a job, and of its first step.

    They count from the submission of the job, and from its claim by the worker.
    """

    claim_to_stage: float
    claim_to_step: float
    submission_to_stage: float
    submission_to_step: float


class Window(BaseModel):
    """The figures of one window of time, in which ``streams`` event streams were open."""

    streams: int
    steps_per_second: float
    api_cpu_share: float = Field(description="The share of a core that the API used.")
    api_rss_bytes: int
    clients_cpu_share: float = Field(
        description="The share of a core that the measuring process used to read all streams."
    )


class Delays(BaseModel):
    """The seconds from the storing of an event in the database to its arrival, over all streams."""

    arrivals: int
    median: float
    percentile_95: float


class Figures(BaseModel):
    """All figures of one run."""

    database: str
    plan: Plan
    ratio: float
    """The median, over pairs, of the speed with streams divided by the speed without."""
    ratio_quartiles: tuple[float, float]
    delays: Delays
    starts: list[Start]
    windows: list[Window]


def table(figures: Figures) -> Table:
    """Return a table of the medians of the figures."""
    plan, delays = figures.plan, figures.delays
    windows = f"{plan.jobs * plan.pairs} pairs of windows of {plan.seconds:g} s"
    title = f"{figures.database}, {plan.jobs} jobs, {windows}"
    shown = Table("", "0 streams", f"{plan.streams} streams", title=title)

    def row(words: str, name: str, unit: float, digits: int) -> None:
        values = (_middle(figures.windows, n, name) / unit for n in (0, plan.streams))
        shown.add_row(words, *(f"{value:.{digits}f}" for value in values))

    row("training steps per second", "steps_per_second", 1, 1)
    row("API: share of a core, %", "api_cpu_share", 0.01, 1)
    row("API: memory (RSS), MB", "api_rss_bytes", 1e6, 0)
    row("clients: share of a core, %", "clients_cpu_share", 0.01, 1)
    shown.add_row("training speed, with / without", "", f"{figures.ratio:.3f}")
    first, third = figures.ratio_quartiles
    shown.add_row("middle half of the pairs", "", f"{first:.3f} to {third:.3f}")
    shown.add_row("delay of an event, median, s", "", f"{delays.median:.2f}")
    shown.add_row("delay, 95th percentile, s", "", f"{delays.percentile_95:.2f}")
    shown.add_section()
    for origin in ("claim", "submission"):
        for what, words in (("stage", "first stage"), ("step", "first step")):
            seconds = median(getattr(start, f"{origin}_to_{what}") for start in figures.starts)
            shown.add_row(f"from {origin} to {words}, s", f"{seconds:.2f}", "")
    return shown


def _middle(windows: list[Window], streams: int, name: str) -> float:
    values: list[float] = [getattr(each, name) for each in windows if each.streams == streams]
    return median(values)

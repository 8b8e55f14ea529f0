"""The figures of ``stylefilter measure streams``, and their table."""

from statistics import median

from pydantic import BaseModel, Field
from rich.table import Table


class Plan(BaseModel):
    """What to measure: ``pairs`` of windows of each job, one without and one with streams."""

    streams: int
    jobs: int
    pairs: int
    seconds: float


class Start(BaseModel):
    """Seconds until a client hears of the first stage and its length, and of the first step."""

    claim_to_stage: float
    claim_to_step: float
    submission_to_stage: float
    submission_to_step: float


class Window(BaseModel):
    """What was measured in a window of time, while so many streams were open."""

    streams: int
    steps_per_second: float
    api_cpu_share: float = Field(description="The share of a core that the API used.")
    api_rss_bytes: int
    clients_cpu_share: float = Field(
        description="The share of a core that this process used; it reads all streams."
    )


class Delays(BaseModel):
    """Seconds from when the database stored an event until it arrived, in all streams."""

    arrivals: int
    median: float
    percentile_95: float


class Figures(BaseModel):
    """All figures of one run."""

    database: str
    plan: Plan
    ratio: float
    """The median, over pairs, of the speed with streams as a multiple of that without."""
    ratio_quartiles: tuple[float, float]
    delays: Delays
    starts: list[Start]
    windows: list[Window]


def table(figures: Figures) -> Table:
    """Return the figures as a table; it shows medians."""
    plan, delays = figures.plan, figures.delays
    windows = f"{plan.jobs * plan.pairs} pairs of windows of {plan.seconds:g} s"
    title = f"{figures.database}, {plan.jobs} jobs, {windows}"
    shown = Table("", "0 streams", f"{plan.streams} streams", title=title)

    def row(words: str, name: str, unit: float, digits: int) -> None:
        values = (_middle(figures.windows, n, name) / unit for n in (0, plan.streams))
        shown.add_row(words, *(f"{value:.{digits}f}" for value in values))

    row("steps of the training a second", "steps_per_second", 1, 1)
    row("the API's share of a core, %", "api_cpu_share", 0.01, 1)
    row("the API's memory (RSS), MB", "api_rss_bytes", 1e6, 0)
    row("the clients' share of a core, %", "clients_cpu_share", 0.01, 1)
    shown.add_row("steps a second, with : without", "", f"{figures.ratio:.3f}")
    first, third = figures.ratio_quartiles
    shown.add_row("middle half of the pairs", "", f"{first:.3f} to {third:.3f}")
    shown.add_row("an event's row to its arrival, s", "", f"{delays.median:.2f}")
    shown.add_row("95th percentile", "", f"{delays.percentile_95:.2f}")
    shown.add_section()
    for origin in ("claim", "submission"):
        for what, words in (("stage", "first stage"), ("step", "first step")):
            seconds = median(getattr(start, f"{origin}_to_{what}") for start in figures.starts)
            shown.add_row(f"{origin} to the {words} shown, s", f"{seconds:.2f}", "")
    return shown


def _middle(windows: list[Window], streams: int, name: str) -> float:
    values: list[float] = [getattr(each, name) for each in windows if each.streams == streams]
    return median(values)

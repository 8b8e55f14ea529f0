"""Write numbers and names for a report; scores in [0, 1] are written in percent."""

from models.table1.results import Spread

MISSING = "–"


def percent(score: float | None) -> str:
    return MISSING if score is None else f"{100 * score:.1f}"


def spread(score: Spread | None) -> str:
    """Write mean and standard deviation over the folds: ``38.2 ± 8.1``."""
    if score is None or score.mean is None:
        return MISSING
    return f"{percent(score.mean)} ± {percent(score.std)}"


def points(difference: float) -> str:
    """Write a difference: ``+6.7``; a typographic minus keeps the column's width."""
    return f"{100 * difference:+.1f}".replace("-", "−")


def duration(seconds: float) -> str:
    """Write a time in two units: ``4.2 s``, ``12 min 5 s``, ``3 h 20 min``, ``2 d 4 h``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    units = [(days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")]
    largest = next(index for index, (number, _) in enumerate(units) if number)
    return " ".join(f"{number} {unit}" for number, unit in units[largest : largest + 2] if number)


def count(number: float) -> str:
    """Write a mean over folds: ``12``, ``12.5``, ``1,634``."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.1f}".removesuffix(".0")


def listed(names: tuple[str, ...]) -> str:
    """Join names: ``a``; ``a and b``; ``a, b and c``."""
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


def short(text: str, length: int) -> str:
    """Cut a name that has more than ``length`` characters, and put it on one line."""
    flat = plain(text)
    return flat if len(flat) <= length else f"{flat[: length - 1]}…"


def plain(text: str) -> str:
    """Put a name on one line; characters that cannot be printed or that XML forbids are spaces."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())

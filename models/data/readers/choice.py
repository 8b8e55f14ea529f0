"""Choose the array to read where a file holds several."""

from collections.abc import Sequence

from models.data.readers.limits import ImageError
from models.data.readers.stack import Ask

_NAMED = 20


def the_array(names: Sequence[str], ask: Ask) -> str:
    """Return the name of the only array, or of the one that ``path`` names.

    ``path`` is the same for images and masks; a mask whose file holds one array needs none.

    Raises:
        ImageError: there is no array, or several, or none of that name.
    """
    wanted = (ask.options.path or "").strip("/")
    for name in names:
        if wanted and name.strip("/") == wanted:
            return name
    if not names:
        raise ImageError("holds no array of numbers with two or more axes")
    if len(names) == 1 and (not wanted or ask.purpose == "mask"):
        return names[0]
    listed = ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
    if wanted:
        raise ImageError(f"holds no array {wanted!r}; it holds {listed}")
    raise ImageError(f"holds {len(names)} arrays: name one in reading.path, of {listed}")

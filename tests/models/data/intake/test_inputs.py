"""Files that were given one by one."""

import io

from models.data.intake.inputs import InputFile, given_files


def test_given_files_are_in_natural_order_without_what_systems_leave() -> None:
    files = [InputFile(name, io.BytesIO()) for name in ("i/s10.png", "i/Thumbs.db", "i/s9.png")]
    given = given_files(files, [InputFile("m/__MACOSX/._a", io.BytesIO())])
    assert [image.name for image in given.images] == ["i/s9.png", "i/s10.png"]
    assert list(given.masks) == []
    assert list(given.passed_over) == ["i/Thumbs.db", "m/__MACOSX/._a"]

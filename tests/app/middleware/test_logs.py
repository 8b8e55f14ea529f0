"""Log lines as the API writes them."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.processes

SAYS = """
import logging
from app.middleware.logs import REQUEST_ID, write_log_lines
{before}
write_log_lines(logging.WARNING)
logging.getLogger("app.somewhere").warning("outside")
REQUEST_ID.set("abc")
logging.getLogger("app.somewhere").warning("inside")
logging.getLogger("app.somewhere").info("unsaid")
"""


def said(before: str = "") -> list[str]:
    command = [sys.executable, "-c", SAYS.format(before=before)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stderr.splitlines()


def test_a_line_names_the_request_that_it_belongs_to() -> None:
    outside, inside = said()
    assert outside.endswith("WARNING app.somewhere request=- outside")
    assert inside.endswith("WARNING app.somewhere request=abc inside")


def test_who_made_other_handlers_keeps_them() -> None:
    assert said("logging.basicConfig(format='own %(message)s')") == ["own outside", "own inside"]

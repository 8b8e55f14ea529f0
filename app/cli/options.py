"""Options that several commands share, and the help of each."""

import typer

SOURCE = typer.Option(
    exists=True,
    file_okay=False,
    help="The folder of the source, the microscope whose images have masks. It holds images/ and "
    "masks/ with PNG files of equal names, and meta.json, for example: "
    '{"name": "mine", "classes": ["background", "mitochondrion"], "pixel_size_nm": 8}',
)
TARGET = typer.Option(
    exists=True,
    file_okay=False,
    help="The folder of the target, the other microscope; it holds the same.",
)
PRESET = typer.Option(
    help="The set of all training numbers: smoke takes seconds and shows only that everything "
    "runs, quick takes minutes, paper has the numbers of the paper and needs a GPU."
)
TILE_PX = typer.Option(min=16, help="Side of the square tiles that get labels, in pixels.")
SEED = typer.Option(min=0, max=2**31 - 1, help="The seed of all randomness.")
SERVICE = typer.Option(help="The address of a running service; by default one is started.")
EMPTY_DATABASE = typer.Option(
    help="The URL of an empty database, which is filled and left so: give one that may be dropped. "
    "By default it is an SQLite file in a new folder."
)
FIGURES = typer.Option(help="A file that takes all figures, as JSON.")

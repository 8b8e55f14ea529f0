"""Options that several commands share, with their help texts."""

import typer

SOURCE = typer.Option(
    exists=True,
    file_okay=False,
    help="The folder of the source: images that have masks. It holds images/ and masks/ with PNG "
    "files, where a mask has the file name of its image, and a file meta.json such as "
    '{"name": "mine", "classes": ["background", "mitochondrion"], "pixel_size_nm": 8}.',
)
TARGET = typer.Option(
    exists=True,
    file_okay=False,
    help="The folder of the target: images of the other microscope. It has the same layout. Its "
    "masks give the image-level labels and the scores.",
)
PRESET = typer.Option(
    help="The set of training numbers: smoke takes seconds and only shows that everything runs, "
    "quick takes minutes, best trains longer on the source and lets labels choose how to adapt, "
    "and paper has the numbers of the paper and needs a GPU."
)
TILE_PX = typer.Option(
    min=16,
    help="The side of a tile, in pixels. A tile is a square part of a target image that has labels "
    "of its own.",
)
SEED = typer.Option(min=0, max=2**31 - 1, help="The seed of all random numbers.")
SERVICE = typer.Option(
    help="The address of a running service; without this option the command starts one."
)
EMPTY_DATABASE = typer.Option(
    help="The URL of an empty database. The command fills it and does not empty it again. Without "
    "this option it is an SQLite file in a temporary folder."
)
FIGURES = typer.Option(help="The file to write all figures to, as JSON.")
RUNNING = typer.Option("--url", help="The address of the service.")
SERVICE_URL = "http://127.0.0.1:8000"

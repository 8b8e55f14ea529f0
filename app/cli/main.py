"""The command ``stylefilter``. Each of its subcommands has a file of the same name."""

import typer

from app.cli.advice import next_tiles, probe, sources
from app.cli.benchmark import benchmark
from app.cli.count_mistakes import count_mistakes
from app.cli.demo import demo
from app.cli.inspect import compare, report
from app.cli.labels import derive_labels, export_labels, import_labels
from app.cli.measure.claims import claims
from app.cli.measure.data import data
from app.cli.measure.streams import streams
from app.cli.measure.training import training
from app.cli.openorganelle import openorganelle
from app.cli.register import list_datasets, register
from app.cli.table import table
from app.cli.up import migrate, up
from app.cli.verdict import verdict
from app.cli.watch import watch

cli = typer.Typer(
    help="Adapt a model that segments organelles to the images of another electron microscope.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",  # joins the lines of a paragraph
)
jobs = typer.Typer(
    help="Look at the jobs of a running service.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
jobs.command()(watch)
jobs.command()(verdict)
jobs.command()(probe)
datasets = typer.Typer(
    help="Register datasets, look at them, and fetch public ones.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
datasets.command()(register)
datasets.command(name="list")(list_datasets)
datasets.command()(report)
datasets.command()(compare)
datasets.command()(sources)
fetch = typer.Typer(
    help="Copy public images and their annotations into a folder to register.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
fetch.command()(openorganelle)
datasets.add_typer(fetch, name="fetch")
labels = typer.Typer(
    help="Label the images of a dataset of a running service: say for each class whether it is "
    "present, absent or unknown.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
labels.command("import")(import_labels)
labels.command("export")(export_labels)
labels.command("derive")(derive_labels)
labels.command("next")(next_tiles)
measure = typer.Typer(
    help="Measure the speed of training, of the database and of event streams.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
measure.command()(training)
measure.command()(data)
measure.command()(claims)
measure.command()(streams)
cli.command()(up)
cli.command()(migrate)
cli.command()(demo)
cli.command()(benchmark)
cli.command()(table)
cli.command()(count_mistakes)
cli.add_typer(datasets, name="datasets")
cli.add_typer(labels, name="labels")
cli.add_typer(jobs, name="jobs")
cli.add_typer(measure, name="measure")


def main() -> None:
    """Run the ``stylefilter`` command."""
    cli()


if __name__ == "__main__":
    main()

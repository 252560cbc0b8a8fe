"""The command line, ``eca-inspect``: reads options, calls the room that knows, prints."""

import typer

from service.cli import calibrate, judge, key, laboratory, serve, teacher, train
from service.cli.errors import CommandLine

app = typer.Typer(
    cls=CommandLine,
    help="Anomaly inspection: train a pair for a category, calibrate it, evaluate it, and serve it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for command in (
    train.train,
    train.train_many,
    calibrate.calibrate,
    calibrate.rollback,
    judge.evaluate,
    judge.inspect,
    judge.features,
    serve.serve,
    laboratory.synthesize,
    laboratory.reproduce,
):
    app.command()(command)

teacher_app = typer.Typer(help="Get and make teachers.", no_args_is_help=True)
teacher_app.command()(teacher.fetch)
teacher_app.command()(teacher.pretrain)
teacher_app.command()(teacher.distil)
app.add_typer(teacher_app, name="teacher")

key_app = typer.Typer(help="Say who may call the server.", no_args_is_help=True)
key_app.command("create")(key.create)
key_app.command("list")(key.list_)
key_app.command("revoke")(key.revoke)
app.add_typer(key_app, name="key")


def main() -> None:
    """Entry point of ``eca-inspect``."""
    app()

"""The command line ``eca-inspect``: each command reads its options, calls the module that does the work, and prints."""

import typer

from service.cli import calibrate, history, judge, key, laboratory, parts, serve, teacher, train
from service.cli.errors import CommandLine

app = typer.Typer(
    cls=CommandLine,
    help="Anomaly inspection: train, calibrate, evaluate and serve a pair of networks for each category.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for command in (
    train.train,
    train.retrain,
    train.train_many,
    calibrate.calibrate,
    calibrate.region,
    calibrate.rollback,
    calibrate.promote,
    calibrate.drop_candidate,
    judge.evaluate,
    judge.inspect,
    parts.inspect_part,
    judge.features,
    judge.model_card,
    serve.serve,
    laboratory.synthesize,
    laboratory.reproduce,
):
    app.command()(command)

teacher_app = typer.Typer(help="Download, import and train teachers.", no_args_is_help=True)
teacher_app.command()(teacher.fetch)
teacher_app.command()(teacher.pretrain)
teacher_app.command()(teacher.distil)
app.add_typer(teacher_app, name="teacher")

key_app = typer.Typer(help="Manage the API keys of the server.", no_args_is_help=True)
key_app.command("create")(key.create)
key_app.command("list")(key.list_)
key_app.command("revoke")(key.revoke)
app.add_typer(key_app, name="key")

history_app = typer.Typer(help="Keep a copy of the history.", no_args_is_help=True)
history_app.command("backup")(history.backup)
app.add_typer(history_app, name="history")


def main() -> None:
    """Entry point of ``eca-inspect``."""
    app()

"""Progress bars."""

from typing import Any

import typer
from tqdm import tqdm

from model.lab.reproduction.runs import Run
from model.lifecycle.distillation import Epoch


class EpochBar:
    """A progress bar that appears with the first epoch, so that a refused training shows none."""

    def __init__(self, name: str, epochs: int) -> None:
        self._name = name
        self._epochs = epochs
        self._bar: Any = None

    def show(self, epoch: Epoch) -> None:
        """Another epoch is done."""
        loss = f"{epoch.loss:.4g}"
        if self._bar is None:
            self._bar = tqdm(
                total=self._epochs,
                initial=epoch.number,
                unit="epoch",
                desc=self._name,
                dynamic_ncols=True,
                postfix={"loss": loss},
            )
        else:
            self._bar.set_postfix(loss=loss, refresh=False)
            self._bar.update()

    def close(self) -> None:
        """Leaves the bar as it is."""
        if self._bar is not None:
            self._bar.close()


class RunBar:
    """A progress bar for each run of a series, and one line when the run is done."""

    def __init__(self, epochs: int) -> None:
        self._epochs = epochs
        self._bar: EpochBar | None = None

    def show(self, run: Run, epoch: Epoch) -> None:
        """Another epoch of a run is done."""
        if self._bar is None:
            self._bar = EpochBar(f"{run.normal_class} {run.variant} {run.seed}", self._epochs)
        self._bar.show(epoch)

    def report(self, run: Run, result: dict[str, Any] | None) -> None:
        """A run is done, or its result already exists (`result` is None)."""
        self.close()
        if result is None:
            outcome = "already done"
        elif "failed" in result:
            outcome = str(result["failed"])
        else:
            outcome = f"AUROC {result['auroc']:.4f}, {result['training_seconds']:.0f} s of training"
        typer.echo(f"{run.dataset} {run.normal_class}, {run.variant}, seed {run.seed}: {outcome}", err=True)

    def close(self) -> None:
        """Leaves the bar as it is."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

"""A progress bar for boosting."""

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from mtl_tabular.boosting.training import Round


class ProgressBar:
    """Callback that draws one bar a block, with training and held-out loss.

    Bars of blocks that stop early end where they stop.
    """

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._bars: dict[str, TaskID] = {}

    def __call__(self, told: Round) -> None:
        """Move the block's bar."""
        if self._progress is None:
            self._progress = Progress(
                TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
                TextColumn("{task.fields[losses]}"),
            )  # fmt: skip
            self._progress.start()
        if told.block not in self._bars or told.round == 1:
            self._bars[told.block] = self._progress.add_task(told.block, losses="")
        losses = f"loss {told.loss:.4g}"
        if told.held_out == told.held_out:
            losses += f", held out {told.held_out:.4g}"
        self._progress.update(
            self._bars[told.block], total=told.rounds, completed=told.round, losses=losses
        )

    def close(self) -> None:
        """Leave the bars as they are and give the terminal back."""
        if self._progress is not None:
            self._progress.stop()
        self._progress, self._bars = None, {}

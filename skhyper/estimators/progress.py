"""Who watches a run: scikit-learn's callbacks where the installed version has them, and `verbose`."""

from collections.abc import Callable
from typing import Any

from ..core.result import Record


class Watch:
    """Tells a search's callbacks and its reader how the run goes.

    Parameters
    ----------
    search : estimator
        Its callbacks are told, if its scikit-learn has any.
    x, y
        The training data, for the callbacks.
    verbose : int
        0: silent; 1: a line a stage; 2 and more: a line an evaluation.
    write : callable
        What prints a line.
    """

    def __init__(self, search: Any, x: Any, y: Any, verbose: int, write: Callable[[str], None] = print) -> None:
        self.search, self.verbose, self.write = search, int(verbose), write
        self.data = {"estimator": search, "X": x, "y": y}
        self.stage = ""
        self.context = None
        if hasattr(search, "_init_callback_context"):
            self.context = search._init_callback_context(max_subtasks=None)
            self.context.call_on_fit_task_begin(**self.data)

    def __call__(self, record: Record) -> None:
        """One evaluation."""
        if self.context is not None:
            step = self.context.subcontext(task_name=record.stage)
            step.call_on_fit_task_begin(**self.data)
            step.call_on_fit_task_end(**self.data)
        if self.verbose > 1 or (self.verbose == 1 and record.stage != self.stage):
            self.write(
                f"[{record.seconds:7.2f} s] {record.stage}: outer loss {record.value:.6g}, "
                f"log alpha {record.log_alpha:.4g}, exponent {record.exponent:g}"
            )
        self.stage = record.stage

    def say(self, line: str) -> None:
        """Print a line unless silent."""
        if self.verbose > 0:
            self.write(line)

    def end(self) -> None:
        """The run is over."""
        if self.context is not None:
            self.context.call_on_fit_task_end(**self.data)


def as_columns(history: tuple[Record, ...]) -> dict[str, list[Any]]:
    """The history as columns, for a frame."""
    return {name: [getattr(record, name) for record in history] for name in Record._fields}

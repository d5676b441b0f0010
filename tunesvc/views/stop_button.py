"""The Stop button below the view of a background run, where anywidget is installed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anywidget
import traitlets


class StopButton(anywidget.AnyWidget):
    """A button that a kernel answers.

    It shows itself while the kernel beats, so that none remains in a notebook that was saved.
    """

    _esm = (Path(__file__).parent / "stop_button.js").read_text(encoding="utf-8")
    beat = traitlets.Int(0).tag(sync=True)
    state = traitlets.Unicode("running").tag(sync=True)
    """`running`, `stopping` or `ended`."""

    def __init__(self, stop: Callable[[], None]) -> None:
        """`stop`: called on a click."""
        super().__init__()
        self.on_msg(lambda _widget, _message, _buffers: stop())

    def show(self, display_id: str) -> None:
        """Display it in the current cell. Frontends without widgets show nothing."""
        from IPython.display import display

        bundle, _ = self._repr_mimebundle_()
        shown = {**bundle, "text/plain": "", "text/html": ""}
        display(shown, raw=True, display_id=display_id)  # type: ignore[no-untyped-call]

    def refresh(self, state: str) -> None:
        """Show that the kernel lives, and the run's state."""
        self.state = state
        self.beat += 1

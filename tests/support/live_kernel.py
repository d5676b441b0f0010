"""A notebook's kernel, and what its cells show, as a frontend keeps it: outputs are replaced by their
display ids, and widgets are models."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.manager import KernelManager

PATIENCE_S = 200.0


class LiveKernel:
    """A real kernel with the cells that it ran. A context manager."""

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        self.manager = KernelManager(kernel_name="python3")
        self.manager.start_kernel(cwd=str(folder), env=dict(env))
        self._client = self.manager.client()
        self._client.start_channels()
        self._client.wait_for_ready(timeout=PATIENCE_S)
        self.cells: list[Any] = []
        self.widgets: dict[str, dict[str, Any]] = {}
        """State of each open widget by its model's id."""
        self._cell_of: dict[str, Any] = {}
        self._idle: set[str] = set()
        self._is_open = True
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> LiveKernel:
        return self

    def __exit__(self, *_: object) -> None:
        self._is_open = False
        self._reader.join()
        self._client.stop_channels()
        if self.manager.has_kernel:
            self.manager.shutdown_kernel(now=True)

    def begin(self, source: str) -> Any:
        """Begin a cell and return it."""
        cell = nbformat.v4.new_code_cell(source)
        message = self._client.execute(source)
        self._cell_of[message] = cell
        self.cells.append(cell)
        return cell

    def run(self, source: str) -> Any:
        """Run a cell to its end and return it."""
        cell = self.begin(source)
        self.wait_for(lambda: self.is_done(cell), source)
        return cell

    def is_done(self, cell: Any) -> bool:
        """Return True once the kernel is idle after a cell."""
        return any(self._cell_of.get(message) is cell for message in list(self._idle))

    def send(self, model_id: str, content: Any) -> None:
        """Send a widget's message to the kernel, as `model.send` in a browser."""
        data = {"method": "custom", "content": content}
        message = self._client.session.msg("comm_msg", {"comm_id": model_id, "data": data})
        self._client.shell_channel.send(message)

    def notebook(self) -> Any:
        """Return the notebook as it would be saved now."""
        cells = []
        for cell in self.cells:
            outputs = [
                {key: value for key, value in output.items() if key != "display_id"}
                for output in cell.outputs
            ]
            cells.append(nbformat.v4.new_code_cell(cell.source, outputs=outputs))
        return nbformat.v4.new_notebook(cells=cells)

    @staticmethod
    def wait_for(condition: Callable[[], object], about: str) -> None:
        """Wait until the condition is true."""
        until = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < until, f"not within {PATIENCE_S} s: {about}"
            time.sleep(0.05)

    def _read(self) -> None:
        while self._is_open:
            try:
                message = self._client.get_iopub_msg(timeout=0.2)
            except queue.Empty:
                continue
            self._take(message["msg_type"], message["content"], message["parent_header"])

    def _take(self, kind: str, content: Any, parent: Any) -> None:
        cell = self._cell_of.get(parent.get("msg_id"))
        if kind == "status" and content["execution_state"] == "idle":
            self._idle.add(parent.get("msg_id"))
        elif kind == "update_display_data":
            self._replace(content)
        elif kind in ("display_data", "execute_result") and cell is not None:
            output = nbformat.v4.new_output("display_data", data=content["data"])
            output["display_id"] = content.get("transient", {}).get("display_id")
            cell.outputs.append(output)
        elif kind == "stream" and cell is not None:
            cell.outputs.append(nbformat.v4.new_output("stream", **content))
        elif kind == "error" and cell is not None:
            cell.outputs.append(nbformat.v4.new_output("error", **content))
        elif kind == "comm_open":
            self.widgets[content["comm_id"]] = dict(content["data"].get("state", {}))
        elif kind == "comm_msg":
            self.widgets[content["comm_id"]].update(content["data"].get("state", {}))
        elif kind == "comm_close":
            self.widgets.pop(content["comm_id"], None)

    def _replace(self, content: Any) -> None:
        for cell in self.cells:
            for output in cell.outputs:
                if output.get("display_id") == content["transient"]["display_id"]:
                    output["data"] = nbformat.from_dict(content["data"])


def html_of(cell: Any) -> str:
    """Return the first HTML that a cell shows now; empty without one."""
    for output in cell.outputs:
        if "text/html" in output.get("data", {}):
            html: str = output["data"]["text/html"]
            return html
    return ""


def text_of(cell: Any) -> str:
    """Return what a cell has printed, and the names and texts of its errors."""
    parts = []
    for output in cell.outputs:
        if output.output_type == "stream":
            parts.append(output.text)
        elif output.output_type == "error":
            parts.append(f"{output.ename}: {output.evalue}\n")
    return "".join(parts)

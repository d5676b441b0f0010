"""Runs in a real kernel, and their cells in Chromium; real Postgres and Ray."""

from __future__ import annotations

import base64
import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbconvert import HTMLExporter
from playwright.sync_api import BrowserContext, Page, expect

import tunesvc.views.notebook_view
from tests.support.command_line import Tune
from tests.support.live_kernel import LiveKernel, html_of, text_of
from tests.support.ray_fixtures import address_of_local_ray

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "studies" / "notebook.ipynb"
GUIDE = ROOT / "docs" / "notebooks.md"
ESM = Path(tunesvc.views.notebook_view.__file__).with_name("stop_button.js")
OBJECTIVES = """
import time
from typing import Annotated

import tunesvc
from tunesvc import Choice, Float, Trial, tunable

OPTIONS = dict(metric="loss", sampler="random", seed=1, parallelism=2, resources={"cpu": 0.5})


@tunable(**OPTIONS)
def train(
    lr: Annotated[float, Float(0.0, 1.0)],
    solver: Annotated[str, Choice("sgd", "<script>document.title = 'acted'</script>")],
    *,
    trial: Trial,
) -> float:
    for epoch in range(5):
        trial.report(epoch, loss=lr + 1 / (1 + epoch))
        time.sleep(0.4)
    return lr


@tunable(**OPTIONS)
def broken(lr: Annotated[float, Float(0.0, 1.0)]):
    return lr * undefined_name
"""
BACKGROUNDS = {"light": ("#fff", "#212121"), "dark": ("#111", "#e0e0e0")}


@pytest.fixture(scope="module")
def env(
    tmp_path_factory: pytest.TempPathFactory, postgres_url: str, tune_home: Path, local_ray: None
) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("notebook")
    made = Tune(folder, tune_home, TUNE_DATABASE_URL=postgres_url)
    return {**made.env, "RAY_ADDRESS": address_of_local_ray(), "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module")
def postgres_url(databases: Any) -> Iterator[str]:
    with databases.migrated() as url:
        yield url


@dataclass
class Shown:
    """Cells in each state that a run can have, as HTML."""

    cards: dict[str, str]
    saved: Any
    """The notebook as it was saved while the run `stopped` was running."""


def test_the_example_runs_and_shows_itself(env: dict[str, str], tmp_path: Path) -> None:
    source = nbformat.read(EXAMPLE, as_version=4)  # type: ignore[no-untyped-call]
    assert [cell.outputs for cell in source.cells if cell.cell_type == "code"] == [[]] * 6
    with LiveKernel(tmp_path, env) as kernel:
        done = [kernel.run(cell.source) for cell in source.cells if cell.cell_type == "code"]
    assert [text_of(cell) for cell in done[:5]] == [""] * 5
    assert "all 30 trials are done" in html_of(done[1]), "replaced until the end"
    assert "finished" in html_of(done[2])
    for cell in done[3:5]:
        assert "application/vnd.plotly.v1+json" in cell.outputs[0].data, "a figure, by itself"
    assert re.match(r"\{'lr': .*\} 0\.\d+", text_of(done[5]))


@pytest.mark.slow
def test_a_cell_that_tunes_shows_the_run_until_its_end(env: dict[str, str], tmp_path: Path) -> None:
    with LiveKernel(tmp_path, env) as kernel:
        kernel.run(OBJECTIVES)
        cell = kernel.begin("study = train.tune(trials=4, name='in a cell')")
        kernel.wait_for(lambda: 'class="spark"' in html_of(cell), "running trials")
        assert "interrupting the cell ends the run in order" in html_of(cell)
        kernel.wait_for(lambda: kernel.is_done(cell), "the run")
        assert "all 4 trials are done" in html_of(cell)
        assert 'role="progressbar"' in html_of(cell)
        assert len(cell.outputs) == 1, "no button, which a busy kernel would not hear"
        failed = kernel.run("broken.tune(trials=2, name='broken in a cell')")
        assert failed.outputs[-1].ename == "StudyFailed"
        assert "NameError" in "".join(failed.outputs[-1].traceback)
        cell = kernel.begin("train.tune(trials=500, name='interrupted')")
        kernel.wait_for(lambda: 'class="history"' in html_of(cell), "results")
        kernel.manager.interrupt_kernel()
        kernel.wait_for(lambda: kernel.is_done(cell), "the end")
        assert "study 'interrupted' was interrupted; what is recorded is kept" in text_of(cell)
        assert "<code>resume=True</code> continues the study" in html_of(cell)


@pytest.mark.slow
def test_the_guide_runs_in_a_notebook(env: dict[str, str], tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    with LiveKernel(tmp_path, env) as kernel:
        for block in blocks:
            cell = kernel.run(block)
            assert text_of(cell) == "", block
        assert "12 of 12 trials" in html_of(kernel.run("tunesvc.load_study('train')"))


@pytest.fixture(scope="module")
def shown(
    env: dict[str, str], tmp_path_factory: pytest.TempPathFactory, context: BrowserContext
) -> Shown:
    """A run in each of its states, in one kernel; the Stop button is clicked in a browser."""
    cards = {}
    with LiveKernel(tmp_path_factory.mktemp("states"), env) as kernel:
        kernel.run(OBJECTIVES)
        cell = kernel.run("run = train.start(trials=6)\nrun")
        cards["starting"] = html_of(cell)
        kernel.wait_for(lambda: 'class="spark"' in html_of(cell), "running trials")
        cards["running"] = html_of(cell)
        kernel.run("run.wait()")
        cards["finished"] = html_of(cell)
        failed = kernel.run("wrong = broken.start(trials=2)\nwrong")
        assert "StudyFailed: study 'broken' failed" in text_of(kernel.run("wrong.wait()"))
        cards["failed"] = html_of(failed)
        again = kernel.run("again = train.start(trials=6)\nagain")
        assert "StudyExists" in text_of(kernel.run("again.wait()"))
        cards["not started"] = html_of(again)
        stopped = kernel.run("long = train.start(trials=500, name='long')\nlong")
        kernel.wait_for(lambda: 'class="history"' in html_of(stopped), "running trials")
        saved = kernel.notebook()
        with stop_button(context, kernel) as page:
            expect(page.get_by_role("button", name="Stop")).to_be_visible()
            page.get_by_role("button").click()
            expect(page.get_by_role("button", name="Stopping")).to_be_disabled()
        kernel.wait_for(lambda: "continues the study" in html_of(stopped), "the run's end")
        assert "True" in text_of(kernel.run("print(long.wait().interrupted)"))
        cards["stopped"] = html_of(stopped)
        assert kernel.widgets == {} or not any("beat" in one for one in kernel.widgets.values())
    return Shown(cards, saved)


@contextmanager
def stop_button(context: BrowserContext, kernel: LiveKernel) -> Iterator[Page]:
    """The button's module in a page, with a model that passes messages to and from the kernel."""
    (model_id,) = (one for one, state in kernel.widgets.items() if state.get("state") == "running")
    page = context.new_page()
    page.expose_function("toKernel", lambda content: kernel.send(model_id, content))
    page.expose_function("fromKernel", lambda: kernel.widgets.get(model_id, {}))
    module = base64.b64encode(ESM.read_bytes()).decode()
    page.set_content("<!doctype html><title>button</title><div id=cell></div>")
    page.evaluate(
        """async (module) => {
          const listeners = {}, state = {};
          const model = {
            get: (name) => state[name],
            set: (name, value) => { state[name] = value; },
            on: (event, listener) => { (listeners[event] ??= new Set()).add(listener); },
            off: (event, listener) => listeners[event]?.delete(listener),
            send: (content) => toKernel(content),
          };
          async function receive() {
            for (const [name, value] of Object.entries(await fromKernel())) {
              if (state[name] === value) continue;
              state[name] = value;
              for (const listener of listeners[`change:${name}`] ?? []) listener();
            }
          }
          await receive();
          const { default: widget } = await import(`data:text/javascript;base64,${module}`);
          widget.render({ model, el: document.getElementById("cell") });
          setInterval(receive, 100);
        }""",
        module,
    )
    try:
        yield page
    finally:
        page.close()


@pytest.mark.slow
@pytest.mark.parametrize("theme", BACKGROUNDS)
def test_every_state_is_readable(
    shown: Shown, context: BrowserContext, theme: str, tmp_path: Path
) -> None:
    """Pictures are written to $TUNE_PICTURES, to be looked at."""
    ground, ink = BACKGROUNDS[theme]
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    cells = "".join(f"<section>{card}</section>" for card in shown.cards.values())
    page.set_content(
        f"<!doctype html><title>cells</title><style>body {{ background: {ground}; color: {ink} }}"
        f"section {{ margin: 16px }}</style>{cells}"
    )
    folder = Path(os.environ.get("TUNE_PICTURES", tmp_path))
    for width in (1000, 340):
        page.set_viewport_size({"width": width, "height": 900})
        page.screenshot(path=folder / f"notebook-{theme}-{width}.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    for state, section in zip(shown.cards, page.locator("section").all(), strict=True):
        expect(section.locator(".state")).to_have_text({"stopped": "interrupted"}.get(state, state))
    expect(page.get_by_text("<script>document.title").first).to_be_visible()
    assert page.title() == "cells"
    assert complaints == []
    page.close()


@pytest.mark.slow
@pytest.mark.parametrize("theme", BACKGROUNDS)
def test_a_saved_notebook_shows_the_last_state(
    shown: Shown, context: BrowserContext, theme: str, tmp_path: Path
) -> None:
    html, _ = HTMLExporter(theme=theme).from_notebook_node(shown.saved)  # type: ignore[no-untyped-call]
    page = context.new_page()
    page.route("**/*", lambda route: route.abort())
    page.set_content(html)
    last = page.locator(".tunesvc-study").last
    expect(last.locator(".state")).to_have_text("running")
    expect(last.get_by_role("img").first).to_be_visible()
    expect(last.get_by_text("train.start(name='long', resume=True)")).to_be_visible()
    expect(page.get_by_role("button", name="Stop")).to_have_count(0)
    expect(page.get_by_text("StopButton")).to_have_count(0)
    folder = Path(os.environ.get("TUNE_PICTURES", tmp_path))
    page.screenshot(path=folder / f"notebook-saved-{theme}.png", full_page=True)
    page.close()


@pytest.mark.slow
def test_a_cell_may_be_interrupted_and_the_function_defined_again(
    env: dict[str, str], tmp_path: Path
) -> None:
    with LiveKernel(tmp_path, env) as kernel:
        kernel.run(OBJECTIVES)
        kernel.run("run = train.start(trials=8, name='kept', parallelism=1)")
        waiting = kernel.begin("print('waiting', flush=True)\nrun.wait()")
        kernel.wait_for(lambda: text_of(waiting), "the cell's begin")
        kernel.manager.interrupt_kernel()
        kernel.wait_for(lambda: kernel.is_done(waiting), "the interrupted cell")
        assert "study 'kept' continues in the background" in text_of(waiting)
        assert text_of(kernel.run("print(run.is_running)")) == "True\n"
        kernel.run(OBJECTIVES.replace("loss=lr", "loss=100 + lr"))
        assert text_of(kernel.run("print(run.wait().best_value < 2)")) == "True\n"
        again = "train.start(trials=9, name='kept', resume=True).wait()"
        after = f"print({again}.trials[-1].last_value > 99)"
        assert text_of(kernel.run(after)) == "True\n"
        awaited = "print(await train.start(trials=1, name='awaited'))"
        assert "finished" in text_of(kernel.run(awaited))


@pytest.mark.slow
def test_a_script_that_was_run_by_its_magic_tunes(env: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        f"{OBJECTIVES}\nif __name__ == '__main__':\n    run = train.start(trials=2, name='magic')\n"
    )
    with LiveKernel(tmp_path, env) as kernel:
        kernel.run("%run script.py")
        assert "finished" in text_of(kernel.run("print(run.wait())"))


@pytest.mark.slow
@pytest.mark.parametrize("is_killed", [True, False], ids=["killed", "restarted"])
def test_a_study_continues_after_its_kernel_has_ended(
    env: dict[str, str], tmp_path: Path, is_killed: bool
) -> None:
    name = f"after-{is_killed}"
    with LiveKernel(tmp_path, env) as kernel:
        kernel.run(OBJECTIVES)
        cell = kernel.run(f"run = train.start(trials=40, name={name!r})\nrun")
        kernel.wait_for(lambda: 'class="history"' in html_of(cell), "results")
        if is_killed:
            kernel.manager.signal_kernel(signal.SIGKILL)
        else:
            kernel.manager.restart_kernel()
            assert "resume=True)</code> continues" in html_of(cell)
    with LiveKernel(tmp_path, env) as kernel:
        kernel.run(OBJECTIVES)
        again = kernel.run(f"train.start(name={name!r}, resume=True).wait()")
        assert "all 40 trials are done" in html_of(again), text_of(again)

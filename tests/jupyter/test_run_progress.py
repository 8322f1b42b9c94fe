"""``run()``'s bar in a real kernel, and how a stop looks there."""

from __future__ import annotations

import nbclient
import nbformat

CODE = """
import os, signal
import workbench as wb
trainer = wb.happo(wb.envs.tabular(wb.theory.matrix_game([[1, 0], [0, 1]])), seed=0, n_steps=8, hidden_sizes=(8,))
def stop(event):
    if (event.iteration, event.phase) == (1, "update_critic"):
        os.kill(os.getpid(), signal.SIGINT)
stopped = trainer.subscribe(stop)
trainer.run(iterations=5)
print("never reached")
"""


def test_a_stop_is_one_line_and_the_bar_is_quiet():
    cells = [CODE, "stopped(); trainer.run(iterations=1);"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbclient.NotebookClient(notebook, timeout=120, allow_errors=True).execute()
    bar, error = notebook.cells[0].outputs
    assert (bar.output_type, error.output_type, error.ename) == ("display_data", "error", "KeyboardInterrupt")
    assert error.traceback == ["stopped after iteration 2; run() goes on from there"]
    assert bar.data["text/plain"] == "HAPPO: 1,024 of 2,560 env steps"
    assert "1,024 of 2,560 env steps · return " in bar.data["text/html"]
    assert "width:40.00%" in bar.data["text/html"]
    (bar,) = notebook.cells[1].outputs
    assert bar.data["text/plain"] == "HAPPO: 1,536 of 1,536 env steps"

"""A sweep's progress in a notebook: counts, a bar, the runs under way, and buttons; the last state stays readable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from workbench.sweeps.progress import Progress, RunProgress, duration

if TYPE_CHECKING:
    from ipywidgets import HBox

    from workbench.sweeps.batch import Batch

# The theme's own colours, with ones that read on both grounds where there is no theme.
INK, GROUND, BAR = (
    "var(--jp-ui-font-color1, inherit)",
    "var(--jp-border-color2, #bdbdbd)",
    "var(--jp-brand-color1, #2a7bde)",
)
WRONG = "var(--jp-error-color1, #c62828)"


class Html:
    """Something that shows itself as HTML, and as text where there is none."""

    def __init__(self, html: str, text: str) -> None:
        self._html, self._text = html, text

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return {"text/html": self._html, "text/plain": self._text}


class SweepProgress:
    """Shows itself once, and is then brought up to date by ``show(progress)``."""

    def __init__(self, sweep: Batch) -> None:
        import IPython.display

        self._buttons = buttons(sweep)
        self._done = False
        display: Any = IPython.display.display
        self._above = display(self._buttons, display_id=True)
        self._handle = display(drawn(sweep.progress), display_id=True)

    def show(self, progress: Progress) -> None:
        """Bring it up to date; at the end the buttons go."""
        if self._handle is not None:
            self._handle.update(drawn(progress))
        if progress.state in ("done", "cancelled") and not self._done:
            self._done = True
            self._buttons.close()
            if self._above is not None:
                self._above.update(Html("", ""))  # without a kernel they would be an error on the page


def buttons(sweep: Batch) -> HBox:
    """Pause, resume and cancel."""
    from ipywidgets import Button, HBox

    def button(text: str, tip: str, act: Callable[[], object]) -> Button:
        made = Button(description=text, tooltip=tip)
        made.on_click(lambda _: act())
        return made

    return HBox(
        [
            button("Pause", "Begin no further run; those under way go on", sweep.pause),
            button("Resume", "Begin runs again", sweep.resume),
            button("Cancel", "Stop the runs where they can be taken up again", sweep.cancel),
        ]
    )


def drawn(progress: Progress) -> Html:
    """Progress as a bar over lines; the text holds no times, so that it is the same whenever all went well."""
    bar = filled([(progress.finished, BAR), (progress.failed, WRONG)], progress.total)
    lines = "".join(map(_line, progress.running))
    failures = "".join(
        f"<div style='color:{WRONG}'>failed: {escape(label)}: {escape(message)}</div>"
        for label, message in progress.failures.items()
    )
    head = f"<div>{escape(progress.counts())} · {duration(progress.seconds)} gone</div>"
    body = f"<div style='color:{INK};font-variant-numeric:tabular-nums'>{head}{bar}{lines}{failures}</div>"
    return Html(body, f"Sweep: {progress.finished} of {progress.total} finished, {progress.failed} failed")


def filled(parts: Sequence[tuple[float, str]], total: float) -> str:
    """A bar of which the parts (size, colour) of a total are filled."""
    segments = "".join(
        f"<span style='display:inline-block;height:100%;width:{100 * part / max(1, total):.2f}%;background:{colour}'>"
        "</span>"
        for part, colour in parts
    )
    return (
        f"<div role='progressbar' aria-valuemin='0' aria-valuemax='{total}' "
        f"aria-valuenow='{sum(part for part, _ in parts)}' style='height:8px;max-width:640px;"
        f"background:{GROUND};margin:4px 0;line-height:0;border-radius:4px;overflow:hidden'>{segments}</div>"
    )


def _line(run: RunProgress) -> str:
    share = 100 * (run.share or 0.0)
    return (
        "<div style='display:flex;align-items:center;gap:8px'>"
        f"<div style='flex:0 0 120px;height:6px;background:{GROUND};border-radius:3px;overflow:hidden'>"
        f"<div style='height:100%;width:{share:.1f}%;background:{BAR}'></div></div>"
        f"<div>{escape(str(run))}</div></div>"
    )

"""A session drives its trainer from a thread: same results as by hand, nothing lost, nothing left behind."""

from __future__ import annotations

import _thread
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sessions import SECONDS, Gate, await_condition, click, make_trainer, stand

from workbench.errors import UnknownNameError
from workbench.jupyter.panel import live_panel
from workbench.jupyter.panel.session import Session
from workbench.learning.events import Event

# --- the same as by hand --------------------------------------------------------------------------------------------


def test_a_session_trains_bit_for_bit_as_the_trainer_does(open_session: Callable[..., Session]) -> None:
    by_hand = make_trainer().run(iterations=3, progress=False)
    session = open_session()
    session.start(iterations=3)
    session.wait(SECONDS)
    assert session.trainer.fingerprint() == by_hand.fingerprint()
    assert not session.running


def test_steps_bring_what_they_say(open_session: Callable[..., Session]) -> None:
    session = open_session()
    assert [event.phase for event in session.step("phase")] == ["collect"]
    assert [event.phase for event in session.step("agent")] == ["estimate", "update_agent"]
    assert [event.phase for event in session.step()] == ["update_agent"]
    assert [event.phase for event in session.step("iteration")] == ["update_agent", "update_critic"]
    assert session.trainer.iteration == 1


def test_iterations_count_the_one_under_way(open_session: Callable[..., Session]) -> None:
    session = open_session()
    session.step("agent")
    session.start(iterations=2)
    session.wait(SECONDS)
    assert (session.trainer.iteration, session.trainer.phase) == (2, "collect")


def test_start_returns_at_once_and_pause_stands_between_phases(open_session: Callable[..., Session]) -> None:
    trainer = make_trainer()
    gate = Gate(trainer)
    session = open_session(trainer)
    session.start()
    gate.await_phase()
    assert session.running
    click(session, "pause")
    gate.release(100)
    stand(session)
    assert not session.running
    assert len(gate.events) == 1
    assert session.status == "Paused in iteration 0."


def test_the_goal_may_be_env_steps(open_session: Callable[..., Session]) -> None:
    session = open_session()
    session.start(env_steps=40)
    session.wait(SECONDS)
    assert session.trainer.env_steps == 48
    assert session.status == "Done: 48 env steps."


def test_evaluations_come_when_asked_for(open_session: Callable[..., Session]) -> None:
    session = open_session()
    session.start(iterations=4, evaluate_every=2, evaluate_episodes=2)
    session.wait(SECONDS)
    assert session.trainer.evaluations["iteration"].tolist() == [2, 4]
    assert session.evaluate(3).shape == (3,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"iterations": 0}, "iterations is 0; expected an integer ≥ 1"),
        ({"env_steps": 2.5}, "env_steps is 2.5"),
        ({"iterations": 1, "env_steps": 1}, "or neither"),
        ({"evaluate_every": -1}, "evaluate_every is -1"),
    ],
)
def test_bad_goals_are_refused(open_session: Callable[..., Session], arguments: dict[str, Any], message: str) -> None:
    session = open_session()
    with pytest.raises(ValueError, match=message):
        session.start(**arguments)
    assert not session.running


def test_what_is_no_trainer_is_refused() -> None:
    with pytest.raises(TypeError, match="expected a trainer"):
        Session(3)


def test_unknown_words_are_refused(open_session: Callable[..., Session]) -> None:
    session = open_session()
    for wrong in (
        lambda: session.step("agents"),
        lambda: session.rewind("iterations"),
        lambda: session.select("mian"),
        lambda: open_session(kind="violins"),
        lambda: session.fork(clip_epsilion=0.1),
    ):
        with pytest.raises(UnknownNameError, match="did you mean"):
            wrong()
    assert list(session.trainers) == ["main"]


def test_a_step_while_it_trains_is_refused(open_session: Callable[..., Session]) -> None:
    trainer = make_trainer()
    gate = Gate(trainer)
    session = open_session(trainer)
    session.start()
    gate.await_phase()
    with pytest.raises(RuntimeError, match="pause\\(\\) before step"):
        session.step()
    session._controller.worker.pursue(None)
    gate.release(100)


# --- errors and interrupts ------------------------------------------------------------------------------------------


class Fault(Exception):  # noqa: N818 - an environment may call its errors what it likes
    """An environment's own."""


def break_env(trainer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(actions: Any) -> Any:
        raise Fault("the arm fell off\nsecond line")

    monkeypatch.setattr(trainer.env, "step", fail)


def test_an_error_stops_it_is_shown_and_raised_and_the_state_is_kept(
    open_session: Callable[..., Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    session = open_session()
    session.step("iteration")
    before = session.trainer.fingerprint()
    with monkeypatch.context() as broken:
        break_env(session.trainer, broken)
        session.start()
        with pytest.raises(Fault, match="the arm fell off"):
            session.wait(SECONDS)
    assert session.status == "Stopped by Fault: the arm fell off. The last good state is kept."
    assert "in fail" in session._controller.message.traceback
    assert session.trainer.fingerprint() == before
    session.wait(SECONDS)  # raised once
    session.step("iteration")
    assert session.trainer.iteration == 2


def test_an_error_in_a_step_is_raised_by_it(
    open_session: Callable[..., Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    session = open_session()
    break_env(session.trainer, monkeypatch)
    with pytest.raises(Fault):
        session.step()
    assert "stopped by an error" not in repr(session)


def test_a_view_that_fails_stops_nothing(open_session: Callable[..., Session], monkeypatch: pytest.MonkeyPatch) -> None:
    session = open_session()
    failed = threading.Event()

    def fail(*_: Any, **__: Any) -> Any:
        failed.set()
        raise Fault("no picture")

    monkeypatch.setattr(session._panel, "drawing", fail)
    session.start(iterations=2)
    assert failed.wait(SECONDS)
    stand(session)
    await_condition(lambda: session._panel.plot.error and not session._panel.plot.frames._wanted())
    assert session.trainer.iteration == 2
    assert session._panel.plot.error == "The figure failed, training goes on: Fault: no picture"
    assert "in fail" in session._panel.plot.traceback
    with pytest.raises(Fault, match="no picture"):
        session.wait(SECONDS)
    monkeypatch.undo()
    session.step("iteration")
    session._panel.plot.flush()
    assert (session._panel.plot.error, session._panel.plot.traceback) == ("", "")
    session.wait(SECONDS)


def test_a_listener_that_fails_is_named_and_stops_nothing(open_session: Callable[..., Session]) -> None:
    trainer = make_trainer()
    session = open_session(trainer)

    def stumble(event: Event) -> None:
        raise Fault("no room in the log")

    unsubscribe = trainer.subscribe(stumble)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a thread's warning would land in whichever cell ran last
        session.start(iterations=2)
        with pytest.raises(Fault, match="no room in the log"):
            session.wait(SECONDS)
    assert trainer.iteration == 2
    assert session.status == "Done: 32 env steps."
    session._panel._flush_controls()
    state = session._panel.status.state
    assert state["trouble"] == "The listener stumble failed, training goes on: Fault: no room in the log"
    assert "in stumble" in state["traceback"]
    unsubscribe()
    session.step("iteration")
    session._panel._flush_controls()
    assert session._panel.status.state["trouble"] == ""


def test_a_listener_of_a_fork_is_heard_too(open_session: Callable[..., Session]) -> None:
    session = open_session()
    fork = session.fork()
    fork.subscribe(lambda event: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        session.step()
    session.close()
    with pytest.warns(UserWarning, match="failed"):
        fork.step()


def test_an_interrupt_pauses_between_phases(open_session: Callable[..., Session]) -> None:
    trainer = make_trainer()
    session = open_session(trainer)

    def interrupt(event: Event) -> None:
        if event.iteration == 1 and event.phase == "estimate":
            _thread.interrupt_main()

    trainer.subscribe(interrupt)
    session.start()
    with pytest.raises(KeyboardInterrupt):
        session.wait(SECONDS)
    assert not session.running
    assert session.status.startswith("Interrupted; paused in iteration")
    session.start(iterations=1)
    session.wait(SECONDS)


@pytest.mark.parametrize("timeout", [-1, True, "5"])
def test_what_is_no_time_to_wait_is_refused(open_session: Callable[..., Session], timeout: Any) -> None:
    with pytest.raises(ValueError, match=f"timeout is {timeout!r}; expected None, or a number of seconds ≥ 0"):
        open_session().wait(timeout)


def test_waiting_too_long_says_so_and_trains_on(open_session: Callable[..., Session]) -> None:
    trainer = make_trainer()
    gate = Gate(trainer)
    session = open_session(trainer)
    session.start(iterations=1)
    gate.await_phase()
    with pytest.raises(TimeoutError, match="still training"):
        session.wait(0.0)
    gate.release(100)
    session.wait(SECONDS)
    assert trainer.iteration == 1


# --- what is shown --------------------------------------------------------------------------------------------------


def test_chips_show_who_is_done_and_who_is_next(open_session: Callable[..., Session]) -> None:
    session = open_session(make_trainer(order=(2, 0, 1)))
    session.step("agent")
    session._panel._flush_controls()
    items = session._panel.permutation.items
    assert [(item["unit"], item["state"]) for item in items] == [
        ("agent_2", "done"),
        ("agent_0", "now"),
        ("agent_1", "left"),
    ]
    assert session._panel.permutation.rule == "arranged"


def test_buttons_offer_what_can_be_done(open_session: Callable[..., Session]) -> None:
    trainer = make_trainer()
    gate = Gate(trainer)
    session = open_session(trainer)
    session._panel._flush_controls()
    assert session._panel.buttons.can == ["fork", "code", "step agent", "step iteration", "run"]
    session.start()
    gate.await_phase()
    session._panel._flush_controls()
    assert session._panel.buttons.can == ["fork", "rewind agent", "rewind iteration", "code", "pause"]
    session._controller.worker.pursue(None)
    gate.release(100)


def test_the_knob_follows_a_change_by_code(open_session: Callable[..., Session]) -> None:
    session = open_session()
    session.trainer.clip_epsilon = 0.07
    session._panel._flush_controls()
    assert session._panel.setting.value == 0.07


def test_the_record_shows_all_runs(open_session: Callable[..., Session]) -> None:
    session = open_session()
    session.step("iteration")
    session.fork()
    session.step("iteration")
    record = session.record()
    assert repr(record) == "Panel of main, fork 1; steered by hand, as code: trainer.script()"
    assert len(record.png) > 1000


def test_a_session_says_in_one_line_what_it_is(open_session: Callable[..., Session]) -> None:
    session = open_session()
    assert repr(session) == "Session of HAPPO (main) · paused · iteration 0"
    session.fork("other")
    assert repr(session) == "Session of HAPPO (other, one of 2 runs) · paused · iteration 0"


def test_a_kernel_that_trains_says_so_now_and_then(
    open_session: Callable[..., Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hub ends kernels that say nothing, and a kernel whose cell has returned says nothing by itself."""
    said: list[object] = []
    session = open_session()
    monkeypatch.setattr(type(session._panel.status), "send", lambda self, content, **_: said.append(content))
    session.start(iterations=1)
    session.wait()
    assert {"type": "training"} not in said  # a minute is not over
    monkeypatch.setattr(live_panel, "WORDS_APART", 0.0)
    session.start(iterations=1)
    session.wait()
    assert {"type": "training"} in said
    said.clear()
    session.trainer.evaluate(1)
    assert {"type": "training"} not in said  # it stands


def test_ten_sessions_leave_no_threads(open_session: Callable[..., Session]) -> None:
    sessions = [open_session(make_trainer(seed=k)) for k in range(10)]
    for session in sessions:
        session.start(iterations=1)
    for session in sessions:
        session.wait(SECONDS)
        session.close()
    for thread in workers():
        thread.join(SECONDS)
        assert not thread.is_alive()


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("workbench-worker")]


def test_all_steps_are_taken_in_one_thread_until_it_is_dismissed(open_session: Callable[..., Session]) -> None:
    session = open_session(make_trainer())
    taken_by: set[threading.Thread] = set()
    session.trainer.subscribe(lambda event: taken_by.add(threading.current_thread()))
    for _ in range(4):
        session.step("phase")
    (thread,) = taken_by
    session._controller.worker.dismiss()
    thread.join(SECONDS)
    assert not thread.is_alive()
    session.step("phase")
    assert len(taken_by) == 2


def test_a_script_that_ends_while_it_trains_ends_after_the_phase_under_way() -> None:
    code = (
        "from sessions import make_trainer; from workbench.jupyter.panel.session import Session;"
        "session = Session(make_trainer()); session.start()"
    )
    folder = Path(__file__).parent
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=SECONDS)
    assert (done.returncode, done.stderr) == (0, "")

"""A session drives its trainer from a thread: same results as by hand, nothing lost, nothing left behind."""

from __future__ import annotations

import _thread
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest

import workbench as wb
from workbench.errors import UnknownNameError
from workbench.events import AgentUpdated, Event
from workbench.jupyter.session import Session
from workbench.jupyter.tape import Tape

SECONDS = 60.0  # long beyond any need: a test that waits for more has found a deadlock


def make_trainer(method: str = "happo", seed: int = 0, **settings: Any) -> Any:
    """Three agents on a small game: an iteration takes a few milliseconds."""
    rng = np.random.default_rng(0)
    reward = rng.uniform(size=(3, 2, 2, 2))
    transition = rng.dirichlet(np.ones(3), size=(3, 2, 2, 2))
    game = wb.theory.TabularGame(reward, transition, np.ones(3) / 3, 0.9)
    env = wb.envs.tabular(game, n_envs=2)
    return getattr(wb, method)(env, seed=seed, n_steps=8, hidden_sizes=(8,), **settings)


@pytest.fixture
def open_session() -> Iterator[Callable[..., Session]]:
    """Makes sessions that are closed at the end, after which no thread of theirs is left."""
    before = set(threading.enumerate())
    sessions: list[Session] = []

    def make(trainer: Any = None, **options: Any) -> Session:
        sessions.append(Session(make_trainer() if trainer is None else trainer, **options))
        return sessions[-1]

    yield make
    for session in sessions:
        session.close()
    for thread in {thread for thread in threading.enumerate() if thread.name.startswith("workbench")} - before:
        thread.join(SECONDS)
        assert not thread.is_alive(), thread


def click(session: Session, what: str) -> None:
    """Press a button of the page."""
    session._panel.controls._handle_custom_msg({"type": "do", "what": what, "number": 1}, [])


def turn(session: Session, value: Any) -> None:
    session._panel.knob._handle_custom_msg({"type": "value", "value": value}, [])


def arrange(session: Session, *units: str) -> None:
    session._panel.permutation._handle_custom_msg({"type": "order", "units": list(units)}, [])


def stand(session: Session) -> None:
    """Wait until everything that was clicked is done."""
    assert session._steering.worker.wait(SECONDS)


class Gate:
    """Lets the worker pass one phase at a time, by a listener that holds it."""

    def __init__(self, trainer: Any) -> None:
        self.arrived = threading.Semaphore(0)
        self.open = threading.Semaphore(0)
        self.events: list[Event] = []
        trainer.subscribe(self._hold)

    def _hold(self, event: Event) -> None:
        self.events.append(event)
        self.arrived.release()
        assert self.open.acquire(timeout=SECONDS)

    def await_phase(self) -> Event:
        """Wait for the end of a phase; the worker is held there, before it does what was asked for meanwhile."""
        assert self.arrived.acquire(timeout=SECONDS)
        return self.events[-1]

    def release(self, phases: int = 1) -> None:
        for _ in range(phases):
            self.open.release()


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
    session._steering.worker.pursue(None)
    gate.release(100)


# --- changes while it trains ----------------------------------------------------------------------------------------


def test_a_change_takes_effect_at_the_next_update_and_is_confirmed(open_session: Callable[..., Session]) -> None:
    trainer = make_trainer(order=(0, 1, 2))
    gate = Gate(trainer)
    session = open_session(trainer)
    session.start(iterations=1)
    for _ in range(3):  # collect, estimate, first update
        gate.await_phase()
        turn(session, 0.05)
        gate.release()
    gate.await_phase()
    assert trainer.clip_epsilon == 0.05
    assert session.status == "clip ε is 0.05 from the update of agent_1 on."
    gate.release(100)
    session.wait(SECONDS)
    assert trainer.interventions[-1].name == "clip_epsilon"


def test_an_order_asked_for_in_mid_iteration_reorders_who_is_left(open_session: Callable[..., Session]) -> None:
    trainer = make_trainer(order=(0, 1, 2))
    gate = Gate(trainer)
    session = open_session(trainer)
    session.start(iterations=1)
    for _ in range(2):
        gate.await_phase()
        gate.release()
    gate.await_phase()  # the first agent has been updated
    arrange(session, "agent_0", "agent_2", "agent_1")
    assert session._steering.view().asked_order == ("agent_0", "agent_2", "agent_1")
    gate.release(100)
    session.wait(SECONDS)
    updates = [event.agent for event in gate.events if isinstance(event, AgentUpdated)]
    assert updates == ["agent_0", "agent_2", "agent_1"]
    assert session._steering.view().asked_order is None


def test_an_agent_updated_before_its_move_arrived_is_named(open_session: Callable[..., Session]) -> None:
    trainer = make_trainer(order=(0, 1, 2))
    gate = Gate(trainer)
    session = open_session(trainer)
    session.start(iterations=1)
    gate.await_phase()
    gate.release()
    gate.await_phase()
    gate.release()
    gate.await_phase()  # agent_0 is done, but the page, which does not know it yet, puts it last
    arrange(session, "agent_2", "agent_1", "agent_0")
    gate.release()
    gate.await_phase()
    assert session.status == (
        "Order as arranged: agent_2 → agent_1. "
        "agent_0 had been updated before the change came: moved from the next iteration on."
    )
    gate.release(100)
    session.wait(SECONDS)
    assert [e.agent for e in gate.events if isinstance(e, AgentUpdated)] == ["agent_0", "agent_2", "agent_1"]


def test_of_many_turns_of_the_knob_the_last_one_counts(open_session: Callable[..., Session]) -> None:
    trainer = make_trainer()
    gate = Gate(trainer)
    session = open_session(trainer)
    session.start()
    gate.await_phase()
    for value in (0.3, 0.25, 0.15):
        turn(session, value)
    click(session, "pause")
    gate.release(100)
    stand(session)
    assert trainer.clip_epsilon == 0.15
    assert [change.new for change in trainer.interventions] == [0.15]


@pytest.mark.parametrize("value", [2.0, "a lot", -1, None])
def test_a_bad_value_is_said_and_changes_nothing(open_session: Callable[..., Session], value: Any) -> None:
    session = open_session()
    turn(session, value)
    stand(session)
    assert "clip_epsilon" in session.status
    assert session._steering.message.error
    assert "Traceback" in session._steering.message.traceback
    assert session.trainer.clip_epsilon == 0.2
    assert session._steering.view().asked_value is None


def test_rules_and_arrangements_by_button(open_session: Callable[..., Session]) -> None:
    session = open_session()
    permutation = session._panel.permutation
    permutation._handle_custom_msg({"type": "rule", "rule": "fixed"}, [])
    stand(session)
    assert session.trainer.order == "fixed"
    permutation._handle_custom_msg({"type": "reverse"}, [])
    stand(session)
    assert session.trainer.order == ("agent_2", "agent_1", "agent_0")
    permutation._handle_custom_msg({"type": "shuffle"}, [])
    stand(session)
    assert sorted(session.trainer.order) == ["agent_0", "agent_1", "agent_2"]
    permutation._handle_custom_msg({"type": "rule", "rule": "randm"}, [])
    stand(session)
    assert "did you mean 'random'" in session.status


def test_reverse_in_mid_iteration_leaves_who_is_done(open_session: Callable[..., Session]) -> None:
    session = open_session(make_trainer(order=(0, 1, 2)))
    session.step("agent")
    session._panel.permutation._handle_custom_msg({"type": "reverse"}, [])
    stand(session)
    assert session.trainer.iteration_order == ("agent_0", "agent_2", "agent_1")
    assert session.trainer.remaining == ("agent_2", "agent_1")


def test_a_message_of_an_unknown_kind_is_an_error_not_a_crash(open_session: Callable[..., Session]) -> None:
    session = open_session()
    session._panel.permutation._handle_custom_msg({"type": "nonsense"}, [])
    assert session._steering.message.error


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
    assert session.status == "Stopped by Fault: the arm fell off The last good state is kept."
    assert "in fail" in session._steering.message.traceback
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

    monkeypatch.setattr(session._panel, "figure", fail)
    session.start(iterations=2)
    session.wait(SECONDS)
    assert session.trainer.iteration == 2
    assert failed.wait(SECONDS)
    session._panel._figure_flusher.settle(SECONDS)
    assert session._panel.plot.error == "The figure failed, training goes on: Fault: no picture"


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


# --- back and aside -------------------------------------------------------------------------------------------------


def test_back_by_an_agent_goes_to_before_its_update_from_anywhere(open_session: Callable[..., Session]) -> None:
    session = open_session()
    before_updates = []
    for _ in range(11):  # all of one iteration, and of the next as far as two updates
        if session.trainer.phase == "update_agent":
            before_updates.append(session.trainer.fingerprint())
        session.step("phase")
    assert len(before_updates) == 6
    for expected in reversed(before_updates):
        click(session, "rewind agent")
        stand(session)
        assert session.trainer.fingerprint() == expected


@pytest.mark.parametrize("phases", range(6))
def test_back_by_an_agent_from_every_phase(open_session: Callable[..., Session], phases: int) -> None:
    session = open_session()
    session.step("iteration")
    for _ in range(phases):
        session.step("phase")
    done = list(session.trainer.agent_history["agent"])
    session.rewind("agent")
    assert session.trainer.phase == "update_agent"
    assert session.trainer.remaining[0] == done[-1]


def test_back_to_the_beginning_of_the_iteration_and_of_the_one_before(open_session: Callable[..., Session]) -> None:
    session = open_session()
    session.step("iteration")
    start = session.trainer.fingerprint()
    session.step("agent")
    session.rewind("iteration")
    assert session.trainer.fingerprint() == start
    click(session, "rewind iteration")
    stand(session)
    assert (session.trainer.iteration, session.trainer.phase) == (0, "collect")
    click(session, "rewind iteration")
    stand(session)
    assert "cannot go back" in session.status


def test_a_fork_is_driven_and_its_parent_stays(open_session: Callable[..., Session]) -> None:
    session = open_session()
    session.step("iteration")
    parent, before = session.trainer, session.trainer.fingerprint()
    fork = session.fork(clip_epsilon=0.05)
    assert session.trainer is fork
    session.start(iterations=2)
    session.wait(SECONDS)
    assert parent.fingerprint() == before
    assert (fork.iteration, fork.clip_epsilon) == (3, 0.05)
    click(session, "fork")
    stand(session)
    assert list(session.trainers) == ["main", "fork 1", "fork 2"]
    session.select("main")
    assert session.trainer is parent
    with pytest.raises(ValueError, match="there is a run 'main' already"):
        session.fork("main")


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
    assert session._panel.controls.state["can"] == ["fork", "step agent", "step iteration", "run"]
    session.start()
    gate.await_phase()
    session._panel._flush_controls()
    assert session._panel.controls.state["can"] == ["fork", "rewind agent", "rewind iteration", "pause"]
    session._steering.worker.pursue(None)
    gate.release(100)


def test_the_knob_follows_a_change_by_code(open_session: Callable[..., Session]) -> None:
    session = open_session()
    session.trainer.clip_epsilon = 0.07
    session._panel._flush_controls()
    assert session._panel.knob.value == 0.07


def test_the_record_shows_all_runs(open_session: Callable[..., Session]) -> None:
    session = open_session()
    session.step("iteration")
    session.fork()
    session.step("iteration")
    record = session.record()
    assert repr(record) == "Panel of main, fork 1"
    assert len(record.png) > 1000


def test_a_session_says_in_one_line_what_it_is(open_session: Callable[..., Session]) -> None:
    session = open_session()
    assert repr(session) == "Session of HAPPO (main) · paused · iteration 0"
    session.fork("other")
    assert repr(session) == "Session of HAPPO (other, one of 2 runs) · paused · iteration 0"


def test_ten_sessions_leave_no_threads(open_session: Callable[..., Session]) -> None:
    sessions = [open_session(make_trainer(seed=k)) for k in range(10)]
    for session in sessions:
        session.start(iterations=1)
    for session in sessions:
        session.wait(SECONDS)
    for thread in threading.enumerate():
        if thread.name == "workbench-worker":
            thread.join(SECONDS)
            assert not thread.is_alive()


# --- the tape -------------------------------------------------------------------------------------------------------


def assert_tape_is_the_trainer(tape: Tape) -> None:
    trainer = tape.trainer
    run = tape.run()
    history, rows = trainer.history, trainer.agent_history
    for name in ("env_steps", "return", "reward", "value_loss", "explained_variance"):
        np.testing.assert_array_equal(run.column("iterations", name), history[name].to_numpy(dtype=float), err_msg=name)
    assert sum(len(run.updates_of(unit, "kl")) for unit in run.updates) == len(rows)
    for unit in run.updates:
        mine = rows[rows["agent"] == unit]
        for name in ("iteration", "position", "kl", "effective_sample_size"):
            np.testing.assert_array_equal(run.updates_of(unit, name), mine[name].to_numpy(dtype=float))
    assert run.order == trainer.iteration_order
    assert list(run.m_factors) == list(trainer.m_factors)
    pd.testing.assert_frame_equal(pd.DataFrame(dict(run.evaluations)), trainer.evaluations, check_dtype=False)


def test_a_tape_holds_what_the_trainer_holds_whatever_happens() -> None:
    trainer = make_trainer()
    trainer.iterate()
    tape = Tape(trainer, "r")
    assert_tape_is_the_trainer(tape)
    rng = np.random.default_rng(0)
    actions: list[Callable[[], Any]] = [
        trainer.step,
        trainer.step,
        trainer.step,
        trainer.iterate,
        lambda: trainer.rewind(phases=int(rng.integers(1, 6))),
        lambda: trainer.rewind(iterations=1) if trainer.iteration > 1 else None,
        lambda: trainer.evaluate(1),
        lambda: setattr(trainer, "clip_epsilon", float(rng.uniform(0.1, 0.3))),
    ]
    for _ in range(24):
        actions[rng.integers(len(actions))]()
        assert_tape_is_the_trainer(tape)


def test_a_settled_run_is_the_last_complete_iteration() -> None:
    trainer = make_trainer()
    tape = Tape(trainer, "r")
    trainer.iterate()
    order, factors = trainer.iteration_order, trainer.m_factors
    for _ in range(4):
        trainer.step()
    run = tape.run(settled=True)
    assert (run.upto, run.order) == (0, order)
    assert all(np.array_equal(run.m_factors[agent], factors[agent]) for agent in factors)


def test_a_tape_that_nobody_holds_is_forgotten() -> None:
    trainer = make_trainer()
    Tape(trainer, "r")
    assert not trainer._listeners

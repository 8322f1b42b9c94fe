"""What is asked for while it trains is done between two phases, confirmed, and never silently dropped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sessions import SECONDS, Gate, arrange, click, make_trainer, stand, turn

from workbench.jupyter.panel.session import Session
from workbench.learning.events import AgentUpdated

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
    assert session._controller.asked_order == ("agent_0", "agent_2", "agent_1")
    gate.release(100)
    session.wait(SECONDS)
    updates = [event.agent for event in gate.events if isinstance(event, AgentUpdated)]
    assert updates == ["agent_0", "agent_2", "agent_1"]
    assert session._controller.asked_order is None


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
    following = [event.agent for event in trainer.iterate() if isinstance(event, AgentUpdated)]
    assert following == list(trainer.order) == ["agent_2", "agent_1", "agent_0"]


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
    assert session._controller.message.error
    assert "Traceback" in session._controller.message.traceback
    assert session.trainer.clip_epsilon == 0.2
    assert session._controller.asked_value is None


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
    assert session._controller.message.error


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

"""Policies and critics with a memory: the unit itself, episodes' ends, rollouts' ends, and something to remember."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch
from point_team import PointTeam

import workbench as wb
from workbench.envs.base import Final, TeamEnv, TimeStep
from workbench.learning.agent_turn import agent_turn
from workbench.learning.phases import _values
from workbench.learning.trust_region import fisher_vector_product
from workbench.networks.distributions import Categorical, Gaussian
from workbench.networks.gradients import linearize
from workbench.networks.gru import Gru, Sequences

SMALL = {"n_steps": 12, "hidden_sizes": (8,), "recurrent": True, "sequence_length": 4, "dtype": "float64"}


class CueTeam(TeamEnv):
    """Two agents see a cue (−1 or 1) in an episode's first step alone; in the last, each should do as the cue said."""

    def __init__(self, n_envs=16, length=4):
        self.n_envs, self.length, self.agents = n_envs, length, ("agent_0", "agent_1")
        self.observation_spaces = dict.fromkeys(self.agents, gymnasium.spaces.Box(-1, 1, (2,), np.float32))
        self.action_spaces = dict.fromkeys(self.agents, gymnasium.spaces.Discrete(2))
        self.state_space = gymnasium.spaces.Box(-1, 1, (3,), np.float32)
        self._rng = np.random.Generator(np.random.PCG64(0))
        self._cue, self._t = np.ones(n_envs), np.zeros(n_envs, int)

    def _seen(self, reward, terminated, final=None):
        shown = np.where(self._t == 0, self._cue, 0.0)
        observation = np.stack([shown, self._t / self.length], 1).astype(np.float32)
        state = np.stack([shown, self._t / self.length, self._cue], 1).astype(np.float32)
        observations = dict.fromkeys(self.agents, observation)
        return TimeStep(observations, state, reward, terminated, np.zeros(self.n_envs, bool), final)

    def _begin(self, envs):
        self._cue[envs], self._t[envs] = self._rng.choice([-1.0, 1.0], len(envs)), 0

    def reset(self, seed=None):
        self._rng = np.random.Generator(np.random.PCG64(seed))
        self._begin(np.arange(self.n_envs))
        return self._seen(np.zeros(self.n_envs), np.zeros(self.n_envs, bool))

    def step(self, actions):
        self._t = self._t + 1
        ended = self._t == self.length
        right = sum((np.asarray(actions[agent]) == (self._cue > 0)).astype(float) for agent in self.agents)
        reward, final, envs = np.where(ended, right / 2, 0.0), None, np.flatnonzero(ended)
        if len(envs):
            last = self._seen(reward, ended)
            final = Final(envs, {a: seen[envs] for a, seen in last.observations.items()}, last.state[envs])
            self._begin(envs)
        return self._seen(reward, ended, final)

    def remake(self, n_envs):
        return CueTeam(n_envs, self.length)


def drawn(network, seed=0, scale=0.3):
    generator = torch.Generator().manual_seed(seed)
    flat = network.initial(generator, torch.float64)
    return flat + scale * torch.randn(flat.shape, generator=generator, dtype=torch.float64)


def test_the_unit_is_torchs_own():
    network = Gru(3, 2, (6, 5), output_gain=1.0, layer_norm="all")
    flat = drawn(network)
    folded = network.fold(flat)
    unit = torch.nn.GRU(5, 5, dtype=torch.float64)
    with torch.no_grad():
        unit.weight_ih_l0.copy_(folded.body.weights[-1].T)
        unit.bias_ih_l0.copy_(folded.body.biases[-1].flatten())
        unit.weight_hh_l0.copy_(folded.weight.T)
        unit.bias_hh_l0.copy_(folded.bias.flatten())
    inputs, memory = torch.randn(7, 4, 3, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64)
    x = torch.nn.functional.layer_norm(inputs, (3,))
    for weight, bias in zip(folded.body.weights[:-1], folded.body.biases[:-1], strict=True):
        x = torch.nn.functional.layer_norm((x @ weight + bias).tanh(), (weight.shape[1],))
    expected, _ = unit(x, memory[None])
    outputs, remembered = network.unroll(folded, inputs, memory, torch.zeros(7, 4, dtype=torch.float64))
    torch.testing.assert_close(remembered, expected, rtol=0, atol=1e-12)
    head = torch.nn.functional.layer_norm(expected, (5,)) @ folded.head.weights[0] + folded.head.biases[0]
    torch.testing.assert_close(outputs, head, rtol=0, atol=1e-12)


def test_an_episode_that_begins_forgets_what_came_before():
    network = Gru(3, 2, (5,))
    folded = network.fold(drawn(network))
    inputs, memory = torch.randn(6, 2, 3, dtype=torch.float64), torch.randn(2, 5, dtype=torch.float64)
    starts = torch.zeros(6, 2, dtype=torch.float64)
    starts[2, 0] = 1
    outputs, _ = network.unroll(folded, inputs, memory, starts)
    fresh, _ = network.unroll(folded, inputs[2:], torch.zeros_like(memory), torch.zeros_like(starts[2:]))
    torch.testing.assert_close(outputs[2:, 0], fresh[:, 0], rtol=0, atol=1e-14)
    assert not torch.allclose(outputs[2:, 1], fresh[:, 1])
    torch.testing.assert_close(network.forward(folded, inputs[2]), fresh[0], rtol=0, atol=1e-14)


def test_stacked_units_are_single_ones():
    network = Gru(3, 2, (5,))
    flats = torch.stack([drawn(network, seed) for seed in range(3)])
    inputs, memory = torch.randn(3, 4, 3, dtype=torch.float64), torch.randn(3, 4, 5, dtype=torch.float64)
    outputs, remembered = network.step(network.fold(flats), inputs, memory)
    for i in range(3):
        alone = network.step(network.fold(flats[i]), inputs[i], memory[i])
        torch.testing.assert_close((outputs[i], remembered[i]), alone, rtol=0, atol=1e-13)


def test_sequences_line_up_and_lay_out():
    """Two blocks of 3 steps of 4 environments: sample (b, t, e) is number 12b + 4t + e."""
    flat = torch.arange(24)
    sequences = Sequences(3, 4, torch.arange(8.0)[:, None], (flat % 5 == 0).float())
    lined_up = sequences.lined_up(flat)
    assert lined_up[:, 0].tolist() == [0, 4, 8]
    assert lined_up[:, 5].tolist() == [13, 17, 21]
    assert torch.equal(sequences.laid_out(lined_up), flat)
    chosen = torch.tensor([5, 0])
    index = sequences.samples(chosen)
    assert index.tolist() == [13, 0, 17, 4, 21, 8]
    some = sequences.select(chosen)
    assert torch.equal(some.lined_up(flat[index]), lined_up[:, chosen])
    assert some.memory.flatten().tolist() == [5.0, 0.0]
    assert torch.equal(some.starts, sequences.starts[index])


@pytest.mark.parametrize("sharing", ["separate", [[0, 2], [1]]])
def test_what_is_learned_from_is_what_was_acted_on(sharing):
    """Step by step through three rollouts, a memory carried by hand gives the distributions of the update's batch."""
    trainer = wb.mappo(PointTeam(), seed=0, sharing=sharing, lr=0.0, **SMALL)
    memory = {agent: torch.zeros(4, 8, dtype=torch.float64) for agent in trainer.env.agents}
    ended = 0
    for _ in range(3):
        trainer.step(), trainer.step()
        state, setup = trainer._state, trainer._setup
        rollout = state.rollout
        means = {agent: [] for agent in memory}
        for t in range(12):
            for agent in memory:
                unit = setup.team.unit_of[agent]
                network = setup.team.policies[unit].network
                folded = network.fold(state.policies[unit].values)
                outputs, memory[agent] = network.step(folded, rollout.observations[agent][t], memory[agent])
                means[agent].append(outputs)
                memory[agent] = memory[agent] * (~rollout.done[t])[:, None]
            ended += int(rollout.done[t].sum())
        for unit, group in setup.team.units.items():
            old = agent_turn(setup, state, unit, dict.fromkeys(group, state.preceding_ratio)).old
            expected = torch.cat([torch.stack(means[agent]).flatten(0, 1) for agent in group])
            torch.testing.assert_close(old[0], expected, rtol=0, atol=1e-12)
        events = trainer.iterate()
        assert all(event.diagnostics["kl"] < 1e-20 for event in events if event.phase == "update_agent")
        for agent, remembered in trainer._state.running.memory.items():
            torch.testing.assert_close(remembered, memory[agent], rtol=0, atol=1e-12)
    assert ended > 8


def test_a_recurrent_critic_judges_the_true_last_state_with_what_it_remembers():
    trainer = wb.happo(PointTeam(), seed=0, **SMALL)
    trainer.iterate()
    trainer.step()
    state, setup = trainer._state, trainer._setup
    rollout, network = state.rollout, setup.critics["state"]
    folded, memory = network.fold(state.critics["state"].values), state.running.critic_memory["state"]
    normalizer = state.normalizers["state"]
    assert float(memory.abs().max()) > 0  # carried over from the first rollout
    _, values, next_values = _values(setup, state, "state")
    ends = {(int(t), int(env)): i for i, (t, env) in enumerate(rollout.final_at)}
    for t in range(12):
        outputs, memory = network.step(folded, rollout.states[t], memory)
        torch.testing.assert_close(values[t], normalizer.denormalize(outputs[:, 0]), rtol=0, atol=1e-12)
        for env in range(4):
            if (t, env) in ends and rollout.truncated[t, env]:
                last = rollout.final_states[ends[t, env]][None]
                worth = normalizer.denormalize(network.step(folded, last, memory[env][None])[0])
                torch.testing.assert_close(next_values[t, env], worth[0, 0], rtol=0, atol=1e-12)
            elif (t, env) in ends:
                assert next_values[t, env] == 0
        memory = memory * (~rollout.done[t])[:, None]
    assert ends
    trainer.step()
    torch.testing.assert_close(trainer._state.running.critic_memory["state"], memory, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["happo", "hatrpo", "ippo", "shared_ppo"])
def test_a_memory_survives_forks_files_and_the_middle_of_an_iteration(name, tmp_path):
    options = {} if name == "hatrpo" else {"n_minibatches": 2, "critic_minibatches": 3}
    trainer = getattr(wb, name)(PointTeam(), seed=0, **SMALL, **options)
    trainer.iterate()
    for _ in range(5):
        fork = trainer.fork()
        saved = wb.load(trainer.save(tmp_path / "run.wb"), env=PointTeam())
        assert saved.fingerprint() == trainer.fingerprint()
        for each in (trainer, fork, saved):
            each.step()
        assert trainer.fingerprint() == fork.fingerprint() == saved.fingerprint()
    for each in (trainer, fork, saved):
        each.iterate(), each.iterate()
    assert trainer.fingerprint() == fork.fingerprint() == saved.fingerprint()


def test_minibatches_are_of_whole_sequences():
    """With one part or many, an epoch sees every sample once, after those before it: at r = 1 all ratios are 1."""
    trainer = wb.happo(PointTeam(), seed=0, **SMALL)
    trainer.iterate()
    trainer.step(), trainer.step()
    state, setup = trainer._state, trainer._setup
    batch = agent_turn(setup, state, "agent_0", {"agent_0": state.preceding_ratio}).batch
    assert batch.n_pieces == 12 // 4 * 4
    policy, values = setup.team.policies["agent_0"], state.policies["agent_0"].values
    for part in torch.randperm(batch.n_pieces).split(5):
        some = batch.select(part)
        assert len(some) == 4 * len(part)
        parameters = policy.distribution(values, some.observations, None, some.sequences)
        torch.testing.assert_close(policy.head.log_prob(parameters, some.actions), some.old_log_probs)


@pytest.mark.parametrize("head", [Gaussian(2), Categorical((3,))])
def test_fisher_products_of_a_recurrent_policy_are_the_hessian_of_its_kl(head):
    network = Gru(3, head.n_outputs, (4,), n_free=head.n_free, output_gain=1.0)
    flat, inputs = drawn(network), torch.randn(12, 3, dtype=torch.float64)
    starts = torch.zeros(12, dtype=torch.float64)
    starts[[3, 8]] = 1
    sequences = Sequences(3, 2, torch.randn(4, 4, dtype=torch.float64), starts)
    linearization = linearize(network, flat, inputs, sequences)
    old = head.parameters(linearization.outputs, linearization.free)

    def mean_kl(theta):
        folded = network.fold(theta)
        return head.kl(old, head.parameters(network.along(folded, inputs, sequences), folded.free)).mean()

    hessian = torch.autograd.functional.hessian(mean_kl, flat)
    units = torch.eye(len(flat), dtype=torch.float64)
    fisher = torch.stack([fisher_vector_product(linearization, head, old, unit) for unit in units], 1)
    torch.testing.assert_close(fisher, hessian, rtol=0, atol=1e-10)


def test_only_a_memory_recalls_the_cue():
    options = {"n_steps": 16, "hidden_sizes": (16,), "lr": 2e-2, "gamma": 0.9}
    scores = {}
    for recurrent in (True, False):
        trainer = wb.happo(CueTeam(32), seed=0, recurrent=recurrent, sequence_length=8, **options)
        trainer.run(iterations=8, progress=False)
        scores[recurrent] = trainer.evaluate(64).mean()
    assert scores[True] > 0.95
    assert scores[False] < 0.75  # half of the cues are right by chance


def test_what_does_not_fit_a_memory_is_refused(tmp_path):
    with pytest.raises(ValueError, match="n_steps is 15 and sequence_length 8"):
        wb.happo(PointTeam(), recurrent=True, n_steps=15)
    with pytest.raises(ValueError, match="at least one width"):
        wb.happo(PointTeam(), recurrent=True, hidden_sizes=())
    with pytest.raises(ValueError, match="has a memory"):
        wb.export_policies(wb.happo(PointTeam(), **SMALL), tmp_path)
    trainer = wb.happo(PointTeam(), **SMALL)
    with pytest.raises(ValueError, match="n_steps is 10 and sequence_length 4"):
        trainer.n_steps = 10

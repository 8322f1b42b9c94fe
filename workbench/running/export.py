"""What others can use without the workbench: policies as plain weights, histories as tables."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy

from workbench.envs.base import Array
from workbench.errors import CheckpointError, path_of, unknown_name
from workbench.learning.state import Setup, State
from workbench.networks.distributions import Categorical, Gaussian
from workbench.networks.mlp import Mlp
from workbench.running import checkpoint
from workbench.running.atomic import write_atomically
from workbench.running.live_log import TensorBoard, numbers_of
from workbench.running.run_view import Run

FORWARD = (
    "x = observation, with the agent's one-hot number after it where agent_id says so; "
    "x = clip((x - inputs/mean) / inputs/scale, -inputs/limit, inputs/limit); "
    "for each layer: where layer_norm says so for it, x = (x - mean(x)) / sqrt(var(x) + 1e-5) over the vector; "
    "x = x @ weight + bias; after every layer but the last: x = activation(x)"
)
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
}
TABLES = ("history", "agent_history", "evaluations")


def export_policies(run: Run, directory: str | Path) -> Path:
    """Write every agent's policy as ``policies.safetensors`` with ``policies.json`` beside it; returns the directory.

    Tensors are named ``agent_0/layer_0/weight`` (inputs, outputs) and ``…/bias`` (outputs,), LayerNorm's gains folded
    in; the JSON says in words how they make an action. ``load_policies`` reads them with NumPy alone.
    """
    _refuse_no_run(run)
    setup, state = run._setup, run._state
    directory = path_of("directory", directory)
    directory.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Array] = {}
    agents = {}
    for agent in setup.team.agents:
        description, weights = _describe(setup, state, agent)
        agents[agent] = description
        tensors |= {f"{agent}/{name}": array for name, array in weights.items()}
    with write_atomically(directory / "policies.safetensors") as temporary:  # with the mode that other files get
        temporary.write_bytes(safetensors.numpy.save(tensors))
    about = {
        "method": run.method,
        "seed": run.seed,
        "env": None if run.env.description is None else dict(run.env.description),
        "env_steps": run.env_steps,
        "iteration": run.iteration,
        "steered": run.steered,
        "forward": FORWARD,
        "agents": agents,
    }
    about["sha256"] = checkpoint.digest(tensors, json.loads(json.dumps(about)))
    (directory / "policies.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    return directory


def _describe(setup: Setup, state: State, agent: str) -> tuple[dict[str, Any], dict[str, Array]]:
    unit, policy = setup.team.unit_of[agent], setup.team.policy(agent)
    if not isinstance(policy.network, Mlp):
        raise ValueError(
            f"the policy of {agent} has a memory, which the exported form does not; train with recurrent=False, or use "
            "trainer.save() and wb.load()."
        )
    folded = policy.network.fold(state.policies[unit].values.cpu())
    arrays: dict[str, Array] = {}
    for index, (weight, bias) in enumerate(zip(folded.weights, folded.biases, strict=True)):
        arrays[f"layer_{index}/weight"] = np.ascontiguousarray(weight.numpy())
        arrays[f"layer_{index}/bias"] = np.ascontiguousarray(bias.numpy()[0])
    transform = setup.team.transform([agent], state.observation_statistics)
    if transform is not None:
        for name in ("mean", "scale", "limit"):
            arrays[f"inputs/{name}"] = np.ascontiguousarray(getattr(transform, name)[0])
    described: dict[str, Any] = {
        "inputs": policy.network.n_inputs,
        "normalized": transform is not None,
        "layers": len(folded.weights),
        "activation": policy.network.activation,
        "layer_norm": [policy.network.normalizes(index) for index in range(len(folded.weights))],
        "agent_id": setup.team.agents.index(agent) if setup.team.agent_id else None,
        "n_agents": len(setup.team.agents),
    }
    if isinstance(policy.head, Gaussian):
        _, std = policy.head.parameters(folded.free[None], folded.free)
        arrays["std"] = np.ascontiguousarray(std.numpy()[0])
        described |= {"distribution": "gaussian", "action": "the outputs are the means; std is the deviation"}
        if agent in setup.team.action_scales:
            arrays["action/centre"], arrays["action/half_width"] = setup.team.action_scales[agent]
            described["action"] += "; the environment takes action/centre + action/half_width * action"
    elif isinstance(policy.head, Categorical):
        described |= {
            "distribution": "categorical",
            "sizes": list(policy.head.sizes),
            "action": "the outputs are logits, one group for each of sizes",
        }
    return described, arrays


class Policies:
    """Exported policies: ``act(observations)`` gives every agent's most probable action.

    about   what ``policies.json`` says
    """

    def __init__(self, about: Mapping[str, Any], tensors: Mapping[str, Array]) -> None:
        self.about, self._tensors = about, tensors
        self.agents = tuple(about["agents"])

    def __repr__(self) -> str:
        about = self.about
        return (
            f"policies of {about['method']}, {len(self.agents)} agents, seed {about['seed']}, after "
            f"{about['env_steps']:,} env steps{' · steered' if about['steered'] else ''}"
        )

    def outputs(self, agent: str, observations: Array) -> Array:
        """The network's outputs (n, outputs) for observations (n, observation_dim)."""
        if agent not in self.about["agents"]:
            raise unknown_name("agent", agent, self.agents)
        described = self.about["agents"][agent]
        dtype = self._tensors[f"{agent}/layer_0/weight"].dtype
        x = np.asarray(observations, np.float64)
        if described["agent_id"] is not None:
            identity = np.eye(described["n_agents"], dtype=x.dtype)[described["agent_id"]]
            x = np.concatenate([x, np.broadcast_to(identity, (len(x), len(identity)))], 1)
        if x.ndim != 2 or x.shape[1] != described["inputs"]:
            raise ValueError(f"{agent} takes (n, {described['inputs']}) inputs, these are {x.shape}.")
        if described.get("normalized"):
            mean, scale, limit = (self._tensors[f"{agent}/inputs/{name}"] for name in ("mean", "scale", "limit"))
            x = np.clip((x - mean) / scale, -limit, limit)
        x = x.astype(dtype)
        # Files of 0.1.0 say nothing of these: all layers had a LayerNorm before them, and ReLU after.
        norms = described.get("layer_norm", [True] * described["layers"])
        activation = ACTIVATIONS[described.get("activation", "relu")]
        for index in range(described["layers"]):
            if norms[index]:
                x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
            x = x @ self._tensors[f"{agent}/layer_{index}/weight"] + self._tensors[f"{agent}/layer_{index}/bias"]
            if index < described["layers"] - 1:
                x = activation(x)
        return x

    def act(
        self,
        observations: Mapping[str, Array],
        action_masks: Mapping[str, npt.NDArray[np.bool_]] | None = None,
        rng: np.random.Generator | None = None,
    ) -> dict[str, Array]:
        """{agent: action}, shaped as environments take it: the mean, or the likeliest of each group of logits.

        ``action_masks`` are a ``TimeStep``'s: {agent: (n, n_actions) bool}, True where an action may be taken. With an
        ``rng`` actions are drawn instead.
        """
        if not isinstance(observations, Mapping):
            raise ValueError(f"observations is {observations!r}; expected a mapping from each of {list(self.agents)}.")
        if missing := [agent for agent in self.agents if agent not in observations]:
            raise ValueError(
                f"observations has none for {missing[0]!r}; give one array for each of {list(self.agents)}."
            )
        actions: dict[str, Array] = {}
        for agent in self.agents:
            outputs = self.outputs(agent, observations[agent])
            if self.about["agents"][agent]["distribution"] == "gaussian":
                noise = 0 if rng is None else self._tensors[f"{agent}/std"] * rng.standard_normal(outputs.shape)
                action = outputs + noise
                if f"{agent}/action/centre" in self._tensors:
                    centre, half_width = (self._tensors[f"{agent}/action/{name}"] for name in ("centre", "half_width"))
                    action = centre + half_width * action
                actions[agent] = action.astype(outputs.dtype)
                continue
            if rng is not None:  # the argmax of log p + Gumbel noise is a draw from p
                outputs = outputs + rng.gumbel(size=outputs.shape)
            if action_masks and agent in action_masks:
                outputs = np.where(action_masks[agent], outputs, -np.inf)
            sizes = self.about["agents"][agent]["sizes"]
            groups = np.split(outputs, np.cumsum(sizes)[:-1], -1)
            chosen = np.stack([group.argmax(-1) for group in groups], -1)
            actions[agent] = chosen[:, 0] if len(sizes) == 1 else chosen
        return actions


def load_policies(directory: str | Path) -> Policies:
    """Policies that ``export_policies`` wrote. Executes nothing from the files.

    Raises ``CheckpointError`` where a file is damaged, was altered, or lacks what the other says.
    """
    directory = path_of("directory", directory)
    paths = [directory / name for name in ("policies.json", "policies.safetensors")]
    for path in paths:
        if not path.is_file():  # a pipe of that name would be waited for
            raise FileNotFoundError(f"{str(directory)!r} holds no exported policies: {path.name} is missing.")
    try:
        about = json.loads(paths[0].read_text(encoding="utf-8"))
        tensors = safetensors.numpy.load_file(paths[1])
        written = about.pop("sha256", None)  # 0.1.0 wrote none
        if written is not None and checkpoint.digest(tensors, about) != written:
            raise ValueError("they were altered or damaged since they were written: their digest does not match")
        for agent, described in about["agents"].items():
            _check_described(agent, described, tensors)
        return Policies(about, tensors)
    except Exception as error:
        said = f"{error!r}" if isinstance(error, KeyError) else f"{error}"
        raise CheckpointError(f"{str(directory)!r} cannot be read as exported policies ({said}).") from None


def _check_described(agent: str, described: Mapping[str, Any], tensors: Mapping[str, Array]) -> None:
    """That an agent's tensors are there, finite, and of the shapes that its description asks for."""

    def of_shape(name: str, *shape: int | None) -> tuple[int, ...]:
        array = tensors[f"{agent}/{name}"]
        fits = array.ndim == len(shape) and all(n in (None, m) for n, m in zip(shape, array.shape, strict=True))
        known = np.isfinite(array).all() or (name == "inputs/limit" and not np.isnan(array).any())  # inf: no limit
        if not fits or array.dtype not in (np.float32, np.float64) or not known:
            raise ValueError(f"{agent}/{name} is {array.dtype}{array.shape}, or not finite; expected floats {shape}")
        return array.shape

    width = described["inputs"]
    n_layers, norms = described["layers"], described.get("layer_norm", [True] * described["layers"])
    if n_layers < 1 or len(norms) != n_layers or described.get("activation", "relu") not in ACTIVATIONS:
        raise ValueError(f"{agent} has {n_layers} layers, {norms} and {described.get('activation')!r}")
    for index in range(n_layers):
        width = of_shape(f"layer_{index}/weight", width, None)[1]
        of_shape(f"layer_{index}/bias", width)
    if described.get("normalized"):
        for name in ("mean", "scale", "limit"):
            of_shape(f"inputs/{name}", described["inputs"])
    scaled = [name for name in ("centre", "half_width") if f"{agent}/action/{name}" in tensors]
    if described["distribution"] == "gaussian":
        for name in ("std", *(f"action/{name}" for name in scaled)):
            of_shape(name, width)
    elif described["distribution"] != "categorical" or sum(described["sizes"]) != width or len(scaled):
        raise ValueError(f"{agent} has {width} outputs and {described['distribution']!r} {described.get('sizes')}")
    identity = described["agent_id"]
    if identity is not None and not 0 <= identity < described["n_agents"]:
        raise ValueError(f"{agent} is number {identity} of {described['n_agents']}")


def export_tables(run: Run, directory: str | Path, *, kind: str = "csv") -> Path:
    """Write ``history``, ``agent_history`` and ``evaluations`` to a directory as "csv", "parquet" or "jsonl"."""
    if kind not in ("csv", "parquet", "jsonl"):
        raise unknown_name("kind of table", kind, ("csv", "parquet", "jsonl"))
    _refuse_no_run(run)
    directory = path_of("directory", directory)
    directory.mkdir(parents=True, exist_ok=True)
    for name in TABLES:
        table, path = getattr(run, name), directory / f"{name}.{kind}"
        if "order" in table:
            table["order"] = table["order"].map(" ".join)
        if kind == "csv":
            table.to_csv(path, index=False)
        elif kind == "parquet":
            table.to_parquet(path, index=False)
        else:
            table.to_json(path, orient="records", lines=True)
    return directory


def export_tensorboard(run: Run, directory: str | Path) -> Path:
    """Write the histories as TensorBoard events: scalars by env steps, agents by name.

    Needs the extra: ``pip install "workbench[tensorboard]"``; then ``tensorboard --logdir DIRECTORY`` shows them.
    """
    _refuse_no_run(run)
    directory = path_of("directory", directory)
    with contextlib.closing(TensorBoard(directory)) as board:
        for prefix, table in (("run", run.history), ("evaluation", run.evaluations), ("agents", run.agent_history)):
            for row in table.to_dict("records"):
                board.log(numbers_of(prefix, row), row["env_steps"])
    return directory


def _refuse_no_run(run: object) -> None:
    if not isinstance(run, Run):
        raise TypeError(f"run is {run!r}; expected a trainer, such as wb.happo(env) makes.")

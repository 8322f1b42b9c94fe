"""Keeping a run: the document that a checkpoint holds, and a directory of the last ones."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import re
import warnings
from collections import ChainMap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from workbench.envs.base import TeamEnv
from workbench.errors import CheckpointError, WorkbenchError, path_of
from workbench.learning.events import Intervention
from workbench.learning.settings import device_name
from workbench.learning.state import Setup, State
from workbench.running import checkpoint
from workbench.running.checkpoint import Arrays, Values
from workbench.running.script import noted
from workbench.running.unflatten import Parts, typed, unflatten

BEST = "best.safetensors"
CURSOR = re.compile(r"checkpoint-(\d{8})-(\d{4})\.safetensors")
OF_THE_MACHINE = ("n_threads", "workers")  # options of an environment by which no bit of it differs
KINDS = {  # of what a document holds
    **{"workbench": str, "method": str, "seed": int, "agents": list, "state": dict, "past": dict, "made_with": dict},
    **{"interventions": list, "lineage": list},
}
FORKED = {"method", "seed", "iteration", "phase", "position", "fingerprint", "changes"}
SET_ON_LOADING = ("order", "device", "threads")  # settings that may differ from those that a run was made with


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """What a run carries beside its state.

    made_with      settings as the run was made, before any change
    interventions  changes by hand
    lineage        where it was forked from
    """

    made_with: Mapping[str, Any]
    interventions: tuple[Intervention, ...] = ()
    lineage: tuple[Mapping[str, Any], ...] = ()


def document(setup: Setup, state: State, record: RunRecord, version: str) -> tuple[Arrays, Values]:
    """Everything about a run, as ``checkpoint.write`` takes it."""
    arrays, values = checkpoint.flatten(state)
    past_arrays, past = checkpoint.records(state)
    description = setup.env.description
    return arrays | past_arrays, {
        "format": checkpoint.FORMAT,
        "workbench": version,
        "method": setup.method_name,
        "seed": setup.streams.seed,
        "env": None if description is None else dict(description),
        "agents": list(setup.env.agents),
        "state": values,
        "past": past,
        "made_with": dict(record.made_with),
        "interventions": [_plain(change) for change in record.interventions],
        "lineage": list(record.lineage),
    }


def record_of(held: Values) -> RunRecord:
    """The record in a document."""
    make = Parts({}, "cpu").make
    changes = tuple(make(Intervention, change, "an intervention", ChainMap()) for change in held["interventions"])
    return RunRecord(held["made_with"], changes, tuple(held["lineage"]))


@contextlib.contextmanager
def refusing(path: object) -> Iterator[None]:
    """What is raised because the values in a file do not fit together, as a ``CheckpointError`` of one sentence."""
    try:
        yield
    except WorkbenchError:
        raise
    except Exception as error:
        said = f"{error} is missing" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise CheckpointError(f"{str(path)!r} holds values that do not fit together: {said.rstrip('.')}.") from None


def check_document(arrays: Arrays, held: Values) -> None:
    """Hold what a document says of a run against itself, before anything is made of it; ``ValueError`` for the rest."""
    for name, kind in KINDS.items():
        typed(held[name], kind)
    for agent in held["agents"]:
        typed(agent, str)
    if held["seed"] < 0:
        raise ValueError(f"the seed is {held['seed']}")
    if any(set(typed(fork, dict)) != FORKED or type(fork["changes"]) is not dict for fork in held["lineage"]):
        raise ValueError("its lineage is none")
    rows = len(arrays["running/returns"])
    if held["env"] is not None and typed(held["env"], dict).get("n_envs", rows) != rows:
        raise ValueError(f"it is of {held['env']['n_envs']!r} environments, and holds what {rows} show")
    team = str((held["env"] or {}).get("agent_conf"))  # such as 4x2: parts of a robot, which one may have as one likes
    if math.prod(map(int, re.findall(r"\d+", team))) > sum(array.size for array in arrays.values()):
        raise ValueError(f"it is of the team {team[:40]!r}, which is larger than what it holds")
    settings, made_with = typed(held["state"]["settings"], dict), held["made_with"]
    if list(settings) != list(made_with):
        raise ValueError("its settings are others than those that it was made with")
    changes = [change for change in record_of(held).interventions if change.name in settings]
    for name, value in settings.items():
        known = [
            made_with[name],
            *(json.loads(json.dumps(x)) for c in changes if c.name == name for x in (c.old, c.new)),
        ]
        if value not in known and name not in SET_ON_LOADING and not (value is None and changes):
            raise ValueError(f"{name} is {value!r}, which it was neither made with nor changed to")


def settings_of(path: object, held: Values, order: object = None, device: str | None = None) -> Values:
    """The settings in a document as keywords; an order that was a function must be given anew, a device may be."""
    plain = dict(held["state"]["settings"])
    try:
        plain["device"] = device_name(plain["device"] if device is None else device)
    except ValueError as expected:
        raise CheckpointError(
            f"{str(path)!r} would go on on the device {plain['device'] if device is None else device!r}; expected "
            f"{expected}. wb.load(path, device='cpu') goes on on the CPU, though not to the same bits."
        ) from None
    if isinstance(plain["order"], dict):
        if order is None:
            raise CheckpointError(
                f"the order of {str(path)!r} was the function {plain['order']['callable']!r}, which a file cannot "
                "hold; pass it, or another order: wb.load(path, order=…)."
            )
        plain["order"] = order
    return plain


def refuse_another_env(path: object, held: Values, env: TeamEnv) -> None:
    """A checkpoint of another team, or of another environment that describes itself, does not fit."""
    if list(env.agents) != held["agents"]:
        raise CheckpointError(
            f"{str(path)!r} was saved with the agents {', '.join(held['agents'])}, and this environment has "
            f"{', '.join(env.agents)}; pass an environment like the one that was trained on."
        )
    told = _differences(_essence(held["env"]), _essence(env.description)) if held["env"] and env.description else ""
    if told:
        raise CheckpointError(
            f"{str(path)!r} is of another environment ({told}); pass one like it, or none: wb.load(path) makes it."
        )


def _essence(description: Mapping[str, object] | None) -> Values:
    """A description as a file has it, without what belongs to the machine."""
    plain: Values = json.loads(json.dumps(dict(description or {})))
    return {name: value for name, value in plain.items() if name not in OF_THE_MACHINE}


def _differences(theirs: Values, mine: Values) -> str:
    """What differs, in words; long values by name alone."""

    def told(values: Values, name: str) -> str:
        text = repr(values[name]) if name in values else "none"
        return text if len(text) <= 60 else "another"

    names = [name for name in dict.fromkeys((*theirs, *mine)) if theirs.get(name) != mine.get(name)]
    return "; ".join(f"{name}: {told(theirs, name)} there, {told(mine, name)} here" for name in names)


def state_of(path: object, arrays: Arrays, held: Values, setup: Setup, settings: Any) -> State:
    """The state in a document, for a setup that fits it."""
    env = setup.env
    with refusing(path):
        if (n_envs := len(arrays["running/returns"])) != env.n_envs:
            raise ValueError(f"it is of {n_envs} environments, this environment is {env.n_envs}; pass one like it")
        state = unflatten(arrays, held, setup, settings)
        for gap in _gaps(held, settings):
            state = noted(state, "load", gap=gap)
        if state.env is not None and env.can_snapshot:
            env.restore(state.env)
            kept, taken = ({name: (a.shape, a.dtype) for name, a in of.items()} for of in (state.env, env.snapshot()))
            if kept != taken:
                raise ValueError("its environments are not such as this one")
            return state
    warnings.warn(
        f"the environment of {str(path)!r} could not be saved: its episodes begin anew, so the run goes on, but "
        "not bit for bit. Give the environment snapshot() and restore() to change that.",
        stacklevel=3,
    )
    running = setup.rollout_env.begin(setup.streams.integer("environment", state.iteration))
    state = noted(state, "load", gap="a checkpoint was loaded here whose environment could not be saved")
    return dataclasses.replace(state, running=running)


def _gaps(held: Values, settings: Any) -> list[str]:
    """What ``script()`` cannot say of a run that was loaded here."""
    before = held["state"]["settings"]["device"]
    moved = f"a checkpoint was loaded here that had run on {before}, and went on on {settings.device}"
    return [moved] if settings.device != before else []


class CheckpointDirectory:
    """The last ``keep`` checkpoints of one run, and its best; a damaged one is passed over for the one before."""

    def __init__(self, path: str | os.PathLike[str], keep: int = 2) -> None:
        self.path, self.keep = Path(path), keep

    def make(self) -> CheckpointDirectory:
        """Make sure that there is such a directory to write to, free of what a kill left; ``OSError`` if not."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            for abandoned in self.path.glob(".*.safetensors.*.partial"):
                abandoned.unlink(missing_ok=True)  # what a kill in mid-write left
        except OSError as error:
            raise OSError(
                error.errno, f"no checkpoints can be kept in {str(self.path)!r}: {error.strerror}. Choose another."
            ) from None
        return self

    def files(self) -> list[Path]:
        """The checkpoints, oldest first."""
        return [file for file in self._called() if file.is_file()]

    def _called(self) -> list[Path]:
        """What is called like a checkpoint, whatever it is."""
        return sorted(file for file in self.path.glob("checkpoint-*.safetensors") if CURSOR.fullmatch(file.name))

    def newest(self) -> tuple[Path, Arrays, Values] | None:
        """The newest checkpoint that can be read; None where there is none."""
        for file in reversed(self._called()):
            try:
                return file, *checkpoint.read(file)
            except (CheckpointError, OSError) as error:
                told = error if isinstance(error, CheckpointError) else f"{str(file)!r} is no file that can be read."
                warnings.warn(f"{told} The one before it is used.", stacklevel=2)
        return None

    def write(self, arrays: Arrays, held: Values) -> None:
        """Keep one more, and drop what is older than the last ``keep``.

        A disk that is full or read-only does not end the training: it is reported as a warning, and the earlier
        checkpoints stay.
        """
        state = held["state"]
        phases_done = {"collect": 0, "estimate": 1, "update_agent": 2}.get(state["phase"], 2) + state["position"]
        if self._written(f"checkpoint-{state['iteration']:08d}-{phases_done:04d}.safetensors", arrays, held):
            for old in self.files()[: -self.keep]:
                old.unlink(missing_ok=True)

    def write_best(self, arrays: Arrays, held: Values) -> None:
        """Keep the run as it is now in place of the best so far."""
        self._written(BEST, arrays, held)

    def _written(self, name: str, arrays: Arrays, held: Values) -> bool:
        try:
            checkpoint.write(self.path / name, arrays, held)
        except OSError as error:
            kept = self.files()
            last = f"the last checkpoint is {kept[-1].name}" if kept else "there is no checkpoint yet"
            warnings.warn(
                f"no checkpoint could be written to {str(self.path)!r}: {error}; training goes on, {last}.",
                stacklevel=3,
            )
            return False
        return True


def read(path: str | os.PathLike[str]) -> tuple[Path, Arrays, Values]:
    """A checkpoint, or the newest of a directory of them, and where it was."""
    path = path_of("path", path)
    if path.is_dir() and (found := CheckpointDirectory(path).newest()) is not None:
        return found
    return path, *checkpoint.read(path)


def refuse_another_run(path: Path, held: Values, setup: Setup, record: RunRecord) -> None:
    """Going on with a checkpoint that another method, seed, environment or setting made would mix two runs."""
    mine = {"method": setup.method_name, "seed": setup.streams.seed, **_essence(setup.env.description)}
    theirs = {"method": held["method"], "seed": held["seed"], **_essence(held["env"])}
    # The thread count may come from the machine; the run goes on with the one it began with.
    own = {"threads": None}
    if mine["method"] == theirs["method"]:  # of another method, other settings are no news
        theirs, mine = theirs | held["made_with"] | own, mine | dict(record.made_with) | own
    told = _differences(theirs, mine)
    if told:
        raise CheckpointError(
            f"{str(path)!r} is of another run ({told}). Choose another directory, or make the trainer as it was."
        )


def _plain(change: Intervention) -> Values:
    """An intervention as plain values; a callable order becomes its name."""
    plain: Values = {f.name: getattr(change, f.name) for f in dataclasses.fields(change)}
    return {name: checkpoint.rule_name(value) if callable(value) else value for name, value in plain.items()}

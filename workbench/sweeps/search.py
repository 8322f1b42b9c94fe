"""``Search``: parameters chosen on the way, by Optuna, with runs that fall behind ended early.

An extra: ``pip install optuna``. The study is kept in a journal beside the runs, so that a search that is killed goes
on, and Optuna's own tools can read it.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pandas as pd

from workbench.envs.arguments import positive_integer
from workbench.errors import unknown_name
from workbench.sweeps import layout, results, values
from workbench.sweeps.batch import Batch
from workbench.sweeps.files import Json, read_lines
from workbench.sweeps.job import RunOutcome
from workbench.sweeps.notebook import SEED, check_kernel
from workbench.sweeps.plan import Distribution, Plan, PlannedRun, check_names, checked_seeds, space
from workbench.sweeps.values import Parameters

if TYPE_CHECKING:
    import optuna

    from workbench.sweeps.dispatcher import RunDispatcher

JOURNAL = "study.journal"
STUDY = "search"
DIRECTIONS = ("maximize", "minimize")
STEP = "env_steps"


class Search(Batch):
    """A search for the parameters that bring a metric furthest.

        search = wb.Search("notebooks/experiment.ipynb", {"clip_epsilon": {"log_uniform": [0.02, 0.4]}},
                           trials=30, seeds=[0, 1], fixed={"env_steps": 300_000}, directory="data/searches/epsilon")
        search.run(workers=2)
        search.best                 # {"clip_epsilon": …}
        search.trials()             # one row a trial

    space      {name: choices, or {"uniform": [low, high]}, "log_uniform", "integers"}
    metric     what counts, a column of the evaluations (or of the metrics where nothing is evaluated): its last value
    direction  "maximize" or "minimize"
    trials     how many combinations are tried in all, those of earlier calls included
    seeds      each trial is run with all of them, and counts by their mean
    sampler, pruner   Optuna's; by default its TPE, seeded, and its median rule. ``pruner=None`` ends no run early
    fixed, directory, threads, kernel   as for ``wb.Sweep``

    Trials are chosen as workers come free, so that with several workers the choices depend on who was ready first.
    """

    def __init__(
        self,
        notebook: str | Path,
        space: Mapping[str, Any],
        *,
        metric: str = "return",
        direction: str = "maximize",
        trials: int = 20,
        seeds: Iterable[int] = (0,),
        fixed: Mapping[str, Any] | None = None,
        directory: str | Path,
        sampler: optuna.samplers.BaseSampler | None = None,
        pruner: optuna.pruners.BasePruner | str | None = "median",
        threads: int = 1,
        kernel: str | None = None,
    ) -> None:
        super().__init__(notebook, directory, threads, kernel)
        check_kernel(self.notebook, self.kernel)
        if direction not in DIRECTIONS:
            raise unknown_name("direction", direction, DIRECTIONS)
        if not space:
            raise ValueError(
                "space is empty; expected {name: distribution}, such as {'rate': {'uniform': [0.1, 0.3]}}."
            )
        self.metric, self.direction, self.n_trials = metric, direction, positive_integer("trials", trials)
        self._space = _read_space(self, space, fixed or {}, seeds)
        self._seeds = checked_seeds(self.notebook, seeds)
        self._fixed = {name: self.notebook.parameters[name].check(value) for name, value in (fixed or {}).items()}
        self._sampler, self._pruner = sampler, pruner
        self._under_way: dict[int, _Trial] = {}
        self.plan = Plan((), tuple(space), self._seeds)

    @property
    def study(self) -> optuna.Study:
        """The study, as Optuna has it."""
        extra = _optuna()
        extra.logging.set_verbosity(extra.logging.WARNING)
        self.directory.mkdir(parents=True, exist_ok=True)
        backend = extra.storages.journal.JournalFileBackend(str(self.directory / JOURNAL))
        default = extra.pruners.NopPruner() if self._pruner is None else extra.pruners.MedianPruner()
        study: optuna.Study = extra.create_study(
            study_name=STUDY,
            storage=extra.storages.JournalStorage(backend),
            sampler=self._sampler,
            pruner=default if self._pruner in (None, "median") else self._pruner,
            direction=self.direction,
            load_if_exists=True,
        )
        if self._sampler is None:  # seeded anew each time, or a search that goes on would draw what it drew at first
            study.sampler = extra.samplers.TPESampler(seed=len(study.get_trials(deepcopy=False)))
        if study.direction.name.lower() != self.direction:
            raise ValueError(
                f"the search in {str(self.directory)!r} is to {study.direction.name.lower()}, this one to "
                f"{self.direction}. Choose another directory."
            )
        return study

    @property
    def best(self) -> dict[str, Any]:
        """The parameters of the best trial. Raises ``ValueError`` before one is complete."""
        return self._parameters(self.study.best_trial.params)

    def trials(self) -> pd.DataFrame:
        """One row a trial: its number, its parameters, the metric, and whether it was completed, pruned or failed."""
        rows = [
            {
                "trial": trial.number,
                **{name: results.cell(value) for name, value in self._parameters(trial.params).items()},
                self.metric: trial.value if trial.state.name == "COMPLETE" else None,
                "state": trial.state.name.lower(),
            }
            for trial in self.study.get_trials(deepcopy=False)
        ]
        return pd.DataFrame(rows, columns=None if rows else ["trial", *self._space, self.metric, "state"])

    # --- what the dispatcher asks of it ---------------------------------------------------------------------------

    def _nothing_left(self) -> bool:
        return False  # the study decides

    def _begin(self, dispatcher: RunDispatcher) -> None:
        """Take up the trials that an earlier call left, then fill all workers."""
        frozen = _optuna().trial
        self._study = self.study
        self._under_way.clear()
        for left in self._study.get_trials(states=(frozen.TrialState.RUNNING,)):
            trial = frozen.Trial(self._study, left._trial_id)
            self._take_up(dispatcher, trial, left.params, reported=max(left.intermediate_values, default=-1))
        self._fill(dispatcher)

    def _fill(self, dispatcher: RunDispatcher) -> None:
        """As many trials as keep all workers busy."""
        from workbench.sweeps.cluster import n_workers

        while len(self._under_way) * len(self._seeds) < n_workers(dispatcher.client):
            if len(self._study.get_trials(deepcopy=False)) >= self.n_trials:
                return
            trial = self._study.ask()
            for name, distribution in self._space.items():
                _suggest(trial, name, distribution)
            self._take_up(dispatcher, trial, trial.params)

    def _take_up(
        self, dispatcher: RunDispatcher, trial: optuna.trial.Trial, chosen: Parameters, reported: int = -1
    ) -> None:
        given = {**self._fixed, **self._parameters(chosen)}
        resolved = [self.notebook.resolve({**given, SEED: seed}) for seed in self._seeds]
        runs = tuple(map(PlannedRun, resolved))
        self._under_way[trial.number] = _Trial(trial, runs, reported)
        known = {run.name: run for run in (*self.plan.runs, *runs)}
        self.plan = Plan(tuple(known.values()), self.plan.swept, self.plan.seeds)
        self._write_down(retry_failed=False)
        dispatcher.add(runs)

    def _ended(self, dispatcher: RunDispatcher, run: PlannedRun, outcome: RunOutcome) -> None:
        """Tell the study of every trial whose runs have all come to their ends."""
        if outcome.kind == "stopped":  # with the whole search: it goes on from here
            return
        states = _optuna().trial.TrialState
        for number, under_way in list(self._under_way.items()):
            if run.name not in under_way.ends:
                continue
            under_way.ends[run.name] = outcome.kind
            unfinished = [name for name, end in under_way.ends.items() if end is None]
            if outcome.kind != "finished":  # the trial will have no value: its other runs need not go on
                for name in unfinished:
                    dispatcher.prune(name, f"another seed of the trial {outcome.kind}")
            if unfinished:
                continue
            del self._under_way[number]
            kinds = set(under_way.ends.values())
            finals = [self._values(each)[-1:] for each in under_way.runs] if kinds == {"finished"} else [[]]
            if all(finals):
                mean = statistics.fmean(value for ((_, value),) in finals)
                self._study.tell(number, mean, skip_if_finished=True)
            else:
                state = states.PRUNED if kinds <= {"finished", "pruned"} and "pruned" in kinds else states.FAIL
                self._study.tell(number, state=state, skip_if_finished=True)
        self._fill(dispatcher)

    def _look(self, dispatcher: RunDispatcher) -> None:
        """Report what the runs have reached, and end those that the pruner gives up."""
        for under_way in list(self._under_way.values()):
            curves = [dict(self._values(run)) for run in under_way.runs]
            shared = sorted(set.intersection(*map(set, curves))) if curves else []
            for step in shared:
                if step > under_way.reported:
                    under_way.reported = step
                    under_way.trial.report(statistics.fmean(curve[step] for curve in curves), step)
                    if under_way.trial.should_prune() and not under_way.given_up:
                        under_way.given_up = True
                        for run in under_way.runs:
                            dispatcher.prune(run.name, f"pruned at {step:,} env steps")

    def _values(self, run: PlannedRun) -> list[tuple[int, float]]:
        """(env steps, metric) of a run, as far as it has come."""
        rows = read_lines(self._place(run) / layout.EVALUATIONS) or read_lines(self._place(run) / layout.METRICS)
        return [
            (int(row[STEP]), float(row[self.metric])) for row in rows if isinstance(row.get(self.metric), int | float)
        ]

    def _parameters(self, chosen: Parameters) -> Json:
        """What Optuna chose as the notebook takes it."""
        found = {}
        for name, value in chosen.items():
            kind, given = self._space[name]
            picked = next(each for each in given if _word(each) == value) if kind == "choice" else value
            found[name] = self.notebook.parameters[name].check(picked)
        return found


class _Trial:
    """A trial under way: its runs, how those ended that did, and the step that was reported last."""

    def __init__(self, trial: optuna.trial.Trial, runs: tuple[PlannedRun, ...], reported: int) -> None:
        self.trial, self.runs, self.reported = trial, runs, reported
        self.ends: dict[str, str | None] = {run.name: None for run in runs}
        self.given_up = False


def _optuna() -> ModuleType:
    """Optuna, an extra; imported where it is used."""
    try:
        import optuna.storages.journal
    except ImportError:
        raise ImportError("a search needs Optuna: pip install optuna.") from None
    return optuna


def _read_space(search: Search, given: Parameters, fixed: Parameters, seeds: Iterable[int]) -> dict[str, Distribution]:
    """Every distribution, its ends or choices checked against the notebook."""
    check_names(search.notebook, {"space": given, "fixed": fixed}, seeds)
    found = {}
    for name, each in given.items():
        kind, among = space(name, each)
        found[name] = kind, [search.notebook.parameters[name].check(value) for value in among]
        words = list(map(_word, found[name][1]))
        if kind == "choice" and len(set(words)) < len(words):
            raise ValueError(f"the choices of {name} are {each!r}; expected no two that are the same.")
    return found


def _word(value: object) -> bool | int | float | str | None:
    """A choice as Optuna keeps it: a plain value as it is, others as text."""
    return value if value is None or isinstance(value, bool | int | float | str) else values.short(value)


def _suggest(trial: optuna.trial.Trial, name: str, distribution: Distribution) -> None:
    kind, given = distribution
    if kind == "choice":
        trial.suggest_categorical(name, [_word(value) for value in given])
    elif kind == "integers":
        trial.suggest_int(name, int(given[0]), int(given[1]))
    else:
        trial.suggest_float(name, float(given[0]), float(given[1]), log=kind == "log_uniform")

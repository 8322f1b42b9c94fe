"""A configuration of HARL's as the keywords of a recipe."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import yaml

from workbench.errors import path_of
from workbench.learning.names_elsewhere import SAID_ELSEWHERE, SAME_MEANING
from workbench.networks.mlp import ACTIVATIONS
from workbench.running.methods import find_method

Values = Mapping[str, Any]

# What HARL always does, and what is a setting here.
ALWAYS = {
    **{"normalize_observations": False, "std": "sigmoid", "initial_log_std": 1.0, "final_lr_fraction": 0.0},
    **{"ratio_clamp": None, "team_target_kl": None},
}
# What is always so here: said only where it is otherwise there.
AS_HERE: Values = {
    **{"gain": 0.01, "opti_eps": 1e-5, "weight_decay": 0, "value_loss_coef": 1, "std_x_coef": 1, "std_y_coef": 0.5},
    **{"initialization_method": "orthogonal_", "action_aggregation": "prod", "recurrent_n": 1, "model_dir": None},
    **{"use_max_grad_norm": True, "use_policy_active_masks": True, "use_proper_time_limits": True},
    **{"seed_specify": True, "load_config": ""},
}
# {their name: what its value is here}, given all values, where that is another one.
TURNED: dict[str, Callable[[Any, Values], dict[str, Any]]] = {
    "hidden_sizes": lambda sizes, _: {"hidden_sizes": tuple(sizes)},
    "use_clipped_value_loss": lambda on, all: {"value_clip_epsilon": all.get("clip_param", 0.2) if on else None},
    "use_huber_loss": lambda on, all: {"huber_delta": all.get("huber_delta", 10.0) if on else None},
    "use_gae": lambda on, all: {"gae_lambda": all.get("gae_lambda", 0.95) if on else 1.0},
    "use_linear_lr_decay": lambda on, all: {"lr_decay_steps": all.get("num_env_steps", 10**7) if on else None},
    "use_feature_normalization": lambda on, _: {"layer_norm": "all" if on else "hidden"},
    "use_recurrent_policy": lambda on, all: _memory(all.get("data_chunk_length", 10)) if on else {},
    "use_naive_recurrent_policy": lambda on, all: _memory(all.get("episode_length", 200)) if on else {},
    "share_param": lambda on, _: {"sharing": "shared" if on else "separate"},
    "fixed_order": lambda on, _: {"order": "fixed" if on else "random"},
}
OF_THE_MACHINE = ("cuda", "cuda_deterministic", "torch_threads")


def from_harl(config: str | os.PathLike[str] | Values, method: str | None = None) -> dict[str, Any]:
    """The settings of one of HARL's configurations, as keywords: ``wb.hatrpo(env, **wb.from_harl("hatrpo.yaml"))``.

    config  a .yaml or .json file, or a mapping of what such a file holds, in sections or flat
    method  "happo", "hatrpo", "haa2c" or "mappo"; by default what the configuration or its file is called

    What HARL always does and is a setting here is among them, such as ``normalize_observations=False``. What there is
    no setting for here, and what the environment or ``run()`` is told instead, is left out: one warning names it.
    Raises ``ValueError`` for an unknown method and for values that no setting takes.

    >>> from_harl({"algo": {"clip_param": 0.1, "ppo_epoch": 5, "fixed_order": False}}, "happo")["clip_epsilon"]
    0.1
    """
    values = dict(_leaves(config if isinstance(config, Mapping) else _read(path_of("config", config))))
    said = values.pop("algo", None)
    if method is None:
        method = said if said is not None or isinstance(config, Mapping) else path_of("config", config).stem
    if method is None:
        raise ValueError('the configuration does not say its method; pass it, as in from_harl(config, "happo").')
    kind = find_method(method)
    known = kind.settings.names()
    keywords = {name: value for name, value in ALWAYS.items() if name in known}
    left_out: dict[str, object] = {}
    for name, value in sorted(values.items(), key=lambda item: item[0] in TURNED):  # those overrule the plain ones
        here = _here(name, value, values)
        if here is None or not here.keys() <= {*known, "seed"}:
            left_out[name] = value
        else:
            keywords |= here
    kind.settings.make(kind.name, {name: value for name, value in keywords.items() if name != "seed"})
    if left_out:
        told = "; ".join(f"{name}={value!r}{_instead(name)}" for name, value in left_out.items())
        warnings.warn(f"left out of HARL's configuration: {told}.", stacklevel=2)
    return keywords


def _here(name: str, value: Any, values: Values) -> dict[str, Any] | None:
    """The settings of that meaning; None where there is none."""
    if name in TURNED:
        return TURNED[name](value, values)
    if name in AS_HERE and value == AS_HERE[name]:
        return {}
    if name in AS_HERE or name in OF_THE_MACHINE:
        return None
    if name == "data_chunk_length":  # goes with use_recurrent_policy
        return {}
    if name == "activation_func" and value not in ACTIVATIONS:
        return None
    return {SAME_MEANING.get(name, name): value}


def _memory(steps: int) -> dict[str, Any]:
    return {"recurrent": True, "sequence_length": steps}


def _instead(name: str) -> str:
    if name in OF_THE_MACHINE:
        return " (the machine's: device= and threads=)"
    return f" ({SAID_ELSEWHERE[name]})" if name in SAID_ELSEWHERE else ""


def _leaves(values: Values) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value)
        else:
            yield name, value


def _read(path: os.PathLike[str]) -> Values:
    with open(path, encoding="utf-8") as file:
        try:
            found = json.load(file) if os.fspath(path).endswith(".json") else yaml.safe_load(file)
        except (ValueError, yaml.YAMLError) as error:
            raise ValueError(f"{os.fspath(path)!r} cannot be read: {' '.join(str(error).split())}.") from None
    if not isinstance(found, Mapping):
        raise ValueError(f"{os.fspath(path)!r} holds a {type(found).__name__}; expected one of HARL's configurations.")
    return found

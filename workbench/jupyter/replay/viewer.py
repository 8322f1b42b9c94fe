"""``Replay``: episodes to watch, in three dimensions where the environment is a robot, in a cell or in a file.

trainer.replay()                                  # an episode by the policies as they are
trainer.replay(past=True, ghost=fork)             # a scrubber over training, another run's ghost beside
trainer.replay_rollout(env=3, start=100)          # what the agents did in training
wb.replay(wb.load_policies("policies"))           # exported policies
"""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.envs.sampled_game import SampledGame
from workbench.episodes import Episode
from workbench.errors import SnapshotUnsupported, file_to_write
from workbench.jupyter.assets import ArrayBlock, PageMessage
from workbench.jupyter.look import Spec
from workbench.jupyter.replay.page_data import PngBlock, ReplayScene, agents_of, episode_data, scene_data
from workbench.jupyter.replay.player_widget import SHOWN, PlayerWidget
from workbench.learning.state import State

if TYPE_CHECKING:
    from workbench.running.trainer import Trainer


@dataclass(frozen=True)
class Take:
    """Episodes of one moment in training, or of one run.

    label     what the player calls it
    episodes  as they were played
    trainer   whose policies played, and ``state`` the moment; None where training cannot go on from there
    """

    label: str
    episodes: tuple[Episode, ...]
    trainer: Trainer | None = None
    state: State | None = None


class Replay:
    """Episodes to watch; the last expression of a cell shows the player.

    ``to_html(path)`` is the player as a file of its own, ``to_gif(path)`` and ``to_mp4(path)`` are films,
    ``start_here()`` a fork whose environments stand at the frame shown. ``take``, ``episode`` and ``frame`` say what is
    shown, and can be set; takes are the moments in training, the latest last. Made by ``trainer.replay`` and
    ``wb.replay``.
    """

    def __init__(
        self,
        scene: ReplayScene,
        takes: Sequence[Take],
        ghost: Take | None = None,
        ghost_scene: ReplayScene | None = None,
    ):
        if not takes or not all(take.episodes for take in takes):
            raise ValueError("there is no episode to show.")
        self.scene, self.takes, self.ghost = scene, tuple(takes), ghost
        self.ghost_scene = ghost_scene or scene
        self._at = {"take": len(self.takes) - 1, "episode": 0, "frame": 0}
        self._players: list[PlayerWidget] = []
        self.forks: list[Trainer] = []

    # --- looking ------------------------------------------------------------------------------------------------------

    @property
    def episodes(self) -> tuple[Episode, ...]:
        """The episodes of the take that is shown."""
        return self.takes[self.take].episodes

    @property
    def _shown(self) -> dict[str, int]:
        """The numbers of the "take", the "episode" and the "frame" that are shown."""
        shown = self._players[-1].shown if self._players else {}
        return {name: int((shown or self._at)[name]) for name in self._at}

    def _set(self, **at: int) -> None:
        self._at = self._shown | at
        episode = self.takes[self._at["take"]].episodes[self._at["episode"]]
        if not 0 <= self._at["frame"] <= len(episode):
            raise ValueError(f"frame is {self._at['frame']!r}; expected 0 to {len(episode)}.")
        for player in self._players:
            player.shown = player.at = dict(self._at)

    @property
    def take(self) -> int:
        """Which of ``takes`` is shown."""
        return self._shown["take"]

    @take.setter
    def take(self, take: int) -> None:
        take = range(len(self.takes))[take]
        self._set(take=take, episode=0, frame=min(self.frame, len(self.takes[take].episodes[0])))

    @property
    def episode(self) -> int:
        """Which of ``episodes`` is shown."""
        return self._shown["episode"]

    @episode.setter
    def episode(self, episode: int) -> None:
        episode = range(len(self.episodes))[episode]
        self._set(episode=episode, frame=min(self.frame, len(self.episodes[episode])))

    @property
    def frame(self) -> int:
        """The frame that is shown: 0 before the first step, t after step t."""
        return self._shown["frame"]

    @frame.setter
    def frame(self, frame: int) -> None:
        self._set(frame=frame)

    # --- going on -----------------------------------------------------------------------------------------------------

    def start_here(self, frame: int | None = None, *, episode: int | None = None, take: int | None = None) -> Trainer:
        """A fork, at the beginning of an iteration, whose environments all stand at the frame shown, or at ``frame``.

        Its policies are those of the take. The first environment goes on with the episode's random generator too, so
        that it does what the episode would have done, bit for bit; the others keep their own. An iteration that the
        take was in the middle of is left out. Raises ``ValueError`` in an episode's last frame, and where no run is
        behind the take; ``SnapshotUnsupported`` where the environment cannot be copied.
        """
        number = self.take if take is None else range(len(self.takes))[take]
        chosen = self.takes[number]
        which = self.episode if episode is None else range(len(chosen.episodes))[episode]
        played = chosen.episodes[which]
        at = self.frame if frame is None else frame
        if chosen.trainer is None or chosen.state is None:
            raise ValueError("these policies belong to no run: only a trainer's own replay can be started from.")
        if not 0 <= at <= len(played):
            raise ValueError(f"frame is {at!r}; expected 0 to {len(played)}.")
        if at == len(played) and played.end:
            raise ValueError(f"the episode {played.end} in frame {at}: nothing follows it. Start at an earlier frame.")
        if played.place is None:
            raise SnapshotUnsupported(
                f"{type(self.scene.env).__name__} cannot be copied one at a time: see TeamEnv.snapshot and select."
            )
        fork = chosen.trainer.start_at(played.place, played.actions_before(at), chosen.state)
        self.forks.append(fork)
        return fork

    def _start(self, message: PageMessage) -> str:
        at = {name: int(message[name]) for name in self._at}
        self.start_here(**at)
        return f"A fork stands at frame {at['frame']}: it is replay.forks[{len(self.forks) - 1}]."

    # --- showing itself -----------------------------------------------------------------------------------------------

    @property
    def title(self) -> str:
        """Who plays where."""
        env = self.scene.env
        description = env.description or {}
        if description.get("kind") == "mujoco":
            return " ".join(filter(None, (description["scenario"], description.get("agent_conf"))))
        return repr(env).partition(":")[0]

    def data(self) -> tuple[Spec, bytes, bytes]:
        """What the page is sent: a spec, the block of its arrays, and pictures."""
        pictures = PngBlock()
        startable = any(take.trainer is not None and take.episodes[0].place is not None for take in self.takes)
        spec: Spec = {
            "kind": self.scene.kind,
            "title": self.title,
            "seconds": self.scene.seconds,
            "agents": agents_of(self.scene, [episode for take in self.takes for episode in take.episodes]),
            "takes": [self._take_data(self.scene, take, pictures) for take in self.takes],
            "ghost": None if self.ghost is None else self._take_data(self.ghost_scene, self.ghost, pictures),
            "startable": startable,
        }
        if isinstance(self.scene.env, SampledGame):
            spec["states"] = self.scene.env.game.n_states
        if self.scene.geometry is not None:
            spec["scene"] = scene_data(self.scene)
            spec["ghostScene"] = None if self.ghost is None else scene_data(self.ghost_scene)
        block = ArrayBlock()
        return block.pack(spec), block.bytes(), pictures.bytes()

    @staticmethod
    def _take_data(scene: ReplayScene, take: Take, pictures: PngBlock) -> Spec:
        return {"label": take.label, "episodes": [episode_data(scene, episode, pictures) for episode in take.episodes]}

    def widget(self) -> PlayerWidget:
        """The player, to be put among other widgets."""
        spec, block, pictures = self.data()
        at = self._shown
        player = PlayerWidget(self._start, spec=spec, block=block, pictures=pictures, at=at, shown=at)
        self._players.append(player)
        return player

    def close(self) -> None:
        """Take the players off the page. The episodes stay, and can be shown again."""
        self._at = self._shown
        while self._players:
            with contextlib.suppress(Exception):  # its page may be gone
                self._players.pop().close()

    def _ipython_display_(self) -> None:
        import IPython.display

        player = self.widget()
        SHOWN.add(self.close)
        shown, metadata = player._repr_mimebundle_()  # type: ignore[misc]
        bundle = {**shown, "text/plain": repr(self)}
        IPython.display.display(bundle, raw=True, metadata=metadata)  # type: ignore[no-untyped-call]
        IPython.display.display(self.record(), raw=True)  # type: ignore[no-untyped-call]

    @cached_property
    def _picture(self) -> bytes:
        from workbench.jupyter.replay.filmstrip import filmstrip

        return filmstrip(self)

    def record(self) -> dict[str, str]:
        """What a notebook keeps: a picture of the episode, frame beside frame, and a short text."""
        return {"image/png": base64.b64encode(self._picture).decode("ascii"), "text/plain": repr(self)}

    def to_html(self, path: str | Path) -> Path:
        """Write the player as one file, which plays from disk without a kernel or a network; returns the path."""
        from workbench.jupyter.replay.html_page import page

        path = file_to_write(path, ".html")
        path.write_text(page(self), encoding="utf-8")
        return path

    def to_gif(self, path: str | Path, **options: Any) -> Path:
        """Write a film as a GIF: ``replay_film.film`` has the options; returns the path."""
        from workbench.jupyter.replay.film import write_gif

        return write_gif(self, file_to_write(path, ".gif"), **options)

    def to_mp4(self, path: str | Path, **options: Any) -> Path:
        """Write a film as an mp4, which needs ffmpeg: ``replay_film.film`` has the options; returns the path."""
        from workbench.jupyter.replay.film import write_mp4

        return write_mp4(self, file_to_write(path, ".mp4"), **options)

    def __repr__(self) -> str:
        takes, episodes = len(self.takes), len(self.takes[-1].episodes)
        counts = [f"{episodes} episode{'s' * (episodes > 1)}"]
        counts += [f"{takes} moments in training"] if takes > 1 else []
        counts += [f"ghost: {self.ghost.label}"] if self.ghost is not None else []
        return f"Replay of {self.title}: {', '.join(counts)}"

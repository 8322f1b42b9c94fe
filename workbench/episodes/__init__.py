"""Episodes as they are played and replayed: recorded from a run's policies, or from the rollout that it trained on."""

from workbench.episodes.players import Player, RunPlayer, player_of
from workbench.episodes.recorder import Episode, play, replay_rollout
from workbench.episodes.starting import EpisodeSnapshot, at_beginning, standing_at

__all__ = [
    "Episode",
    "EpisodeSnapshot",
    "Player",
    "RunPlayer",
    "at_beginning",
    "play",
    "player_of",
    "replay_rollout",
    "standing_at",
]

"""The models: Gymnasium's files, a user's own, and chains of as many segments as one likes.

The chains are those of gymnasium-robotics, after Peng et al. 2021, "FACMAC: Factored Multi-Agent Centralised Policy
Gradients", https://arxiv.org/abs/2003.06709: a Swimmer of n links, and ants one behind the other.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import mujoco

_ASSETS = resources.files("gymnasium") / "envs" / "mujoco" / "assets"

_SCENERY = """
  <asset>
    <texture builtin="gradient" height="100" rgb1="1 1 1" rgb2="0 0 0" type="skybox" width="100"/>
    <texture builtin="flat" height="1278" mark="cross" markrgb="1 1 1" name="texgeom" random="0.01" rgb1="0.8 0.6 0.4"
             rgb2="0.8 0.6 0.4" type="cube" width="127"/>
    <texture builtin="checker" height="100" name="texplane" rgb1="0 0 0" rgb2="0.8 0.8 0.8" type="2d" width="100"/>
    <material name="MatPlane" reflectance="0.5" shininess="1" specular="1" texrepeat="{tiles} {tiles}"
              texture="texplane"/>
    <material name="geom" texture="texgeom" texuniform="true"/>
  </asset>
"""
_LIGHT = """<light cutoff="100" diffuse="1 1 1" dir="0 0 -1.3" directional="true" exponent="1" pos="0 0 1.3"
           specular=".1 .1 .1"/>"""


def is_own_path(xml_file: str) -> bool:
    """Whether ``xml_file`` is a path, rather than the name of one of Gymnasium's files."""
    return xml_file.startswith((".", "~")) or Path(xml_file).is_absolute()


def gymnasium_model(xml_file: str) -> mujoco.MjModel:
    """The model in ``xml_file``: a path if it starts with ``.``, ``/`` or ``~``, else one of Gymnasium's files.

    Raises ``FileNotFoundError`` where there is no such file, ``ValueError`` where MuJoCo cannot read it.
    """
    path = Path(xml_file).expanduser() if is_own_path(xml_file) else Path(str(_ASSETS / xml_file))
    if not path.is_file():
        raise FileNotFoundError(
            f"xml_file={xml_file!r}: there is no file {path}. A path of your own starts with './', '/' or '~'."
        )
    if is_own_path(xml_file):
        return mujoco.MjModel.from_xml_path(str(path))
    # Gymnasium's files use attributes that MuJoCo warns about, on the terminal and in a file of the working directory.
    warn = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(lambda message: None)
    try:
        return mujoco.MjModel.from_xml_path(str(path))
    finally:
        mujoco.set_mju_user_warning(warn)


def swimmer_chain(n_segments: int) -> mujoco.MjModel:
    """A swimmer with ``n_segments`` ≥ 2 actuated joints, ``rot0``, ``rot1`` …"""
    links = ""
    for i in range(n_segments):
        name = "back" if i == n_segments - 1 else f"mid{i}"
        # The joints' axes alternate, but for the first and the last.
        axis = -1 if 0 < i < n_segments - 1 and i % 2 == 0 else 1
        links += f"""
        <body name="{name}" pos="{0.5 if i == 0 else -1} 0 0">
          <geom density="1000" fromto="0 0 0 -1 0 0" size="0.1" type="capsule"/>
          <joint axis="0 0 {axis}" limited="true" name="rot{i}" range="-100 100" type="hinge"/>"""
    motors = "".join(
        f'<motor ctrllimited="true" ctrlrange="-1 1" gear="150" joint="rot{i}"/>' for i in range(n_segments)
    )
    return mujoco.MjModel.from_xml_string(f"""
<mujoco model="swimmer">
  <compiler angle="degree" inertiafromgeom="true"/>
  <option density="4000" integrator="RK4" timestep="0.01" viscosity="0.1"/>
  <default>
    <geom conaffinity="0" condim="1" contype="0" material="geom" rgba="0.8 0.6 .4 1"/>
    <joint armature="0.1"/>
  </default>
  {_SCENERY.format(tiles=30)}
  <worldbody>
    {_LIGHT}
    <geom condim="3" material="MatPlane" name="floor" pos="0 0 -0.1" rgba="0.8 0.9 0.8 1" size="40 40 0.1"
          type="plane"/>
    <body name="torso">
      <camera name="track" mode="trackcom" pos="0 -3 3" xyaxes="1 0 0 0 1 1"/>
      <geom density="1000" fromto="1.5 0 0 0.5 0 0" size="0.1" type="capsule"/>
      <joint axis="1 0 0" name="slider1" type="slide"/>
      <joint axis="0 1 0" name="slider2" type="slide"/>
      <joint axis="0 0 1" name="rot" type="hinge"/>
      {links}{"</body>" * n_segments}
    </body>
  </worldbody>
  <actuator>{motors}</actuator>
</mujoco>""")


def ant_chain(n_segments: int) -> mujoco.MjModel:
    """``n_segments`` ≥ 1 pairs of legs one behind the other, joints ``hip1_0``, ``ankle1_0``, ``hip2_0`` …"""
    segments = "".join(_ant_segment(i) for i in range(n_segments))
    motors = "".join(
        f'<motor ctrllimited="true" ctrlrange="-1 1" joint="{joint}_{i}" gear="150"/>'
        for i in range(n_segments)
        for joint in ("hip1", "ankle1", "hip2", "ankle2")
    )
    return mujoco.MjModel.from_xml_string(f"""
<mujoco model="ant">
  <size nconmax="200"/>
  <compiler angle="degree" inertiafromgeom="true"/>
  <option integrator="RK4" timestep="0.01"/>
  <custom>
    <numeric data="0 0 0.55 1 0 0 0 0 1 0 -1 0 -1 0 1" name="init_qpos"/>
  </custom>
  <default>
    <joint armature="1" damping="1" limited="true"/>
    <geom conaffinity="0" condim="3" density="5.0" friction="1 0.5 0.5" margin="0.01" rgba="0.8 0.6 0.4 1"/>
  </default>
  {_SCENERY.format(tiles=60)}
  <worldbody>
    {_LIGHT}
    <geom conaffinity="1" condim="3" material="MatPlane" name="floor" rgba="0.8 0.9 0.8 1" size="40 40 40"
          type="plane"/>
    {segments}{"</body>" * n_segments}
  </worldbody>
  <actuator>{motors}</actuator>
</mujoco>""")


def _ant_segment(i: int) -> str:
    """A segment's torso, left open for the next one, and its two legs; the first segment's legs point forwards."""
    if i == 0:
        torso = """<body name="torso_0" pos="0 0 0.75">
      <camera name="track" mode="trackcom" pos="0 -3 0.3" xyaxes="1 0 0 0 0 1"/>
      <joint armature="0" damping="0" limited="false" margin="0.01" name="root" type="free"/>"""
    else:
        torso = f"""<body name="torso_{i}" pos="-1 0 0">
      <geom density="100" fromto="1 0 0 0 0 0" size="0.1" type="capsule"/>"""
    return torso + _ant_leg(i, 1) + _ant_leg(i, 2)


def _ant_leg(segment: int, leg: int) -> str:
    """Leg 1 on the left or leg 2 on the right: a strut, then a thigh on a hip, then a shin on an ankle."""
    name = f"{leg}_{segment}"
    forward, left = (1 if segment == 0 else -1), (1 if leg == 1 else -1)
    strut = f"{0.2 if segment == 0 else 0} {0.2 * left} 0"
    thigh = f"{0.2 * forward} {0.2 * left} 0"
    shin = f"{0.4 * forward} {0.4 * left} 0"
    bend = "30 70" if segment == 0 else "-70 -30"
    return f"""
      <body name="leg{name}">
        <geom fromto="0 0 0 {strut}" name="strut{name}" size="0.08" type="capsule"/>
        <body name="thigh{name}" pos="{strut}">
          <joint axis="0 0 1" name="hip{name}" range="-30 30" type="hinge"/>
          <geom fromto="0 0 0 {thigh}" name="thigh{name}" size="0.08" type="capsule"/>
          <body name="shin{name}" pos="{thigh}">
            <joint axis="{-forward * left} 1 0" name="ankle{name}" range="{bend}" type="hinge"/>
            <geom fromto="0 0 0 {shin}" name="shin{name}" size="0.08" type="capsule"/>
          </body>
        </body>
      </body>"""

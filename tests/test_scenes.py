"""Robots as scenes: where MuJoCo has their geoms, and in whose hands."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
from seen_team import idle

import workbench as wb
from workbench.envs.multi_agent_mujoco.partitions import PARTITIONS
from workbench.envs.multi_agent_mujoco.robot_scene import MujocoScene
from workbench.envs.multi_agent_mujoco.shapes import shape_of
from workbench.jupyter import look

EVERY_PARTITION = [
    *((scenario, conf) for scenario, confs in PARTITIONS.items() for conf in confs),
    *(("ManySegmentSwimmer", conf) for conf in ("2x1", "5x2")),
    *(("ManySegmentAnt", conf) for conf in ("2x1", "2x2")),
]


@pytest.mark.parametrize(("scenario", "conf"), EVERY_PARTITION)
def test_poses_are_mujocos_and_colours_the_partitions(scenario, conf):
    env = wb.envs.mujoco(scenario, conf, n_envs=1)
    scene = env.scene()
    model, data = env.model, mujoco.MjData(env.model)
    rng = np.random.default_rng(0)
    sights = np.stack([data.qpos + rng.uniform(-1, 1, model.nq) for _ in range(4)])
    for sight, poses in zip(sights, scene.poses(sights), strict=True):
        data.qpos[:] = sight
        mujoco.mj_forward(model, data)
        for geom, (*place, w, x, y, z) in zip(scene.geoms, poses.tolist(), strict=True):
            rotation = np.empty(9)
            mujoco.mju_quat2Mat(rotation, np.array([w, x, y, z]))
            np.testing.assert_allclose(place, data.geom_xpos[geom], atol=1e-4)
            np.testing.assert_allclose(rotation, data.geom_xmat[geom], atol=1e-4)
    # Every visible geom but the floor is there, in the colours of those who turn the joints of its body.
    assert set(scene.geoms) == {g for g in range(model.ngeom) if model.geom_type[g] != mujoco.mjtGeom.mjGEOM_PLANE}
    joints = {joint: agent for agent, parts in env.partition.items() for _, joint, _ in parts}
    for geom, solid in zip(scene.geoms, scene.solids, strict=True):
        body = int(model.geom_bodyid[geom])
        while body and not model.body_jntnum[body]:
            body = int(model.body_parentid[body])
        first, count = model.body_jntadr[body], model.body_jntnum[body]
        names = [model.joint(j).name for j in range(first, first + count)] if body else []
        assert set(solid.owners) == {joints[name] for name in names if name in joints}
    replay = wb.replay(lambda seen: idle(env), env, max_steps=1)
    spec, _, _ = replay.data()
    for part in spec["scene"]["parts"]:
        assert part["color"] == (None if part["owner"] is None else look.agent_color(env.agents, part["owner"]))
    by_solid: dict[str, set[str]] = {}
    for part in spec["scene"]["parts"]:
        by_solid.setdefault(part["solid"], set()).add(part["owner"])
    for solid in scene.solids:
        assert by_solid[solid.name] >= (set(solid.owners) or {None})


def test_a_solid_of_several_agents_is_cut_into_bands_that_make_it_up():
    env = wb.envs.mujoco("Humanoid", "17x1", n_envs=1)
    scene = env.scene()
    thigh = next(solid for solid in scene.solids if solid.name == "right_thigh1")
    assert thigh.owners == ("agent_9", "agent_10", "agent_11")
    whole = scene.shapes[thigh.shape]
    bands = whole.bands(3)
    assert sum(len(band.triangles) for band in bands) == len(whole.triangles)
    ends = [(band.vertices[:, 2].min(), band.vertices[:, 2].max()) for band in bands]
    assert ends[0][1] == pytest.approx(ends[1][0], abs=0.03)
    assert ends[1][1] == pytest.approx(ends[2][0], abs=0.03)


@pytest.mark.parametrize(
    "geom",
    [
        '<geom type="sphere" size="0.3"/>',
        '<geom type="capsule" size="0.1 0.4"/>',
        '<geom type="cylinder" size="0.2 0.3"/>',
        '<geom type="ellipsoid" size="0.1 0.2 0.3"/>',
        '<geom type="box" size="0.1 0.2 0.3"/>',
        '<geom type="mesh" mesh="roof"/>',
    ],
)
def test_surfaces_are_closed_face_outwards_and_have_the_volume_of_the_geom(geom):
    model = mujoco.MjModel.from_xml_string(f"""<mujoco>
      <asset><mesh name="roof" vertex="0 0 0  1 0 0  0 1 0  0 0 1"/></asset>
      <worldbody><body>{geom}</body></worldbody></mujoco>""")
    shape = shape_of(model, 0)
    a, b, c = (shape.vertices[shape.triangles[:, k]].astype(float) for k in range(3))
    across = np.cross(b - a, c - a)
    volume = (a * across).sum() / 6
    assert volume == pytest.approx(model.body_mass[1] / 1000, rel=0.08)
    assert np.abs(across.sum(0)).max() < 1e-6  # a closed surface
    normals = np.linalg.norm(shape.normals, axis=1)
    np.testing.assert_allclose(normals, 1, atol=1e-5)
    # Each corner's normal points to the side that its triangle faces.
    facing = [(across * shape.normals[shape.triangles[:, k]]).sum(1) for k in range(3)]
    assert np.min(facing) > -1e-6


def test_a_plane_has_no_surface():
    model = mujoco.MjModel.from_xml_string('<mujoco><worldbody><geom type="plane" size="1 1 1"/></worldbody></mujoco>')
    with pytest.raises(ValueError, match="geom 0 is of type 0, which has no surface to draw"):
        shape_of(model, 0)


def test_a_height_field_and_what_does_not_move_are_in_the_scene():
    model = mujoco.MjModel.from_xml_string("""<mujoco>
      <asset><hfield name="hills" nrow="4" ncol="5" size="2 1 0.5 0.1"
        elevation="0 0 0 0 0 0 1 1 1 0 0 1 1 1 0 0 0 0 0 0"/></asset>
      <worldbody>
        <geom type="hfield" hfield="hills"/><geom type="plane" size="5 5 1" pos="0 0 -1"/>
        <geom type="sphere" size="1" group="3"/><geom type="sphere" size="1" rgba="1 1 1 0"/>
        <body name="ball" pos="0 0 1"><freejoint/><geom type="sphere" size="0.1"/></body>
      </worldbody></mujoco>""")
    scene = MujocoScene(model, {}, 0.01)
    hills, ball = scene.solids
    assert (hills.moves, ball.moves, ball.name) == (False, True, "ball")
    assert scene.shapes[hills.shape].vertices.max(0) == pytest.approx([2, 1, 0.5])
    assert [floor.position for floor in scene.floors] == [(0, 0, -1)]
    assert scene.radius == pytest.approx(0.1)

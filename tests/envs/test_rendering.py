"""What is left out of a camera's scene leaves no trace in its image."""

import mujoco
import numpy as np
import pytest

import envs
from envs.rendering import CameraRenderer, is_in_view


@pytest.mark.parametrize("task", envs.TASKS)
def test_culling_changes_no_pixel_along_an_episode(task, monkeypatch):
    env = envs.load(task)
    env.reset(4)
    expert, rng = envs.make_expert(env), np.random.default_rng(0)
    expert.reset()
    left_out = 0
    for tick in range(36):
        action = expert.act()
        action[:14] += rng.normal(0.0, 0.03, size=14)  # hands where no expert has them
        if env.step(action).last():
            break
        if tick % 9:
            continue
        shown = env.render()
        with monkeypatch.context() as patch:
            patch.setattr("envs.rendering.is_in_view", lambda model, data, camera: np.ones(model.ngeom, bool))
            whole = env.render()
        for name, image in shown.items():
            np.testing.assert_array_equal(image, whole[name], err_msg=f"{name}, tick {tick}")
            camera = env.task.model.camera(f"g1/{name}").id
            left_out += int((~is_in_view(env.task.model, env.data, camera)).sum())
    assert left_out > 50
    env.close()


def test_a_geom_is_in_view_while_its_bounding_sphere_touches_the_view():
    model = mujoco.MjModel.from_xml_string(
        """<mujoco><worldbody>
             <camera name="eye" fovy="90"/>
             <geom name="ahead" type="sphere" size=".1" pos="0 0 -2"/>
             <geom name="behind" type="sphere" size=".1" pos="0 0 2"/>
             <geom name="just_in" type="sphere" size=".1" pos="2.13 0 -2"/>
             <geom name="just_out" type="sphere" size=".1" pos="2.15 0 -2"/>
             <geom name="above" type="sphere" size=".1" pos="0 3 -2"/>
             <geom name="around" type="sphere" size="5" pos="0 4 1"/>
             <geom name="floor" type="plane" size="1 1 1" pos="0 0 9"/>
           </worldbody></mujoco>"""
    )
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    seen = is_in_view(model, data, 0)
    # 45 degrees to a side: a sphere of 0.1 m touches the view's border up to 0.1 * sqrt(2) m beyond it.
    assert {model.geom(i).name: bool(seen[i]) for i in range(model.ngeom)} == {
        "ahead": True, "behind": False, "just_in": True, "just_out": False, "above": False, "around": True, "floor": True,
    }  # fmt: skip


def test_colours_are_as_before_after_rendering_and_after_a_failure(monkeypatch):
    env = envs.load("restock_shelf")
    env.reset(0)
    before = env.task.model.geom_rgba.copy()
    env.render()
    np.testing.assert_array_equal(env.task.model.geom_rgba, before)

    def broken(*_: object) -> None:
        raise RuntimeError("no scene")

    renderer = CameraRenderer(env.task.model, {"head": "g1/head"}, 32)
    monkeypatch.setattr(mujoco, "mjv_updateScene", broken)
    with pytest.raises(RuntimeError, match="no scene"):
        renderer.render(env.data)
    np.testing.assert_array_equal(env.task.model.geom_rgba, before)
    renderer.close()
    env.close()

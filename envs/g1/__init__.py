"""The AgiBot G1 as a MuJoCo entity, its joint drive and the inverse kinematics of its arms."""

"""What can be made to go wrong with an emulated G1, and when."""

import dataclasses


@dataclasses.dataclass
class EmulatorFaults:
    """The faults that are active now.

    frozen_cameras: the same picture for ever, under new stamps. silent_cameras: no new frame. dropped_frames: of every so
    many frames only the first comes (1: all come). state_delay_s, frame_delay_s: samples arrive so much later.
    state_gap: no new states. state_clock_s, camera_clock_s: added to stamps. wrong_arm_units: arm states in degrees.
    wrong_head_units: head states in the unit that the version doesn't use. rejects: the SDK's moves raise. ignores: moves
    are taken and nothing happens. emergency_stop: the arms stay where they are, and the motion status says so.
    """

    frozen_cameras: frozenset[str] = frozenset()
    silent_cameras: frozenset[str] = frozenset()
    dropped_frames: int = 1
    state_delay_s: float = 0.0
    frame_delay_s: float = 0.0
    state_gap: bool = False
    state_clock_s: float = 0.0
    camera_clock_s: float = 0.0
    wrong_arm_units: bool = False
    wrong_head_units: bool = False
    rejects: bool = False
    ignores: bool = False
    emergency_stop: bool = False

    def set(self, **changes: object) -> None:
        """Changes some of them. Raises ValueError for a name that isn't one."""
        known = {field.name for field in dataclasses.fields(self)}
        if unknown := sorted(set(changes) - known):
            raise ValueError(f"the emulator has no fault {', '.join(unknown)}; it has {', '.join(sorted(known))}")
        for name, value in changes.items():
            setattr(self, name, value)

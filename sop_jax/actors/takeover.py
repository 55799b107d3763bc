"""Who acts on this tick: the policy, or the supervisor that took over from it.

    POLICY --asks--> ASKED --reaction delay--> SUPERVISOR --releases--> POLICY

While ASKED the policy still acts: a person needs time to react. A request that the episode's end overtakes leaves no
intervention behind.
"""

import enum

from sop_jax.specs.errors import ConfigError
from sop_jax.specs.interfaces import Supervisor


class Control(enum.Enum):
    """The state of the takeover machine. The supervisor acts in SUPERVISOR, the policy in the other two."""

    POLICY = "policy"
    ASKED = "asked"
    SUPERVISOR = "supervisor"


class Takeover:
    """Decides who acts, one call of `begin_tick` per control tick.

    The supervisor's `wants_control` is called once on every tick on which the policy acts (also while ASKED, so that a gate
    sees every tick) and on the tick of a takeover without delay, but not on the tick of a handback: the policy then acts at
    least once. `releases_control` is called once on every tick that follows one on which the supervisor acted.
    """

    def __init__(self, supervisor: Supervisor | None, delay_frames: int):
        if delay_frames < 0:
            raise ConfigError(f"Takeover.delay_frames must be >= 0, got {delay_frames}")
        self._supervisor = supervisor
        self._delay_frames = delay_frames
        self._control = Control.POLICY
        self._takeover_frame = 0
        self._new_request = ""

    @property
    def control(self) -> Control:
        """The state in which the present tick is acted."""
        return self._control

    @property
    def new_request(self) -> str:
        """The reason of a request that was made on the present tick, else ""."""
        return self._new_request

    def begin_tick(self, frame: int) -> Control:
        """Moves on to `frame` and returns the state in which it is acted."""
        self._new_request = ""
        if self._supervisor is None:
            return self._control
        if self._control is Control.SUPERVISOR:
            if self._supervisor.releases_control():
                self._control = Control.POLICY
            return self._control
        if self._control is Control.POLICY:
            self._listen(self._supervisor, frame)
        elif frame < self._takeover_frame:
            self._supervisor.wants_control()
        if self._control is Control.ASKED and frame >= self._takeover_frame:
            self._control = Control.SUPERVISOR
        return self._control

    def _listen(self, supervisor: Supervisor, frame: int) -> None:
        request = supervisor.wants_control()
        if request is not None:
            self._control = Control.ASKED
            self._takeover_frame = frame + self._delay_frames
            self._new_request = request.reason

// From keys, pads and gamepads to one motion: {hand, linear, angular, gripper}, each axis -1 .. 1 before it is scaled.
"use strict";

const MAX_SPEED_M_S = 0.25, MAX_TURN_RAD_S = 1.2, DEAD_ZONE = 0.15;

// Axis, sign, and what the pad says. Base frame: x forward, y left, z up.
const MOVES = {
  KeyW: ["x", 1, "Forward"], KeyS: ["x", -1, "Back"], KeyA: ["y", 1, "Left"], KeyD: ["y", -1, "Right"],
  KeyR: ["z", 1, "Up"], KeyF: ["z", -1, "Down"], KeyQ: ["yaw", 1, "Turn left"], KeyE: ["yaw", -1, "Turn right"],
  KeyI: ["pitch", 1, "Tip forward"], KeyK: ["pitch", -1, "Tip back"], KeyJ: ["roll", -1, "Roll left"], KeyL: ["roll", 1, "Roll right"],
};

class Driver {
  constructor(send) {
    this.send = send;
    this.held = new Set();
    this.hand = "right";
    this.grippers = { left: 0, right: 0 };
    this.share = 0.5;
    this.isMoving = false;
    this.pads = {};
    this.mustRest = false; // the gamepad's sticks and cross: what was let go of doesn't go on by itself
  }

  // Gamepads speak to every page, also to one that nobody looks at.
  isAttended() { return !document.hidden && document.hasFocus(); }

  // All input together, each axis -1 .. 1.
  axes() {
    const axes = { x: 0, y: 0, z: 0, roll: 0, pitch: 0, yaw: 0 };
    for (const code of this.held) axes[MOVES[code][0]] += MOVES[code][1];
    for (const [axis, value] of Object.entries(this.stick())) axes[axis] += value;
    for (const axis of Object.keys(axes)) axes[axis] = Math.max(-1, Math.min(1, axes[axis]));
    return axes;
  }

  stick() {
    const pad = [...navigator.getGamepads()].find((each) => each && each.connected);
    if (!pad) return {};
    if (!this.isAttended()) { this.mustRest = true; return {}; }
    const clean = (value) => (Math.abs(value || 0) < DEAD_ZONE ? 0 : value);
    const pressed = (number) => (pad.buttons[number] && pad.buttons[number].pressed ? 1 : 0);
    const axes = {
      x: -clean(pad.axes[1]), y: -clean(pad.axes[0]), yaw: -clean(pad.axes[2]), z: -clean(pad.axes[3]),
      pitch: pressed(12) - pressed(13), roll: pressed(15) - pressed(14),
    };
    if (Object.values(axes).every((value) => value === 0)) this.mustRest = false;
    return this.mustRest ? {} : axes;
  }

  motion() {
    const axes = this.axes(), speed = MAX_SPEED_M_S * this.share, turn = MAX_TURN_RAD_S * this.share;
    return {
      type: "move", hand: this.hand,
      linear: [axes.x * speed, axes.y * speed, axes.z * speed],
      angular: [axes.roll * turn, axes.pitch * turn, axes.yaw * turn],
    };
  }

  // Called on a timer: says the motion again and again while there is one, and once that it is over.
  tick() {
    const motion = this.motion();
    const isMoving = [...motion.linear, ...motion.angular].some((value) => value !== 0);
    if (isMoving || this.isMoving) this.send(motion);
    this.isMoving = isMoving;
  }

  press(code) { this.held.add(code); }
  release(code) { this.held.delete(code); }
  letGo() { this.held.clear(); this.mustRest = true; this.tick(); }

  toggleGripper() {
    this.grippers[this.hand] = this.grippers[this.hand] > 0.5 ? 0 : 1;
    this.send({ ...this.motion(), gripper: this.grippers[this.hand] });
  }

  // Button edges of the first gamepad: calls actions[number] when that button goes down while somebody looks.
  readButtons(actions) {
    const pad = [...navigator.getGamepads()].find((each) => each && each.connected);
    for (const [number, action] of Object.entries(actions)) {
      const isDown = Boolean(pad && pad.buttons[number] && pad.buttons[number].pressed);
      if (isDown && !this.pads[number] && this.isAttended()) action();
      this.pads[number] = isDown;
    }
    return pad ? pad.id : "";
  }
}

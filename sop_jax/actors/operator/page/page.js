// The operator's page: one line to the desk, a list of robots, and one of them in detail.
"use strict";

const $ = (id) => document.getElementById(id);
const token = decodeURIComponent(location.hash.slice(1));
const SURE_MS = 3000, TWICE_MS = 300, TAP_MS = 500, REFUSED_MS = 3000, TICK_MS = 60, OLD_PICTURE_MS = 1500;
const CONTROLS = { between: "between episodes", scene: "waits for the scene", start: "moves to its start", policy: "policy acts", operator: "a person acts" };

let socket = null, retryMs = 500, robots = [], chosen = "", heardAt = 0, refusalTimer = 0;
let judged = ""; // robot and episode that a judgement would be about
let pressedAt = 0; // when a press in the list of robots began or ended; Infinity: it goes on
const pictures = {}; // camera -> { figure, image, at }
const rows = new Map(); // robot -> its row in the list
const calms = []; // each makes one judgement ask again

function send(message) {
  if (socket && socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
}
const tellRobot = (message) => send({ ...message, robot: chosen });
const tellOfEpisode = (message) => { if (robot()) tellRobot({ ...message, episode: robot().num_episodes }); };
const driver = new Driver((motion) => { if (drives()) tellRobot(motion); });
const robot = () => robots.find((each) => each.robot_id === chosen);
const drives = () => Boolean(robot() && robot().driver === "you");

function connect() {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  socket = new WebSocket(`${scheme}://${location.host}/line`);
  socket.binaryType = "arraybuffer";
  socket.onopen = () => socket.send(JSON.stringify({ type: "hello", token, role: "person" }));
  socket.onmessage = (event) => (typeof event.data === "string" ? hear(JSON.parse(event.data)) : showPicture(event.data));
  socket.onclose = (event) => {
    clearTimeout(refusalTimer); // it would take away what is said here
    driver.letGo();
    if (event.code === 4401) return say("This link is not valid any more. Open the link that the robot printed when it started.");
    say("Connection lost. A robot that you were driving holds still. Trying again …");
    setTimeout(connect, retryMs);
    retryMs = Math.min(5000, retryMs * 2);
  };
}

function hear(message) {
  if (message.type === "welcome") { retryMs = 500; say(""); if (chosen) send({ type: "watch", robot: chosen }); }
  else if (message.type === "refused") {
    say(`Not possible now: ${message.why}.`);
    clearTimeout(refusalTimer);
    refusalTimer = setTimeout(() => say(""), REFUSED_MS);
  }
  else if (message.type === "robots") {
    robots = message.robots; heardAt = Date.now();
    if (!chosen && robots.length === 1) choose(robots[0].robot_id); else draw();  // one robot is no choice
  }
}

function say(text) { $("banner").textContent = text; $("banner").hidden = !text; draw(); }

function choose(name) {
  driver.letGo();
  calms.forEach((calm) => calm());
  chosen = name;
  for (const camera of Object.keys(pictures)) { pictures[camera].figure.remove(); delete pictures[camera]; }
  send({ type: "watch", robot: name });
  draw();
}

function showPicture(data) {
  const bytes = new Uint8Array(data), end = bytes.indexOf(10);
  const head = JSON.parse(new TextDecoder().decode(bytes.subarray(0, end)));
  if (head.robot !== chosen) return;
  if (!pictures[head.camera]) addCamera(head.camera);
  const picture = pictures[head.camera], old = picture.image.src;
  picture.image.src = URL.createObjectURL(new Blob([bytes.subarray(end + 1)], { type: "image/jpeg" }));
  if (old) URL.revokeObjectURL(old);
  picture.at = Date.now();
  picture.figure.classList.remove("old");
}

function addCamera(name) {
  const figure = document.createElement("figure"), image = document.createElement("img"), caption = document.createElement("figcaption");
  caption.textContent = name.replaceAll("_", " ");
  image.alt = `What the ${caption.textContent} camera sees`;
  figure.append(image, caption);
  const order = ["head", "hand_left", "hand_right"];
  figure.dataset.order = order.includes(name) ? order.indexOf(name) : 9;
  const later = [...$("cameras").children].find((each) => each.dataset.order > figure.dataset.order);
  $("cameras").insertBefore(figure, later || null);
  pictures[name] = { figure, image, at: 0 };
}

function draw() {
  const isOn = Boolean(socket && socket.readyState === WebSocket.OPEN);
  $("nobody").hidden = robots.length > 0;
  drawQueue();
  const now = robot();
  $("robot").hidden = !now;
  $("welcome").hidden = Boolean(now) || robots.length === 0;
  document.title = robots.some((each) => each.urgency >= 3) ? "● Help wanted" : "Robots: operator";
  if (now) drawRobot(now, isOn && now.has_signal);
}

function drawQueue() {
  for (const [name, row] of rows) {
    if (!robots.some((each) => each.robot_id === name)) { row.remove(); rows.delete(name); }
  }
  for (const each of robots) drawRow(rows.get(each.robot_id) || addRow(each.robot_id), each);
  if (Date.now() - pressedAt > TAP_MS) sortRows();
}

function addRow(name) {
  const row = document.createElement("li");
  row.innerHTML = '<button><span class="who"></span><br><span class="why"></span></button>';
  row.dataset.robot = name;
  row.firstChild.onclick = () => choose(name);
  rows.set(name, row);
  $("robots").append(row);
  return row;
}

function drawRow(row, each) {
  row.className = each.urgency >= 2 ? "urgent" : "";
  row.firstChild.setAttribute("aria-current", String(each.robot_id === chosen));
  row.querySelector(".who").textContent = each.robot_id;
  const driven = each.driver === "nobody" ? CONTROLS[each.control] : each.driver === "you" ? "you drive" : "somebody else drives";
  row.querySelector(".why").textContent = each.waits_for ? `${each.waits_for.replaceAll("_", " ")} · ${seconds(each.waits_s)}` : driven;
}

// Each robot keeps its row, and the row its focus, wherever in the list it comes.
function sortRows() {
  const list = $("robots"), focused = document.activeElement;
  robots.forEach((each, place) => {
    const row = rows.get(each.robot_id);
    if (list.children[place] !== row) list.insertBefore(row, list.children[place]);
  });
  if (list.contains(focused) && document.activeElement !== focused) focused.focus({ preventScroll: true });
}

function drawRobot(now, isOn) {
  const onTheWay = now.control === "start";  // T stops it there
  const underWay = now.control === "policy" || now.control === "operator";
  const mine = now.driver === "you";
  const episode = `${now.robot_id} ${now.num_episodes}`;
  if (judged !== episode) calms.forEach((calm) => calm()); // nobody was asked about this one
  judged = episode;
  $("robot").classList.toggle("driving", mine);
  $("name").textContent = now.robot_id;
  $("control").textContent = !isOn ? "no signal" : mine && now.control === "operator" ? "you act" : CONTROLS[now.control];
  $("control").className = `badge ${isOn ? now.control : "warn"}`;
  $("waits").hidden = !now.waits_for || !isOn;
  $("waits").textContent = `${now.waits_for.replaceAll("_", " ")} for ${seconds(now.waits_s)}`;
  $("instruction").textContent = now.instruction || "–";
  $("task").textContent = now.task || "–";
  $("version").textContent = now.policy_version < 0 ? "–" : `version ${now.policy_version}`;
  $("time").textContent = underWay ? `${(now.frame / now.control_hz).toFixed(1)} s` : "–";
  $("stage").textContent = now.stage || "–";
  $("last").textContent = now.last_end || "–";
  const alone = now.control === "operator" && now.driver === "nobody";
  const wantsBack = mine && now.wants_operator;
  label($("take"), onTheWay ? "Stop" : wantsBack ? "Hand back" : alone ? "Take on" : "Take over", wantsBack ? "B" : "T");
  $("take").classList.toggle("back", wantsBack);
  $("take").disabled = !isOn || !(underWay || onTheWay) || now.driver === "somebody else";
  for (const id of ["success", "failure"]) $(id).disabled = !isOn || !underWay;
  $("ready").hidden = now.control !== "scene";
  $("take").hidden = now.control === "scene";
  for (const each of $("drive").querySelectorAll("button")) each.disabled = !isOn || !mine;
  for (const hand of ["left", "right"]) $(hand).setAttribute("aria-pressed", String(driver.hand === hand));
  label($("gripper"), driver.grippers[driver.hand] > 0.5 ? "Open gripper" : "Close gripper", "Space");
  for (const picture of Object.values(pictures)) picture.figure.classList.toggle("old", !isOn || Date.now() - picture.at > OLD_PICTURE_MS);
  drawJoints(now.state);
  drawStages(now.stages);
}

function drawJoints(state) {
  const names = [...Array(7).keys()].flatMap((each) => [`left ${each + 1}`, `right ${each + 1}`]);
  const values = [...Array(7).keys()].flatMap((each) => [state[each], state[each + 7]]);
  const grip = (value) => (value === undefined ? "–" : `${Math.round(value * 100)}% closed`);
  const lines = names.map((name, place) => `${name}: ${values[place] === undefined ? "–" : values[place].toFixed(3)} rad`);
  lines.push(`left gripper: ${grip(state[14])}`, `right gripper: ${grip(state[15])}`);
  while ($("joints").children.length < lines.length) $("joints").append(document.createElement("span"));
  lines.forEach((line, place) => { $("joints").children[place].textContent = line; });
}

function drawStages(stages) {
  const names = stages.join("\n"), list = $("stagelist");
  if (list.dataset.names === names) return;
  list.dataset.names = names;
  list.replaceChildren(...stages.map((name) => Object.assign(document.createElement("option"), { value: name })));
}

const seconds = (value) => (value < 60 ? `${Math.round(value)}\u00a0s` : `${Math.floor(value / 60)}\u00a0min ${Math.round(value % 60)}\u00a0s`);

function label(button, text, key) {
  if (button.dataset.label === text) return;
  button.dataset.label = text;
  button.textContent = text;
  if (key) button.append(Object.assign(document.createElement("kbd"), { textContent: key }));
}

function takeOver() {
  if ($("take").disabled || (drives() && robot().wants_operator)) return;
  driver.grippers = { left: robot().state[14] > 0.5 ? 1 : 0, right: robot().state[15] > 0.5 ? 1 : 0 };
  tellRobot({ type: "take" });
}
function handBack() { if (drives()) { driver.letGo(); tellRobot({ type: "hand_back" }); } }

// A judgement ends the episode and can't be taken back, so it takes two clicks, and a double click is one.
function askTwice(button, text, act) {
  let timer = 0, askedAt = 0;
  const calm = () => { clearTimeout(timer); timer = 0; button.classList.remove("sure"); label(button, text, ""); };
  calms.push(calm);
  calm();
  button.onclick = (event) => {
    if (timer && event.timeStamp - askedAt < TWICE_MS) return;
    if (timer) { calm(); return act(); }
    askedAt = event.timeStamp;
    button.classList.add("sure");
    label(button, `Sure? ${text}`, "");
    timer = setTimeout(calm, SURE_MS);
  };
}

function makePads() {
  for (const [code, [, , text]] of Object.entries(MOVES)) {
    const button = document.createElement("button");
    button.textContent = text;
    button.append(Object.assign(document.createElement("kbd"), { textContent: code.slice(3) }));
    const end = () => { driver.release(code); button.classList.remove("on"); };
    button.onpointerdown = (event) => { button.setPointerCapture(event.pointerId); driver.press(code); button.classList.add("on"); };
    button.onpointerup = button.onpointercancel = button.onlostpointercapture = end;
    button.oncontextmenu = (event) => event.preventDefault();
    button.dataset.code = code;
    $("pads").append(button);
  }
}

function hold(hand) { driver.letGo(); driver.hand = hand; draw(); }
function grip() { if (drives()) { driver.toggleGripper(); draw(); } }

document.addEventListener("keydown", (event) => {
  if (event.metaKey) letGo(); // macOS tells no keyup of what is released while Cmd is down
  if (event.repeat && event.key === "Enter" && event.target.matches("button")) event.preventDefault(); // one press, one click
  if (event.repeat || event.ctrlKey || event.altKey || event.metaKey || event.target.matches("input:not([type=range])")) return;
  if (MOVES[event.code]) { driver.press(event.code); padOf(event.code).classList.add("on"); }
  else if (event.code === "KeyT") takeOver();
  else if (event.code === "KeyB") handBack();
  else if (event.code === "Digit1") hold("left");
  else if (event.code === "Digit2") hold("right");
  else if (event.code === "Space") grip();
  else return;
  event.preventDefault();
});
document.addEventListener("keyup", (event) => {
  if (event.key === "Meta") letGo();
  if (MOVES[event.code]) { driver.release(event.code); padOf(event.code).classList.remove("on"); }
  if (event.code === "Space" && !event.target.matches("input")) event.preventDefault(); // else it clicks the focused button
});
const padOf = (code) => document.querySelector(`[data-code="${code}"]`);
const letGo = () => { driver.letGo(); for (const each of $("pads").children) each.classList.remove("on"); };
window.addEventListener("blur", letGo);
document.addEventListener("visibilitychange", () => { if (document.hidden) letGo(); });

// The list keeps its order under a press, and until a touch has become a click.
const endPress = () => { if (pressedAt === Infinity) pressedAt = Date.now(); };
$("robots").addEventListener("pointerdown", (event) => { if (event.button === 0) pressedAt = Infinity; });
for (const end of ["pointerup", "pointercancel", "blur"]) window.addEventListener(end, endPress);

$("take").onclick = () => (drives() && robot().wants_operator ? handBack() : takeOver());
$("ready").onclick = () => tellOfEpisode({ type: "ready" });
askTwice($("success"), "Success", () => tellOfEpisode({ type: "mark", outcome: "success" }));
askTwice($("failure"), "Failure", () => tellOfEpisode({ type: "mark", outcome: "failure" }));
$("left").onclick = () => hold("left");
$("right").onclick = () => hold("right");
$("gripper").onclick = grip;
$("speed").oninput = () => { driver.share = $("speed").value / 100; };
$("stages").onsubmit = (event) => {
  event.preventDefault();
  const stage = $("stagename").value.trim().toLowerCase().replaceAll(" ", "_");
  if (stage) tellOfEpisode({ type: "stage", stage });
  $("stagename").value = "";
  $("stagename").blur();
};
function padHint() {
  if (!driver.isAttended()) return "Click on this page to drive with it.";
  if (driver.mustRest) return "Let go of its sticks and cross first.";
  return "Sticks move and turn, cross tips and rolls, A gripper, X take over, Y hand back, shoulders choose the hand.";
}
makePads();
setInterval(() => {
  const name = driver.readButtons({ 0: grip, 2: takeOver, 3: handBack, 4: () => hold("left"), 5: () => hold("right") });
  driver.tick();
  $("gamepad").textContent = name ? `Gamepad: ${name}. ${padHint()}` : "Gamepad: none. Press a button on it to connect it.";
  if (Date.now() - heardAt > 2000) draw();
}, TICK_MS);
connect();

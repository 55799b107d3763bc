"""The policies of launch/object_store: what each role may do and may not, evaluated here and enforced by a local server."""

import contextlib
import fnmatch
import io
import itertools
import json
import pathlib
import re
import runpy
import sys
import urllib.parse
import urllib.request

import pytest
from recorded_store import watched
from s3_server import BUCKET, s3_server, store_spec

from sop_jax.episodes import kvstore, retirement
from sop_jax.episodes.paths import quarantine_path, retired_path
from sop_jax.episodes.repair import Kind, Repair, find_problems, quarantine_bad, remove_found, restore_from_spool
from sop_jax.episodes.retention import RetentionConfig, apply_plan, plan_for
from sop_jax.episodes.store import EpisodeStore
from sop_jax.episodes.synthetic import make_episode, make_spec
from sop_jax.replay import labels_record
from sop_jax.replay.intake import Intake
from sop_jax.replay.items import label_all
from sop_jax.replay.local_tables import LocalTables
from sop_jax.replay.tables import mix_tables
from sop_jax.specs.clock import ManualClock
from sop_jax.specs.records import Source

RENDER = pathlib.Path(__file__).parents[2] / "launch" / "object_store" / "render.py"
OWN = "run/episodes/robot-0/robot-0.00000000001000000000.000001.zip"
NEIGHBOUR = OWN.replace("robot-0", "robot-01")
RECORD, RETIRED = "run/" + quarantine_path(OWN.removeprefix("run/")), "run/" + retired_path(OWN.removeprefix("run/"))
WEIGHTS, LABELS = "run/weights/latest.json", f"run/{labels_record.RECORD}"
ELSEWHERE = ("other/episodes/robot-0/x.zip", "run-2/weights/latest.json", "secrets", "run/checkpoints/7")
KEYS = (OWN, NEIGHBOUR, RECORD, RETIRED, WEIGHTS, LABELS, *ELSEWHERE)
# Role -> right -> the keys among KEYS that it holds for.
ALLOWED = {
    "robot": {"get": {OWN, WEIGHTS}, "create": {OWN}, "list": {OWN}},
    "intake": {
        "get": {OWN, NEIGHBOUR, RECORD, RETIRED, LABELS}, "list": {OWN, NEIGHBOUR, RECORD, RETIRED, LABELS},
        "create": {RECORD, LABELS}, "replace": {LABELS}, "delete": {LABELS},
    },
    "learner": {
        "get": {OWN, NEIGHBOUR, RECORD, RETIRED, WEIGHTS}, "list": {OWN, NEIGHBOUR, RECORD, RETIRED, WEIGHTS},
        "create": {WEIGHTS}, "replace": {WEIGHTS}, "delete": {WEIGHTS},
    },
    "keeper": {right: {OWN, NEIGHBOUR, RECORD, RETIRED} for right in ("get", "create", "delete", "list")},
    "doctor": {right: {*KEYS} - {*ELSEWHERE[:3]} for right in ("get", "list")},
}  # fmt: skip
ACTIONS = {
    "get": "s3:GetObject", "create": "s3:PutObject", "replace": "s3:PutObject", "delete": "s3:DeleteObject",
    "list": "s3:ListBucket",
}  # fmt: skip


def render(*words: str) -> dict:
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr(sys, "argv", [str(RENDER), *words, "--bucket", BUCKET, "--prefix", "run"])
        runpy.run_path(str(RENDER), run_name="__main__")
    return json.loads(printed.getvalue())


def folder_of(key: str) -> str:
    return key[: key.rindex("/") + 1] if "/" in key else ""


def test_s3_policies_allow_what_a_role_needs_and_nothing_else():
    bucket = render("s3", "bucket")
    for role, rights in ALLOWED.items():
        policy = render("s3", role, *(("--robot", "robot-0") if role == "robot" else ()))
        for right, key in itertools.product(ACTIONS, KEYS):
            assert _is_allowed(policy, bucket, right, key) == (key in rights.get(right, set())), (role, right, key)
            _, arn, context = _asked(right, key)
            assert not any(
                _applies(statement, action, arn, context)
                for statement in policy["Statement"]
                for action in ("s3:PutBucketPolicy", "s3:PutObjectAcl", "s3:DeleteObjectVersion")
            )
        # What is missing must be told by 404, or no robot can upload.
        look = ("s3:ListBucket", f"arn:aws:s3:::{BUCKET}", {"aws:SecureTransport": "true"})
        assert any(_applies(statement, *look) for statement in policy["Statement"])


def test_a_keeper_may_do_all_that_repair_and_retention_ask_of_the_bucket(store_url, tmp_path):
    """What they ask is noted over a store on the disk; "replace" is a write without a condition, which nobody may do."""
    store, recorder = watched(store_url)
    spec = make_spec(image_size=8, camera_names=("head",))
    for number in range(3):
        episode = make_episode(number, 4, spec=spec, task="pick")
        path = store.put(episode).path
        if number < 2:  # torn in the store; of the second there is no copy
            whole = store.read_bytes(path)
            store.root.root.write(path, whole[:-1]).result()
            if number == 0:
                (tmp_path / f"{episode.manifest.episode_id}.zip").write_bytes(whole)
                store.quarantine(path, "torn", size=1)
    kvstore.create(store.root, "episodes/robot-0/notes.txt", b"")
    recorder.requests.clear()
    findings = list(find_problems(store))
    done = restore_from_spool(store, findings, tmp_path)
    restored = {repair.path for repair in done}
    left = [finding for finding in findings if finding.path not in restored]
    done += quarantine_bad(store, left) + remove_found(store, left, (Kind.STRANGER,))
    assert [repair.action for repair in done] == ["restored", "quarantined", "removed"]
    clock = ManualClock(10**15)
    for _ in range(3):
        apply_plan(store, plan_for(store, clock, RetentionConfig(max_bytes=0)))
        clock.advance_s(40 * 86_400)
    assert retirement.retired_paths(store) == []
    assert {kind for kind, _ in recorder.requests} == {"get", "list", "create", "delete"}
    keeper, bucket = render("s3", "keeper"), render("s3", "bucket")
    for kind, key in recorder.requests:
        # To create an object TensorStore looks for it first.
        for right in ("get", "create") if kind == "create" else (kind,):
            assert _is_allowed(keeper, bucket, right, f"run/{key}"), (right, key)
    assert not _is_allowed(keeper, bucket, "replace", OWN)


def _is_allowed(policy: dict, bucket: dict, right: str, key: str) -> bool:
    """What S3 answers somebody with this policy, in a bucket with that one."""
    asked = _asked(right, key)
    return any(_applies(statement, *asked) for statement in policy["Statement"]) and not any(
        _applies(statement, *asked) for statement in bucket["Statement"]
    )


def _asked(right: str, key: str) -> tuple[str, str, dict[str, str]]:
    """The action, resource and context of a request."""
    arn = f"arn:aws:s3:::{BUCKET}" + ("" if right == "list" else f"/{key}")
    context = {"aws:SecureTransport": "true"}
    if right == "list":
        context["s3:prefix"] = folder_of(key)
    if right == "create":
        context["s3:if-none-match"] = "*"
    return ACTIONS[right], arn, context


def _applies(statement: dict, action: str, resource: str, context: dict[str, str]) -> bool:
    """Whether a statement of an S3 policy speaks about this request."""

    def as_list(value: str | list[str]) -> list[str]:
        return [value] if isinstance(value, str) else value

    def holds(operator: str, key: str, expected: str | list[str]) -> bool:
        value = context.get(key)
        if operator == "Null":
            return (value is None) == (expected == "true")
        if value is None:
            return operator.endswith("IfExists")
        assert operator in ("Bool", "StringLikeIfExists"), operator
        return any(fnmatch.fnmatchcase(value, pattern) for pattern in as_list(expected))

    return (
        any(fnmatch.fnmatchcase(action, pattern) for pattern in as_list(statement["Action"]))
        and any(fnmatch.fnmatchcase(resource, pattern) for pattern in as_list(statement["Resource"]))
        and all(holds(o, k, e) for o, keys in statement.get("Condition", {}).items() for k, e in keys.items())
    )


GCS_RIGHTS = {
    "roles/storage.objectViewer": {"get", "list"},
    "roles/storage.objectCreator": {"create"},
    "roles/storage.objectUser": {"get", "list", "create", "replace", "delete"},
}
TERM = re.compile(
    r'(resource\.name|api\.getAttribute\("storage\.googleapis\.com/objectListPrefix", ""\))\.startsWith\("([^"]+)"\)'
)


def test_gcs_bindings_allow_what_a_role_needs_and_nothing_else():
    for role, rights in ALLOWED.items():
        words = ("--robot", "robot-0") if role == "robot" else ()
        policy = render("gcs", role, *words, "--member", "serviceAccount:somebody")
        assert policy["version"] == 3
        for right, key in itertools.product(ACTIONS, KEYS):
            found = any(_grants(binding, right, key) for binding in policy["bindings"])
            # GCS knows no role that deletes and can't write over: the keeper can.
            needed = rights.get("create" if right == "replace" and role == "keeper" else right, set())
            assert found == (key in needed), (role, right, key)


def _grants(binding: dict, right: str, key: str) -> bool:
    name = f"projects/_/buckets/{BUCKET}" + ("" if right == "list" else f"/objects/{key}")
    subjects = {"resource.name": name}
    assert binding["members"] == ["serviceAccount:somebody"]
    terms = [TERM.fullmatch(term) for term in binding["condition"]["expression"].split(" || ")]
    assert all(terms)
    holds = any(
        subjects.get(term[1], folder_of(key) if right == "list" else "").startswith(term[2]) for term in terms if term
    )
    return right in GCS_RIGHTS[binding["role"]] and holds


def test_a_prefix_is_taken_as_it_is():
    rendered = runpy.run_path(str(RENDER))
    (mine, _, _) = rendered["s3_policy"]("robot", BUCKET, "ROBOTS", "robot-0")["Statement"]
    assert mine["Resource"] == f"arn:aws:s3:::{BUCKET}/ROBOTS/episodes/robot-0/*"
    bindings = rendered["gcs_bindings"]("robot", BUCKET, "ROBOTS", "robot-0", "user:x")["bindings"]
    here = f'resource.name.startsWith("projects/_/buckets/{BUCKET}/objects/ROBOTS/episodes/robot-0/")'
    assert [here in binding["condition"]["expression"] for binding in bindings] == [True, True, False]
    assert bindings[0]["condition"]["title"] == "sop robot objectViewer episodes/robot-0/"


def test_names_that_would_widen_a_policy_are_refused():
    main = runpy.run_path(str(RENDER))["main"]
    for words, complaint in (
        (("s3", "robot", "--bucket", BUCKET, "--prefix", "run", "--robot", "*"), "robot '*'"),
        (("s3", "robot", "--bucket", BUCKET, "--prefix", "run"), "robot ''"),
        (("s3", "intake", "--bucket", BUCKET, "--prefix", "*"), "prefix '*'"),
        (("s3", "intake", "--bucket", "*", "--prefix", "run"), "bucket '*'"),
        (("gcs", "intake", "--bucket", BUCKET, "--prefix", "run"), "member ''"),
        (("gcs", "bucket", "--bucket", BUCKET, "--prefix", "run"), "needs no policy"),
    ):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", [str(RENDER), *words])
            with pytest.raises(SystemExit) as caught:
                main()
        assert complaint in str(caught.value)


class Account:
    """Users of a local S3 server with their policies, and the store as each of them sees it."""

    def __init__(self, endpoint: str, credentials: pathlib.Path):
        self._endpoint = endpoint
        self._credentials = credentials
        self._config = credentials.with_name("config")
        self._config.touch()

    def add(self, name: str, policy: dict) -> None:
        self._iam(Action="CreateUser", UserName=name)
        self._iam(Action="PutUserPolicy", UserName=name, PolicyName="sop", PolicyDocument=json.dumps(policy))
        answer = self._iam(Action="CreateAccessKey", UserName=name)
        key, secret = (re.search(f"<{tag}>(.*?)</{tag}>", answer)[1] for tag in ("AccessKeyId", "SecretAccessKey"))
        with self._credentials.open("a") as file:
            file.write(f"[{name}]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n")

    def enforce(self) -> None:
        """From now on nobody does what no policy allows."""
        url = f"{self._endpoint}/moto-api/reset-auth"
        plain = {"Content-Type": "text/plain"}  # of a form, the server would see no data
        urllib.request.urlopen(urllib.request.Request(url, data=b"0", headers=plain), timeout=30).close()

    def store(self, name: str) -> EpisodeStore:
        profile = {
            "type": "profile",
            "profile": name,
            "credentials_file": str(self._credentials),
            "config_file": str(self._config),
        }
        spec = json.loads(store_spec(self._endpoint, "run"))
        return EpisodeStore(json.dumps({**spec, "aws_credentials": profile}))

    def _iam(self, **fields: str) -> str:
        data = urllib.parse.urlencode({**fields, "Version": "2010-05-08"}).encode()
        scope = "AWS4-HMAC-SHA256 Credential=x/20200101/us-east-1/iam/aws4_request, SignedHeaders=host, Signature=x"
        request = urllib.request.Request(self._endpoint, data=data, headers={"Authorization": scope})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.read().decode()


def test_a_local_s3_server_enforces_them(tmp_path):
    """moto knows actions and resources, and no conditions: those are left to the tests above."""
    spec = make_spec(image_size=8, camera_names=("head",))
    mine, other = (make_episode(1, 4, spec=spec, task="pick", robot_id=robot) for robot in ("robot-0", "robot-01"))
    with s3_server(str(tmp_path / "server.log")) as endpoint:
        account = Account(endpoint, tmp_path / "credentials")
        for role in ALLOWED:
            account.add(role, render("s3", role, *(("--robot", "robot-0") if role == "robot" else ())))
        account.add("robot-01", render("s3", "robot", "--robot", "robot-01"))
        account.enforce()
        robot, neighbour = account.store("robot"), account.store("robot-01")
        index = robot.put(mine)
        robot.put(mine)  # what is there already is read and found the same
        neighbour.put(other)
        theirs = f"episodes/robot-01/{other.manifest.episode_id}.zip"
        refused(lambda: robot.put(make_episode(2, 4, spec=spec, task="pick", robot_id="robot-01")))
        refused(lambda: robot.read_bytes(theirs))
        refused(lambda: kvstore.remove(robot.root, index.path))
        refused(lambda: kvstore.create(robot.root, "weights/latest.json", b"{}"))

        tables = LocalTables(mix_tables(["pick"]))
        intake = account.store("intake")
        assert Intake(intake, tables, label_all, labels_of="all").poll().inserted == 2
        assert labels_record.read_labels(intake).labels_of == "all"
        assert intake.quarantine(theirs, "a reason", size=1) is None
        refused(lambda: kvstore.remove(intake.root, index.path))
        refused(lambda: kvstore.create(intake.root, "weights/latest.json", b"{}"))

        learner = account.store("learner")
        assert learner.read_without_images(index.path).manifest.robot_id == "robot-0"
        assert kvstore.create(learner.root, "weights/latest.json", b'{"version": 1}')
        assert robot.root.read("weights/latest.json").result().value == b'{"version": 1}'
        assert learner.quarantined() == {theirs: "a reason"}
        leaving = retirement.RetirementRecord(index.path, "pick", Source.ONLINE, 4, 1, "old", 0)
        assert retirement.retire(account.store("keeper"), leaving)
        assert retirement.read_record(learner, index.path) == leaving
        local = Intake(learner, LocalTables(mix_tables(["pick"])), label_all).poll()  # `sop learn --replay local`
        assert (local.inserted, local.unreadable, local.num_items) == (0, 0, 0)
        refused(lambda: learner.quarantine(index.path, "a reason", size=1))
        refused(lambda: kvstore.remove(learner.root, index.path))
        doctor = account.store("doctor")
        assert len(doctor.list_paths()) == 2
        refused(lambda: kvstore.create(doctor.root, "episodes/x", b""))
        keeper = account.store("keeper")
        whole = keeper.read_bytes(theirs)
        (tmp_path / f"{other.manifest.episode_id}.zip").write_bytes(whole)
        keeper.root.write(theirs, whole[:-1]).result()  # moto lets it
        repairs = restore_from_spool(keeper, list(find_problems(keeper)), tmp_path)
        assert repairs == [Repair(theirs, "restored")]
        assert (doctor.read_bytes(theirs), doctor.quarantined()) == (whole, {})
        kvstore.remove(keeper.root, index.path)
        assert doctor.list_paths() == [theirs]


def refused(call) -> None:
    with pytest.raises(Exception, match=r"PERMISSION_DENIED|403|AccessDenied"):
        call()

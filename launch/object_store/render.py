#!/usr/bin/env python3
"""Prints an object store's policy for one role: who may read and write what below a run's prefix. Standard library alone.

    launch/object_store/render.py s3 robot --bucket my-bucket --prefix run --robot robot-0       # for that robot's IAM user
    launch/object_store/render.py s3 bucket --bucket my-bucket --prefix run                      # for the bucket, once
    launch/object_store/render.py gcs learner --bucket my-bucket --prefix run --member serviceAccount:...   # bindings

Roles: robot (uploads its own episodes, reads publications), intake (reads episodes, sets bad ones aside), learner (reads
episodes, publishes), keeper (`sop episodes retain | verify --repair`), doctor (reads everything, changes nothing).
"""

import argparse
import json
import re
import sys

NAME = re.compile(r"[a-z0-9](?:[a-z0-9_-]*[a-z0-9])?")
BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]")
PREFIX = re.compile(r"[A-Za-z0-9_-]+(?:/[A-Za-z0-9_-]+)*")

# Role -> folders below the prefix -> what may be done there. ROBOT stands for the robot's id.
#   get: read an object; list: see which there are; create: write one that isn't there; replace: write over one; delete.
RIGHTS: dict[str, dict[str, tuple[str, ...]]] = {
    "robot": {
        "episodes/ROBOT/": ("get", "list", "create"),  # get: to see whether what is there already is the same
        "weights/": ("get",),
    },
    "intake": {
        "episodes/": ("get", "list"),
        "retired/": ("get", "list"),
        "quarantine/": ("get", "list", "create"),
        "replay/": ("get", "list", "create", "replace", "delete"),  # what labelled a server's items
    },
    "learner": {  # reads the records too: `--replay local` and `sop pretrain --value-of` pass over what they name
        "episodes/": ("get", "list"),
        "retired/": ("get", "list"),
        "quarantine/": ("get", "list"),
        "weights/": ("get", "list", "create", "replace", "delete"),
    },
    "keeper": {
        "episodes/": ("get", "list", "create", "delete"),
        "retired/": ("get", "list", "create", "delete"),
        "quarantine/": ("get", "list", "create", "delete"),
    },
    "doctor": {"": ("get", "list")},
}

S3_ACTIONS = {
    "get": "s3:GetObject",
    "create": "s3:PutObject",
    "replace": "s3:PutObject",
    "delete": "s3:DeleteObject",
}


def s3_policy(role: str, bucket: str, prefix: str, robot: str) -> dict:
    """An identity's policy. S3 tells creating from replacing by the bucket's policy only (`s3_bucket_policy`)."""
    arn, statements, listed = f"arn:aws:s3:::{bucket}", [], []
    for folder, rights in RIGHTS[role].items():
        place = f"{prefix}/{folder.replace('ROBOT', robot)}"
        actions = sorted({S3_ACTIONS[right] for right in rights if right in S3_ACTIONS})
        statements.append({"Effect": "Allow", "Action": actions, "Resource": f"{arn}/{place}*"})
        if "list" in rights:
            listed.append(f"{place}*")
    if listed:
        # IfExists: S3 answers 403 for a missing object to those who may not list, and TensorStore looks before it writes;
        # that look has no s3:prefix. Nor has a listing of the whole bucket: every role can see names, though no contents.
        condition = {"StringLikeIfExists": {"s3:prefix": listed}}
        statements.append({"Effect": "Allow", "Action": ["s3:ListBucket"], "Resource": arn, "Condition": condition})
    return {"Version": "2012-10-17", "Statement": statements}


def s3_bucket_policy(bucket: str, prefix: str) -> dict:
    """For everybody: an episode or a record is never written over, and nothing travels unencrypted."""
    arn = f"arn:aws:s3:::{bucket}"
    places = [f"{arn}/{prefix}/{folder}/*" for folder in ("episodes", "quarantine", "retired")]
    everybody = {"Effect": "Deny", "Principal": "*"}
    return {
        "Version": "2012-10-17",
        "Statement": [
            {**everybody, "Sid": "CreateOnly", "Action": "s3:PutObject", "Resource": places,
             "Condition": {"Null": {"s3:if-none-match": "true"}}},
            {**everybody, "Sid": "Encrypted", "Action": "s3:*", "Resource": [arn, f"{arn}/*"],
             "Condition": {"Bool": {"aws:SecureTransport": "false"}}},
        ],
    }  # fmt: skip


def gcs_bindings(role: str, bucket: str, prefix: str, robot: str, member: str) -> dict:
    """Conditional bindings of a bucket's policy (version 3; uniform bucket-level access). objectCreator can't write over."""
    bindings = []
    for folder, rights in RIGHTS[role].items():
        place = f"{prefix}/{folder.replace('ROBOT', robot)}"
        here = f'resource.name.startsWith("projects/_/buckets/{bucket}/objects/{place}")'
        listing = f'api.getAttribute("storage.googleapis.com/objectListPrefix", "").startsWith("{place}")'
        roles = ["objectUser"] if "delete" in rights else ["objectViewer"]
        roles += ["objectCreator"] if "create" in rights and "delete" not in rights else []
        for name in roles:
            expression = f"{here} || {listing}" if "list" in rights and name != "objectCreator" else here
            title = f"sop {role} {name} {folder.replace('ROBOT', robot) or 'all'}"
            bindings.append({
                "role": f"roles/storage.{name}",
                "members": [member],
                "condition": {"title": title, "expression": expression},
            })  # fmt: skip
    return {"version": 3, "bindings": bindings}


def checked(what: str, value: str, pattern: re.Pattern) -> str:
    if not pattern.fullmatch(value):
        sys.exit(f"render.py: {what} {value!r}: expected {pattern.pattern}")
    return value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=["s3", "gcs"])
    parser.add_argument("role", choices=[*RIGHTS, "bucket"])
    parser.add_argument("--bucket", required=True)
    parser.add_argument("--prefix", required=True, help="of the run: stations get s3://BUCKET/PREFIX/ as their --store")
    parser.add_argument("--robot", default="", help="the robot's id; with role robot")
    parser.add_argument("--member", default="", help="gcs: who gets the role, e.g. serviceAccount:ADDRESS")
    arguments = parser.parse_args()
    bucket = checked("bucket", arguments.bucket, BUCKET)
    prefix = checked("prefix", arguments.prefix.strip("/"), PREFIX)
    robot = checked("robot", arguments.robot, NAME) if arguments.role == "robot" else ""
    if arguments.role == "bucket":
        if arguments.kind == "gcs":
            sys.exit("render.py: gcs needs no policy for the bucket itself: who may create may not write over")
        policy = s3_bucket_policy(bucket, prefix)
    elif arguments.kind == "s3":
        policy = s3_policy(arguments.role, bucket, prefix, robot)
    else:
        member = checked("member", arguments.member, re.compile(r"[A-Za-z]+:\S+"))
        policy = gcs_bindings(arguments.role, bucket, prefix, robot, member)
    sys.stdout.write(json.dumps(policy, indent=2) + "\n")


if __name__ == "__main__":
    main()

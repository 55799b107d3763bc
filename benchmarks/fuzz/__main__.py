"""Fuzzes the parsers of what strangers send, each in a process of its own, guided by coverage (atheris).

    .venv/bin/python -m pip install --target DIR --require-hashes -r benchmarks/fuzz/requirements.txt
    PYTHONPATH=DIR .venv/bin/python -m benchmarks.fuzz --seconds 120 [--targets jpeg manifest] [--work FOLDER] [--json]

Exit code 1 if something was found: an exception that a parser may not raise, more than 10 s or 2 GB for one input. The input
lies in FOLDER/TARGET then; `--input FILE --targets TARGET` runs it once more, without atheris. FOLDER keeps what was learnt.
"""

import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

from benchmarks.fuzz.targets import TARGETS

ROOT = pathlib.Path(__file__).resolve().parents[2]
_DONE = re.compile(r"^Done (\d+) runs in (\d+) second", re.MULTILINE)
_COVERED = re.compile(r"cov: (\d+)")
_GRACE_S = 600
"""For instrumenting the modules, on a machine with other work."""


def fuzz(name: str, seconds: int, folder: pathlib.Path) -> dict[str, object]:
    """Runs one target; what it did and found."""
    command = [sys.executable, "-m", "benchmarks.fuzz.harness", name, str(folder / "corpus")]
    options = [f"-max_total_time={seconds}", "-timeout=10", "-rss_limit_mb=2048", f"-artifact_prefix={folder}/found-"]
    search = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [*command, *options], cwd=ROOT, env={**os.environ, "PYTHONPATH": search}, capture_output=True, text=True,
        errors="replace", timeout=seconds + _GRACE_S, check=False,
    )  # fmt: skip
    told = done.stderr + done.stdout
    (folder / "log.txt").write_text(told)
    runs, covered = _DONE.search(told), _COVERED.findall(told)
    return {
        "target": name,
        "runs": int(runs[1]) if runs else 0,
        "covered": int(covered[-1]) if covered else 0,
        "found": "" if done.returncode == 0 else told[-1500:],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--targets", nargs="+", choices=sorted(TARGETS), default=list(TARGETS))
    parser.add_argument(
        "--work", type=pathlib.Path, help="folder for corpora, logs and findings; default: a temporary one"
    )
    parser.add_argument("--input", type=pathlib.Path, help="run the target on this file once, without atheris")
    parser.add_argument("--json", action="store_true", help="print only the JSON object")
    arguments = parser.parse_args()
    if arguments.input is not None:
        TARGETS[arguments.targets[0]](arguments.input.read_bytes())
        return 0
    work = arguments.work or pathlib.Path(tempfile.mkdtemp(prefix="sop-fuzz-"))
    results = []
    for name in arguments.targets:
        results.append(fuzz(name, arguments.seconds, work.absolute() / name))
        if not arguments.json:
            print(
                f"{name:12} {results[-1]['runs']:>9} runs, {results[-1]['covered']:>5} covered  {results[-1]['found']}"
            )
    num_found = sum(bool(result["found"]) for result in results)
    print(json.dumps({"name": "fuzz", "seconds": arguments.seconds, "found": num_found, "targets": results}))
    return 1 if num_found else 0


if __name__ == "__main__":
    sys.exit(main())

import json
import pathlib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sop_jax.cli.main import BAD_INPUT, main
from sop_jax.episodes.store import EpisodeStore
from sop_jax.episodes.synthetic import make_episode, make_spec
from sop_jax.specs.records import Source

SPEC = make_spec(image_size=16, camera_names=("head",))


@pytest.fixture
def folder(tmp_path) -> str:
    store = EpisodeStore(f"file://{tmp_path}/store/")
    store.put(make_episode(1, 9, spec=SPEC, takeovers=((2, 3, 5),)))
    store.put(make_episode(2, 6, spec=SPEC, task="laundry_fold", instruction="fold it"))
    return str(tmp_path)


def _last_json(capsys):
    return json.loads(capsys.readouterr().out.strip().splitlines()[-1])


def _export(folder: str, name: str = "dataset", *options: str) -> int:
    words = ["episodes", "export", "--store", f"{folder}/store", "--output", f"{folder}/{name}"]
    return main([*words, *options, "--json"])


def test_there_and_back(folder, capsys):
    assert _export(folder, "dataset", "--pictures", "jpeg") == 0
    assert _last_json(capsys) == {
        "output": f"{folder}/dataset",
        "num_episodes": 2,
        "num_frames": 15,
        "fps": 30,
        "left_out": {},
    }
    words = ["episodes", "import", "--path", f"{folder}/dataset", "--store", f"{folder}/back", "--json"]
    assert main(words) == 0
    assert len(_last_json(capsys)["imported"]) == 2
    assert main(words) == 0
    found = _last_json(capsys)
    assert (found["imported"], len(found["present"])) == ([], 2)
    back, store = EpisodeStore(f"file://{folder}/back/"), EpisodeStore(f"file://{folder}/store/")
    assert [back.read_bytes(path) for path in back.list_paths()] == [store.read_bytes(p) for p in store.list_paths()]


def test_selection_and_a_full_folder(folder, capsys):
    options = ["--task", "laundry_fold", "--source", "online", "--outcome", "success", "timeout"]
    assert _export(folder, "dataset", *options, "--frames", "pictured") == 0
    found = _last_json(capsys)
    assert (found["num_episodes"], found["num_frames"], found["fps"]) == (1, 2, 10)
    assert _export(folder, "other", "--source", "offline") == BAD_INPUT
    assert "episodes: expected one or more, got 0. Select others." in capsys.readouterr().err
    assert _export(folder) == BAD_INPUT
    assert "is not empty: a dataset needs a folder of its own" in capsys.readouterr().err


def test_a_mapping_is_printed_edited_and_used(folder, capsys, tmp_path):
    """An export, taken for somebody else's demonstrations."""
    assert _export(folder) == 0
    capsys.readouterr()
    assert main(["episodes", "import", "--path", f"{folder}/dataset", "--print-mapping"]) == 0
    mapping = json.loads(capsys.readouterr().out)
    assert [camera["name"] for camera in mapping["cameras"]] == ["head"]
    # Of the takeover's episode the policy's frames are no demonstration, unless the mapping says so.
    mapping |= {"image_stride": 4, "human": ""}
    (tmp_path / "mapping.json").write_text(json.dumps(mapping))
    words = ["episodes", "import", "--path", f"{folder}/dataset", "--store", f"{folder}/back"]
    words += ["--mapping", str(tmp_path / "mapping.json"), "--task", "boxes", "--image-size", "8", "8", "--json"]
    assert main([*words, "--dry-run"]) == 0
    assert len(_last_json(capsys)["imported"]) == 2
    assert main(words) == 0
    back = EpisodeStore(f"file://{folder}/back/")
    episodes = [back.read(path) for path in back.list_paths()]
    assert {(e.manifest.task, e.manifest.source) for e in episodes} == {("boxes", Source.OFFLINE)}
    assert {e.manifest.cameras[0].height for e in episodes} == {8}
    assert sorted(e.arrays.image_frames.tolist() for e in episodes) == [[0, 4], [0, 4, 8]]


def test_a_bad_episode_gives_exit_code_1(folder, capsys):
    assert _export(folder, "dataset", "--pictures", "jpeg") == 0
    path = f"{folder}/dataset/data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    times = table["time_ns"].to_pylist()
    times[12] = times[11]
    pq.write_table(table.set_column(table.schema.get_field_index("time_ns"), "time_ns", pa.array(times)), path)
    capsys.readouterr()
    assert main(["episodes", "import", "--path", f"{folder}/dataset", "--store", f"{folder}/back"]) == 1
    text = capsys.readouterr().out
    assert "dataset, episode 1: " in text
    assert "time_ns at frame 3: expected > " in text
    assert "1 episodes imported (9 frames), 0 were there already, 1 refused" in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--store is missing"),
        (["--store", "s", "--task", "x"], "brings all that along: leave out --task"),
        (["--store", "s", "--format", "agibot"], "--task is missing"),
        (["--store", "s", "--format", "rlds", "--task", "x"], "expected an RLDS dataset's"),
        (["--store", "s", "--format", "agibot", "--task", "x"], "feature 'observation.states.joint.position'"),
    ],
)
def test_bad_input_is_one_clear_line(folder, capsys, monkeypatch, options, message):
    monkeypatch.chdir(folder)
    assert _export(folder) == 0
    capsys.readouterr()
    assert main(["episodes", "import", "--path", f"{folder}/dataset", *options]) == BAD_INPUT
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert message in lines[0]
    assert not (pathlib.Path(folder) / "s").exists()


def test_no_such_places(tmp_path, capsys):
    missing = str(tmp_path / "nothing")
    assert main(["episodes", "export", "--store", missing, "--output", f"{missing}2"]) == BAD_INPUT
    assert "there is no such folder" in capsys.readouterr().err
    assert main(["episodes", "import", "--path", missing, "--store", f"{missing}3", "--task", "x"]) == BAD_INPUT
    assert "Is this the dataset's folder, the one that holds meta/?" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []

"""kill -9 in the middle of uploads never leaves half an episode in sight, and the next attempt repairs everything."""

import subprocess
import sys
import time

from sop_jax.episodes.store import EpisodeStore
from sop_jax.episodes.verify import verify_bytes

WRITER = """
import dataclasses, sys
from sop_jax.episodes.store import EpisodeStore
from sop_jax.episodes.synthetic import make_episode, make_spec
store = EpisodeStore(sys.argv[1])
template = make_episode(0, num_frames=60, image_stride=2, image_size=192, spec=make_spec(192, ("head",)))
print("ready", flush=True)
for count in range(int(sys.argv[2]), 10_000):
    episode_id = f"robot-0.00000000001000000000.{count:06d}"
    store.put(dataclasses.replace(template, manifest=dataclasses.replace(template.manifest, episode_id=episode_id)))
"""


def test_killed_writers_leave_only_whole_episodes(store_url):
    store = EpisodeStore(store_url)
    paths: list[str] = []
    for wait_s in (0.0, 0.01, 0.02):
        command = [sys.executable, "-c", WRITER, store_url, str(len(paths))]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"ready\n"
            while len(store.list_paths()) < len(paths) + 2:
                assert writer.poll() is None
                time.sleep(0.001)
            time.sleep(wait_s)
            writer.kill()
        paths = store.list_paths()
        for path in paths:
            verify_bytes(store.read_bytes(path), path)
        assert all(summary.manifest is not None for summary in store.summaries())
    # The id at which a writer was killed is written by the next one, leftovers or not.
    assert paths == [f"episodes/robot-0/robot-0.00000000001000000000.{i:06d}.zip" for i in range(len(paths))]

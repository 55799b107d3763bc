"""Makes the golden episodes anew: `python tests/episodes/golden/remake.py`, after a change of the layout that was meant.

JPEG bytes depend on the encoder's version; reading them doesn't. A new layout gets a new schema_version and a new file
beside the old one, which must still be readable.
"""

import dataclasses
import hashlib
import json
import pathlib

from sop_jax.episodes.format import index_of, pack
from sop_jax.episodes.paths import episode_path
from sop_jax.episodes.synthetic import make_episode, make_spec
from sop_jax.specs.records import Episode, EpisodeMark


def main() -> None:
    spec = make_spec(image_size=8, camera_names=("head", "hand_left"))
    plain = make_episode(7, num_frames=6, image_stride=3, spec=spec, takeovers=((1, 2, 4),))
    marks = (EpisodeMark(2, "breach", "speed, 3.2"), EpisodeMark(5, "stage", "grasp"))
    marked = dataclasses.replace(plain, manifest=dataclasses.replace(plain.manifest, marks=marks))
    for name, episode in (("episode_v1", plain), ("episode_v2", marked)):
        write(name, episode)


def write(name: str, episode: Episode) -> None:
    folder = pathlib.Path(__file__).parent
    path, data = episode_path(episode.manifest.episode_id), pack(episode)
    index = index_of(data, path)
    (folder / f"{name}.zip").write_bytes(data)
    told = {
        "path": path,
        "sha256": hashlib.sha256(data).hexdigest(),
        "arrays_range": index.arrays_range,
        "image_ranges": index.image_ranges.tolist(),
        "state_1_2": float(episode.arrays.state[1, 2]),
    }
    (folder / f"{name}.json").write_text(json.dumps(told, indent=1) + "\n")
    print(f"{name}: wrote {len(data)} bytes, sha256 {told['sha256']}")


if __name__ == "__main__":
    main()

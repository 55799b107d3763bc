"""Named experiments: frozen dataclasses that nest the stations' configs, one file per experiment."""

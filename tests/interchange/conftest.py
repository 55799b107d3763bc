"""What goes out and comes back are episodes: their strategies serve here too."""

import pathlib
import sys

sys.path.append(str(pathlib.Path(__file__).parents[1] / "episodes"))

# dm_control builds its MJCF elements at run time: everything in it is Any.
from typing import Any

def __getattr__(name: str) -> Any: ...

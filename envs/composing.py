"""dm_control's `composer` and `mjcf`, imported without noise: on a machine without a display they try a window system
first, fail harmlessly (images come from `rendering`) and leave a warning behind.
"""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import dm_control.composer as composer
    import dm_control.mjcf as mjcf

__all__ = ["composer", "mjcf"]

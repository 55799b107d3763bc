"""The task `box_assembly`: fold a flat cardboard blank into a box, sides first, tabs tucked, then the ends that are named."""

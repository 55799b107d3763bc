"""Value functions: how far is it to the end, and will it be a good one, from images and instruction."""

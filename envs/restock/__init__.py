"""The restocking tasks: pick the named item and stand it in the named place (shelf, freezer, cooler)."""

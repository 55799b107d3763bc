"""The task `restock_shelf`: pick the named item from the staging area and stand it in the named slot of the shelf."""

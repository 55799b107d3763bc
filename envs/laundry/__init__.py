"""The task `laundry_fold`: flatten a crumpled T-shirt, fold it, and put it on the named stack with both arms."""

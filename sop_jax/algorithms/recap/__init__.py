"""RECAP (pi*0.6, arXiv 2511.14759): learn from everything, conditioned on whether an action was better than expected."""

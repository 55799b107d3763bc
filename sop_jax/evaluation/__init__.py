"""How good is a policy, and how did a run go: trials with intervals, the run's measurements, and its report."""

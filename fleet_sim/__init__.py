"""Many robots and a learner on virtual time: the real sampler, algorithm, learner step, worlds and publications."""

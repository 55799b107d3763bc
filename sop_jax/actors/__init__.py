"""Actors: the programs beside a robot. They run the policy, let a supervisor take over, and hand finished episodes on."""

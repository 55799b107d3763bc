"""The AgiBot G1: the robot protocol over the vendor's SDK, safety that doesn't trust the policy, and an emulator."""

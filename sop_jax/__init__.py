"""Scalable online post-training (SOP) of vision-language-action policies, in JAX.

The folders are the stations that one frame passes on its way round the loop:
`robots -> actors -> episodes -> replay -> sampling -> learner -> weights -> robots`.
"""

__version__ = "0.1.0"

"""A pi0.5-style vision-language-action policy: SigLIP tower, Gemma prefix, flow-matching action expert."""

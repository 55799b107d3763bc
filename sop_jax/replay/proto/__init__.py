"""Wire messages of Reverb's gRPC service, and the script that generates their Python code."""

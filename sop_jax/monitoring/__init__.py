"""What stations measure, for Prometheus, and what it says about the loop."""

"""The demo, and later the benchmark: workloads on servers that run as processes."""

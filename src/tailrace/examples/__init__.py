"""Applications to run and to read: `python -m tailrace.examples.streaming` and `python -m tailrace.examples.demo`."""

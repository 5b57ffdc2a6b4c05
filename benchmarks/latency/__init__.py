"""The parts of cpu_latency.py: who competes, how they are timed, how good their answers are, what is asked of them."""

"""For tests of jobs, of this package and of extensions to it.

``runs`` submits a few lines of script as a real run and waits; ``processes`` finds what a run
started, to hurt it; ``leaks`` proves that nothing of it is left; ``conformance`` is the suite that
a backend passes to count as supported; ``nvml`` gives a host GPUs that exist in a file alone, for
this process or, by variables, for others.
"""

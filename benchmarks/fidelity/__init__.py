"""How often a run's stamp is right; see ``benchmarks/README.md``."""

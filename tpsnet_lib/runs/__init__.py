"""The study: what asks many networks (records, experiments, search, evaluation, analysis)."""

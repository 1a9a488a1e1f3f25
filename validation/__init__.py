"""Is it good enough: metrics, comparison, report, gate."""

"""Measuring pairs by the published protocol: prompts, settings, resumable runs, reports, plots."""

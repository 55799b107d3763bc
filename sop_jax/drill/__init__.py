"""Fault drills: real processes are killed on a seeded schedule, and an independent ledger says whether anything was lost."""

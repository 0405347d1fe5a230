"""What several tests share: real apps, runs, models, pictures and faults."""

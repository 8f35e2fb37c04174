"""Where each number comes from: one record for each run, beside its report."""
